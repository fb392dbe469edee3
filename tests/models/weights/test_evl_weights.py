"""EVL's two files, CLIP's tower under two sets of names, and rectangles, which files do not tell apart."""

from dataclasses import replace

import pytest
import torch

from stretchysnake.models.transformers.evl import EVL, EVLConfig
from stretchysnake.models.weights.loading import load_weights

SMALL = {
    "embed_dim": 32, "depth": 3, "num_heads": 2, "decoder_depth": 2, "decoder_width": 32, "decoder_heads": 2,
    "num_frames": 3, "num_classes": 4,
}  # fmt: skip


def randomised(config: EVLConfig, seed: int = 0) -> EVL:
    torch.manual_seed(seed)
    model = EVL(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def test_tower_under_the_names_of_the_official_code_is_the_same():
    model = randomised(EVLConfig(**SMALL, patch_size=4, image_size=8))
    state = model.state_dict()
    renamed = {n: t for n, t in state.items() if not n.startswith("clip.")}
    for name, tensor in state.items():
        bare = name.removeprefix("clip.visual.").replace("transformer.resblocks.", "blocks.")
        if bare == name:
            continue
        for ours, theirs in (
            ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"), ("ln_1", "norm1"), ("ln_2", "norm2"),
            ("class_embedding", "cls_token"), ("positional_embedding", "pos_embed"),
        ):  # fmt: skip
            bare = bare.replace(ours, theirs)
        if "in_proj" in bare:
            head, kind = bare.split("in_proj_")
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"backbone.{head}{part}_proj.{kind}"] = rows
        elif bare == "conv1.weight":
            renamed["backbone.patch_embed.proj.weight"] = tensor.flatten(1)
            renamed["backbone.patch_embed.proj.bias"] = torch.full((32,), 0.25)
        else:
            renamed[f"backbone.{bare}"] = tensor
    renamed["backbone.pos_embed"] = renamed["backbone.pos_embed"].clone()
    renamed["backbone.pos_embed"][1:] -= 0.25  # what the bias of the stem adds
    again = EVL(model.config).eval()
    assert load_weights(again, renamed) == ["bias of the patch embedding added to the positions"]
    video = torch.randn(1, 3, 3, 8, 8)
    torch.testing.assert_close(again(video), model(video), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_rectangles_are_taken_as_wider_than_high_where_the_model_does_not_know():
    model = randomised(EVLConfig(**SMALL, patch_size=(4, 8), image_size=(8, 32)))
    # the file says the sides but not which is which; the model knows
    assert EVL.config_of(model.state_dict()).image_size == (8, 32)
    upright = randomised(EVLConfig(**SMALL, patch_size=4, image_size=(16, 8)))
    again = EVL(upright.config).eval()
    assert load_weights(again, upright.state_dict()) == []
    tall = torch.randn(1, 3, 3, 16, 8)
    assert torch.equal(again(tall), upright(tall))
    square = EVL(replace(upright.config, image_size=8)).eval()
    notes = load_weights(square, upright.state_dict())
    assert notes[0] == "stored grid taken as 2x4, wider than high"


def test_grid_that_fits_no_offsets_is_refused():
    state = randomised(EVLConfig(**SMALL, patch_size=4, image_size=8)).state_dict()
    name = "decoder.cross_attention.0.w1"
    with pytest.raises(ValueError, match=r"4 patch positions, which do not fit the 8 offsets"):
        EVL.config_of({**state, name: state[name][:8]})
    clip = {n: t for n, t in state.items() if n.startswith("clip.")}
    headless = {n: t for n, t in state.items() if not n.endswith("positional_embedding")}
    with pytest.raises(
        ValueError, match=r"not EVL weights: clip\.visual\.positional_embedding missing"
    ):
        EVL(EVLConfig(**SMALL, patch_size=4, image_size=8)).fitted(headless)
    table = "clip.visual.positional_embedding"
    with pytest.raises(ValueError, match="3 patch positions, which is no square number"):
        EVL.config_of({**clip, table: clip[table][:4]})
