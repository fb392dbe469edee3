"""UniFormerV2 beside the official code's outputs and key lists."""

from dataclasses import replace

import pytest
import torch
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.models.architectures import config_named, create_model
from stretchysnake.models.transformers.uniformer_v2 import UniFormerV2, UniFormerV2Config
from stretchysnake.models.weights.loading import load_weights


def config_from(said: dict) -> UniFormerV2Config:
    assert said["n_dim"] == said["width"] and said["n_layers"] == len(said["return_list"])
    return UniFormerV2Config(
        embed_dim=said["width"],
        depth=said["layers"],
        num_heads=said["heads"],
        patch_size=said["patch_size"],
        image_size=said["input_resolution"],
        num_frames=said["num_frames"],
        tubelet_size=2 if said["temporal_downsample"] else 1,
        local_parts=0 if said["no_lmhra"] else 1 + said["double_lmhra"],
        local_reduction=said["dw_reduction"],
        global_layers=tuple(said["return_list"]),
        global_heads=said["n_head"],
        global_mlp_factor=said["mlp_factor"],
        mixed=not said["frozen"],
        num_classes=said["num_classes"],
    )


@pytest.mark.parametrize("path", fixtures_of("uniformer_v2"), ids=lambda path: path.stem)
@torch.no_grad()
def test_parity_with_the_official_code(path):
    tensors, metadata = read_fixture(path)
    model = UniFormerV2(config_from(metadata["config"])).eval()
    assert load_weights(model, weights_of(tensors, "model.backbone.")) == []
    for end in ("", "_2", "_3"):
        if f"input{end}" not in tensors:
            continue
        for dtype, suffix, limit in ((torch.float32, "", 1e-5), (torch.float64, "_fp64", 1e-10)):
            model, video = model.to(dtype), tensors[f"input{end}"].to(dtype)
            assert relative(model.features(video), tensors[f"features{end}{suffix}"]) <= limit
            assert relative(model(video), tensors[f"logits{end}{suffix}"]) <= limit


@pytest.mark.parametrize(
    ("listing", "name"),
    [
        ("uniformer_v2_b16_8x224_k400", "base"),
        ("uniformer_v2_b16_16x224_ssv2", "base-ssv2"),
        ("uniformer_v2_l14_8x224_k400", "large"),
    ],
)
def test_full_size_files_load_strictly(listing, name):
    state = {
        n.removeprefix("backbone."): torch.empty(shape, device="meta")
        for n, shape in full_size_keys(listing).items()
    }
    config = UniFormerV2.config_of(state)
    assert config == config_named(f"uniformer_v2-{name}")
    with torch.device("meta"):
        model = UniFormerV2(config)
    fitted, notes = model.fitted(state)
    assert notes == []
    model.load_state_dict(fitted, strict=True)


@pytest.mark.parametrize(
    ("name", "parameters", "trainable", "gmacs"),
    [
        ("base", 114_552_208, 114_552_208, 148.105),
        ("base-16", 114_552_208, 114_552_208, 296.185),
        ("base-ssv2", 162_992_814, 162_992_814, 187.207),
        ("large-336-frozen", 354_426_256, 50_920_848, 1566.984),
    ],
)
def test_parameters_and_gmacs_are_those_of_the_facts(name, parameters, trainable, gmacs):
    with torch.device("meta"):
        model = create_model(f"uniformer-v2-{name}").eval()
        scale = model.config.native
        video = torch.empty(1, 3, scale.num_frames, scale.size, scale.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(video)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=1e-5)


@torch.no_grad()
def test_fresh_model_is_half_the_mean_cls_and_local_parts_are_nothing():
    torch.manual_seed(0)
    sizes = {
        "embed_dim": 32,
        "depth": 3,
        "num_heads": 2,
        "global_heads": 2,
        "patch_size": 4,
        "image_size": 8,
    }
    config = UniFormerV2Config(**sizes, global_layers=(1, 2), num_classes=0, local_parts=2)
    model = UniFormerV2(config).eval()
    plain = UniFormerV2(replace(config, local_parts=0)).eval()
    plain.load_state_dict({n: t for n, t in model.state_dict().items() if "lmhra" not in n})
    video = torch.randn(2, 3, 3, 8, 8)
    features, x, _ = plain._encode(video, None, "exact")
    torch.testing.assert_close(features, 0.5 * x[:, :, 0].mean(1))
    torch.testing.assert_close(model.features(video), features)


def test_frames_of_the_halving_form_must_be_even():
    config = UniFormerV2Config(
        embed_dim=32, depth=2, num_heads=2, global_heads=2, patch_size=4, image_size=8, num_frames=4,
        tubelet_size=2, global_layers=(1,), num_classes=3,
    )  # fmt: skip
    model = UniFormerV2(config).eval()
    assert config.frame_multiple == 2 and model(torch.randn(1, 3, 6, 8, 8)).shape == (1, 3)
    with pytest.raises(
        ValueError, match=r"num_frames \(5\) must be a positive multiple .*nearest: 4, 6"
    ):
        model(torch.randn(1, 3, 5, 8, 8))


def test_sizes_that_do_not_go_are_named():
    config = UniFormerV2Config()
    for change, text in (
        ({"tubelet_size": 3}, r"tubelet_size \(3\) must be one of: \(1, 2\)"),
        ({"local_parts": 3}, r"local_parts \(3\) must be one of: \(0, 1, 2\)"),
        (
            {"tubelet_size": 2, "num_frames": 5},
            r"num_frames \(5\) must be a multiple of tubelet_size",
        ),
        ({"global_layers": (3, 2)}, r"global_layers \(\(3, 2\)\) must name blocks from 0 to 11"),
        ({"global_layers": (12,)}, "must name blocks from 0 to 11"),
        ({"global_layers": ()}, "at least one"),
        ({"global_heads": 5}, r"embed_dim \(768\) must be a multiple of global_heads \(5\)"),
        ({"local_reduction": 0}, r"local_reduction \(0\) must be above 0"),
        ({"dropout": 1.0}, r"dropout \(1.0\) must be at least 0 and less than 1"),
    ):
        with pytest.raises(ValueError, match=text):
            replace(config, **change)
    with pytest.raises(ValueError, match=r"not UniFormerV2 weights: conv1.weight, .* missing"):
        UniFormerV2.config_of({"head.weight": torch.zeros(1)})
