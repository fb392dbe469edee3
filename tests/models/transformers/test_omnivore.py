"""Omnivore's video path against the official outputs, and its published files by name and shape."""

import pytest
import torch
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of
from test_video_swin import SMALL, config_of_fixture, on_meta
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.models.architectures import build_model, create_model
from stretchysnake.models.transformers.omnivore import Omnivore, OmnivoreConfig
from stretchysnake.models.weights.files import save_model
from stretchysnake.models.weights.loading import load_model, load_weights

LEFT_OUT = [
    "stem for depth left out: it takes no part in video",
    "head for images left out: it takes no part in video",
    "head for RGB-D left out: it takes no part in video",
]


@pytest.mark.parametrize("path", fixtures_of("omnivore"), ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("dtype", "suffix", "limit"), [(torch.float32, "", 1e-5), (torch.float64, "_fp64", 1e-10)]
)
def test_official_features_and_logits(path, dtype, suffix, limit):
    tensors, metadata = read_fixture(path)
    model = build_model(config_of_fixture(metadata)).to(dtype).eval()
    load_weights(model, weights_of(tensors))
    inputs = [name for name in ("input", "input_2", "input_3") if name in tensors]
    assert inputs
    for name in inputs:
        end = name.removeprefix("input") + suffix
        with torch.no_grad():
            video = tensors[name].to(dtype)
            assert relative(model.features(video), tensors[f"features{end}"]) <= limit
            assert relative(model(video), tensors[f"logits{end}"]) <= limit


def test_published_file_fits_and_costs_what_it_should():
    keys = full_size_keys("omnivore_swinB")
    state = on_meta(keys)
    config = Omnivore.config_of(state)
    with torch.device("meta"):
        model = build_model(config).eval()
        assert create_model("omnivore-base").config == config == OmnivoreConfig()
    fitted, notes = model.fitted(state)
    model.load_state_dict(fitted, strict=True)
    assert notes == [*LEFT_OUT, "24 index buffers left out: the window says what they hold"]
    counts = {name: tensor.numel() for name, tensor in state.items() if "_index" not in name}
    found = sum(parameter.numel() for parameter in model.parameters())
    assert round(found / 1e6, 2) == 89.07  # the video path
    dropped = [name for name in counts if "depth_" in name or "heads.image" in name]
    dropped += [name for name in counts if "heads.rgbd" in name]
    assert found + sum(counts[name] for name in dropped) == sum(counts.values())
    # the facts say 90.12 M; the published names and shapes add up to 90.1146 M
    assert sum(counts.values()) / 1e6 == pytest.approx(90.12, rel=1e-4)
    for frames, gmacs in ((32, 320.36), (1, 15.45)):
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, frames, 224, 224, device="meta"))
        assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=1e-3)


@pytest.mark.parametrize("kind", ["kinetics", "epic"])
def test_published_wraps_are_recognised(tmp_path, kind):
    tensors, _ = read_fixture(fixtures_of("omnivore")[0])
    state = weights_of(tensors)
    trunk = {k.removeprefix("trunk."): v for k, v in state.items() if k.startswith("trunk.")}
    heads = {k.removeprefix("heads."): v for k, v in state.items() if k.startswith("heads.")}
    if kind == "epic":
        trunk = {name: tensor for name, tensor in trunk.items() if "depth_" not in name}
        heads = {"1.weight": heads["video.1.weight"], "1.bias": heads["video.1.bias"]}
    torch.save({"trunk": trunk, "heads": heads}, tmp_path / "swinB.torch")
    model, notes = load_model(tmp_path / "swinB.torch")
    assert model.config.architecture == "omnivore" and model.config.num_classes == 7
    index = "8 index buffers left out: the window says what they hold"
    assert notes == ([index] if kind == "epic" else [*LEFT_OUT, index])
    with torch.no_grad():
        assert relative(model(tensors["input_2"]), tensors["logits_2"]) <= 1e-5


def test_saved_file_gives_the_same_features_bit_for_bit(tmp_path):
    model = Omnivore(OmnivoreConfig(**SMALL)).eval()
    save_model(tmp_path / "omnivore.safetensors", model)
    loaded, notes = load_model(tmp_path / "omnivore.safetensors")
    video = torch.randn(2, 3, 7, 26, 20)
    with torch.no_grad():
        assert torch.equal(loaded(video), model(video))
    assert loaded.config == model.config and notes == []


def test_head_of_the_file_and_no_head(tmp_path):
    model = Omnivore(OmnivoreConfig(**SMALL)).eval()
    assert isinstance(model.head, torch.nn.Linear) and model.head.out_features == 5
    assert model.get_parameter(f"{Omnivore.classifier}.weight") is model.head.weight
    save_model(tmp_path / "omnivore.safetensors", model)
    bare, notes = load_model(tmp_path / "omnivore.safetensors", num_classes=0)
    assert notes == ["head dropped (num_classes is 0)"]
    video = torch.randn(1, 3, 4, 24, 24)
    assert torch.equal(bare(video), model.features(video))
    other, notes = load_model(tmp_path / "omnivore.safetensors", num_classes=9)
    assert other(video).shape == (1, 9) and "a fresh one of 9 classes must be trained" in notes[0]
