"""Files of FluxViT: the published wraps, heads of other classes, other sizes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_cast_fluxvit import FLUXVIT_SMALL as SMALL
from small_cast_fluxvit import randomised

from stretchysnake.models.transformers.fluxvit import FluxViT
from stretchysnake.models.weights.loading import load_model, load_weights
from stretchysnake.models.weights.official.fluxvit import likely_shape


@pytest.mark.parametrize("wrap", ["module", "model", None])
@torch.no_grad()
def test_official_wraps_are_recognised(wrap, tmp_path):
    model = randomised(SMALL)
    state = {f"backbone.{name}": tensor.bfloat16() for name, tensor in model.state_dict().items()}
    torch.save({wrap: state} if wrap else state, tmp_path / "flux.pth")
    again, notes = load_model(tmp_path / "flux.pth", num_heads=2, pool_heads=4, token_budget=None)
    assert again.config == SMALL and any("bfloat16" in note for note in notes)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].bfloat16().float()), name


def test_which_shape_a_table_has():
    assert likely_shape(24 * 18**2) == (24, 18, 18)
    assert likely_shape(32 * 20**2) == (32, 20, 20)
    assert likely_shape(24 * 18**2, (6, 18, 18)) == (24, 18, 18)
    assert likely_shape(8 * 4, (8, 4, 4)) == (8, 2, 2)
    assert likely_shape(2 * 4**2, (16, 4, 4)) == (2, 4, 4)
    assert likely_shape(7) == (7, 1, 1)
    with pytest.raises(
        ValueError, match=r"not FluxViT weights: patch_embed.proj.weight, .* missing"
    ):
        FluxViT.config_of({"head.weight": torch.zeros(1)})


@torch.no_grad()
def test_heads_of_other_classes_start_fresh():
    model, video = randomised(SMALL), torch.randn(1, 3, 6, 16, 16)
    other = FluxViT(replace(SMALL, num_classes=7)).eval()
    notes = load_weights(other, model.state_dict())
    assert notes == [
        "absent, or of other classes, and fresh: head.0.weight, head.0.bias, head.2.weight, head.2.bias",
        "head of 5 classes not used: a fresh one of 7 classes must be trained",
    ]
    assert torch.equal(other.fc_norm.weight, model.fc_norm.weight)
    headless = FluxViT(replace(SMALL, num_classes=0)).eval()
    assert load_weights(headless, model.state_dict()) == [
        "heads and their LayerNorm dropped (num_classes is 0)"
    ]
    assert torch.equal(headless(video), model.features(video))
    fresh = FluxViT(SMALL).eval()
    notes = load_weights(fresh, headless.state_dict())
    assert "fc_norm.weight" in notes[0] and "head absent: a fresh one of 5" in notes[1]


@torch.no_grad()
def test_other_sizes_are_interpolated():
    state = randomised(SMALL).state_dict()
    model = FluxViT(replace(SMALL, num_frames=12, image_size=20, patch_size=5))
    assert load_weights(model, state) == [
        "positions 6x4x4 -> 12x4x4 (linear over time, bicubic over space)",
        "patch kernel and weights of its pixels 4 -> 5 px (bicubic)",
    ]
    own, how = model.state_dict(), {"mode": "bicubic", "align_corners": False, "size": (5, 5)}
    kernel = F.interpolate(state["patch_embed.proj.weight"].reshape(32, 3, 4, 4), **how)
    torch.testing.assert_close(own["patch_embed.proj.weight"], kernel.unsqueeze(2))
    pixels = state["patch_embed.norm_before.weight"].reshape(1, 4, 4, 3).permute(0, 3, 1, 2)
    pixels = F.interpolate(pixels, **how).permute(0, 2, 3, 1).flatten()
    torch.testing.assert_close(own["patch_embed.norm_before.weight"], pixels)
    frames = state["pos_embed"][0, 1:].reshape(6, 16, 32)
    wanted = 0.75 * frames[0] + 0.25 * frames[1]
    torch.testing.assert_close(own["pos_embed"][0, 17:33], wanted)
    assert torch.equal(own["pos_embed"][0, 0], state["pos_embed"][0, 0])


def test_sizes_come_from_the_shapes():
    for changes in (
        {}, {"mlp_ratio": 2.0}, {"num_frames": 10}, {"patch_size": 2}, {"depth": 3}, {"num_classes": 0},
        {"embed_dim": 64}, {"clip_dim": 12},
    ):  # fmt: skip
        config = replace(SMALL, **changes)
        found = FluxViT.config_of(FluxViT(config).state_dict())
        assert [getattr(found, n) for n in config.shaped] == [
            getattr(config, n) for n in config.shaped
        ]
    found = FluxViT.config_of(FluxViT(replace(SMALL, embed_dim=192)).state_dict())
    assert (found.num_heads, found.pool_heads) == (3, 16)
