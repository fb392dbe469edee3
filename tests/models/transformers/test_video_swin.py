"""Video Swin against the official outputs, its published files by name and shape, its config and its errors."""

import json

import pytest
import torch
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.models.architectures import (
    build_model,
    config_from_dict,
    config_to_dict,
    create_model,
)
from stretchysnake.models.transformers.video_swin import VideoSwin, VideoSwinConfig
from stretchysnake.models.weights.files import save_model
from stretchysnake.models.weights.loading import load_model, load_weights

SMALL = {
    "embed_dim": 8,
    "depths": (2, 2),
    "num_heads": (1, 2),
    "window_size": (4, 3, 3),
    "num_frames": 8,
    "image_size": 24,
    "num_classes": 5,
    "drop_path": 0.0,
}


def config_of_fixture(metadata: dict) -> VideoSwinConfig:
    """Every field that a fixture's metadata tells."""
    said = metadata["config"]
    assert said["act"] == "gelu_erf" and said["patch_size"][1] == said["patch_size"][2]
    same = ("embed_dim", "depths", "num_heads", "window_size", "mlp_ratio")
    same += ("qkv_bias", "patch_norm", "norm_eps", "num_classes")
    return config_from_dict(
        {
            "architecture": metadata["model"],
            **{name: said[name] for name in same},
            "tubelet_size": said["patch_size"][0],
            "patch_size": said["patch_size"][1],
            "num_frames": said["T"],
            "image_size": said["H"],
        }
    )


def torchvision_names(state: dict) -> dict:
    """Official names as torchvision has them."""
    renamed = {}
    for name, tensor in state.items():
        name = name.removeprefix("backbone.").replace("cls_head.fc_cls.", "head.")
        if name.startswith("layers."):
            _, stage, kind, *rest = name.split(".")
            place = 2 * int(stage) + (kind == "downsample")
            name = ".".join(["features", str(place), *rest])
            name = name.replace("mlp.fc1.", "mlp.0.").replace("mlp.fc2.", "mlp.3.")
        renamed[name] = tensor
    return renamed


def on_meta(keys: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    kinds = {True: torch.int64, False: torch.float32}
    return {
        name: torch.empty(shape, device="meta", dtype=kinds[name.endswith("_index")])
        for name, shape in keys.items()
    }


@pytest.mark.parametrize("path", fixtures_of("video_swin"), ids=lambda path: path.stem)
@pytest.mark.parametrize("names", ["official", "torchvision"])
@pytest.mark.parametrize(
    ("dtype", "suffix", "limit"), [(torch.float32, "", 1e-5), (torch.float64, "_fp64", 1e-10)]
)
def test_official_features_and_logits(path, names, dtype, suffix, limit):
    tensors, metadata = read_fixture(path)
    model = build_model(config_of_fixture(metadata)).to(dtype).eval()
    state = weights_of(tensors)
    if names == "torchvision":
        state = torchvision_names(state)
        assert "features.0.0.mlp.3.weight" in state and "features.1.reduction.weight" in state
    load_weights(model, state)
    inputs = [name for name in ("input", "input_2", "input_3") if name in tensors]
    assert inputs
    for name in inputs:
        end = name.removeprefix("input") + suffix
        with torch.no_grad():
            video = tensors[name].to(dtype)
            assert relative(model.features(video), tensors[f"features{end}"]) <= limit
            assert relative(model(video, grid="floor"), tensors[f"logits{end}"]) <= limit


@pytest.mark.parametrize(
    ("keys", "size", "parameters", "frames", "gmacs"),
    [
        ("official_tiny_patch244_window877", "tiny", 28.16, 16, 43.88),
        ("official_small_patch244_window877", "small", 49.82, 16, 165.68 / 2),
        ("official_base_patch244_window877", "base", 88.05, 32, 281.33),
        ("torchvision_swin3d_t", "tiny", 28.16, 0, None),
        ("torchvision_swin3d_b", "base", 88.05, 0, None),
    ],
)
def test_published_files_fit_and_cost_what_they_should(keys, size, parameters, frames, gmacs):
    state = on_meta(full_size_keys(f"video_swin_{keys}"))
    config = VideoSwin.config_of(state)
    with torch.device("meta"):
        model = build_model(config).eval()
        assert create_model(f"video-swin-{size}").config == config
    fitted, notes = model.fitted(state)
    model.load_state_dict(fitted, strict=True)
    assert notes == [f"{sum(config.depths)} index buffers left out: the window says what they hold"]
    found = sum(parameter.numel() for parameter in model.parameters())
    assert round(found / 1e6, 2) == parameters
    if gmacs:
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, frames, 224, 224, device="meta"))
        assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=1e-3)


def test_config_survives_json():
    config = VideoSwinConfig(**SMALL, shrunk_window="geometric")
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


@pytest.mark.parametrize(
    "changes",
    [{}, {"window_size": (5, 3, 2), "mlp_ratio": 2.7, "qkv_bias": False, "patch_norm": False}],
    ids=["as published", "all else"],
)
def test_saved_file_gives_the_same_features_bit_for_bit(tmp_path, changes):
    model = VideoSwin(VideoSwinConfig(**{**SMALL, **changes})).eval()
    save_model(tmp_path / "swin.safetensors", model)
    loaded, notes = load_model(tmp_path / "swin.safetensors")
    video = torch.randn(2, 3, 7, 26, 20)
    with torch.no_grad():
        assert torch.equal(loaded(video), model(video))
    assert loaded.config == model.config and notes == []


@pytest.mark.parametrize("names", ["official", "torchvision", "module"])
def test_published_wraps_are_recognised(tmp_path, names):
    tensors, metadata = read_fixture(fixtures_of("video_swin")[0])
    state = weights_of(tensors)
    wrapped = {"meta": {"epoch": 30}, "state_dict": state}
    if names == "torchvision":
        wrapped = torchvision_names(state)
    if names == "module":  # what a training on several ranks puts before all of them
        wrapped = {"module." + name: tensor for name, tensor in state.items()}
    torch.save(wrapped, tmp_path / "swin.pth")
    model, notes = load_model(tmp_path / "swin.pth")
    assert model.config.architecture == "video_swin"
    for name in ("embed_dim", "depths", "num_heads", "window_size", "num_classes", "mlp_ratio"):
        assert getattr(model.config, name) == getattr(config_of_fixture(metadata), name)
    assert len(notes) == 1 and "index buffers left out" in notes[0]
    with torch.no_grad():
        assert relative(model(tensors["input"]), tensors["logits"]) <= 1e-5


def test_names_without_their_prefix_fit_and_fields_are_changed():
    model = VideoSwin(VideoSwinConfig(**SMALL))
    bare = {name.removeprefix("backbone."): part for name, part in model.state_dict().items()}
    fitted, notes = model.fitted(bare)
    assert list(fitted) == list(model.state_dict()) and notes == []
    config = VideoSwin.config_of(bare, window_size=[4, 3, 3], num_frames=8)
    assert (config.window_size, config.num_frames, config.num_classes) == ((4, 3, 3), 8, 5)
    with pytest.raises(ValueError, match=r"'depth'\) is not known \(did you mean depths\?\)"):
        VideoSwin.config_of(bare, depth=3)


def test_other_sizes_and_classes_are_fitted_with_a_note(tmp_path):
    model = VideoSwin(VideoSwinConfig(**SMALL)).eval()
    save_model(tmp_path / "swin.safetensors", model)
    loaded, notes = load_model(
        tmp_path / "swin.safetensors", patch_size=6, window_size=[6, 3, 3], num_classes=0
    )
    assert notes == [
        "patch kernel 4 -> 6 px (bicubic)",
        "tables of relative positions 4x3x3 -> 6x3x3 (bicubic, linear in time)",
        "head dropped (num_classes is 0)",
    ]
    video = torch.randn(1, 3, 8, 36, 36)
    assert loaded(video).shape == (1, 16)  # no head: the features
    kernel = model.backbone.patch_embed.proj.weight
    wanted = torch.nn.functional.interpolate(
        kernel.flatten(1, 2), size=(6, 6), mode="bicubic", align_corners=False
    )
    assert torch.equal(loaded.backbone.patch_embed.proj.weight, wanted.view(8, 3, 2, 6, 6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 0}, r"embed_dim \(0\) must be a positive integer"),
        ({"depths": (2, 0)}, r"depths \(\(2, 0\)\) must be a tuple of positive integers"),
        ({"depths": ()}, r"depths \(\(\)\) must be a tuple of positive integers"),
        ({"window_size": (4, 3)}, r"window_size \(\(4, 3\)\) must be \(time, rows, columns\)"),
        ({"num_heads": (1, 2, 4)}, r"num_heads .* one number for each stage of depths"),
        ({"num_heads": (1, 3)}, r"num_heads \(3, stage 1\) must divide its width \(16\)"),
        ({"shrunk_window": "true"}, r"shrunk_window \('true'\) must be \"official\" or"),
        ({"mlp_ratio": 0.0}, r"mlp_ratio \(0.0\) and norm_eps \(1e-05\) must be positive"),
        ({"dropout": 1.0}, r"dropout \(1.0\) must be at least 0 and less than 1"),
        ({"drop_path": 1.0}, r"drop_path \(1.0\) must be at least 0 and less than 1"),
    ],
)
def test_config_that_cannot_be_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        VideoSwinConfig(**{**SMALL, **changes})


def test_tensor_under_two_names_is_an_error():
    model = VideoSwin(VideoSwinConfig(**SMALL))
    state = model.state_dict()
    with pytest.raises(ValueError, match="one tensor under two names"):
        model.fitted({**state, "head.weight": state["cls_head.fc_cls.weight"]})


def test_weights_of_something_else_are_named():
    with pytest.raises(ValueError, match=r"not weights of a Swin: .*patch_embed.* missing"):
        VideoSwin.config_of({"norm.weight": torch.zeros(8)})
    state = VideoSwin(VideoSwinConfig(**SMALL)).state_dict()
    # a number in a name asks for no memory
    more = {**state, "backbone.layers.0.blocks.999999999.norm1.weight": torch.zeros(8)}
    assert VideoSwin.config_of(more).depths == (3, 2)
    table = "backbone.layers.1.blocks.{}.attn.relative_position_bias_table"
    state = {key: v for key, v in state.items() if key not in (table.format(0), table.format(1))}
    with pytest.raises(ValueError, match="tables of relative positions in 1 of its 2 stages"):
        VideoSwin.config_of(state)
