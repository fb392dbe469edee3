"""Files of CAST: the published wraps, heads of another form, other sizes, and its two experts to start from."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_cast_fluxvit import CAST_SMALL as SMALL
from small_cast_fluxvit import randomised
from torch import nn

from stretchysnake.models.transformers.cast import CAST
from stretchysnake.models.weights.loading import load_model, load_weights


@torch.no_grad()
def test_official_wraps_are_recognised(tmp_path):
    model = randomised(SMALL)
    state = {f"backbone.{name}": tensor.half() for name, tensor in model.state_dict().items()}
    torch.save({"module": state, "epoch": 3}, tmp_path / "cast.pt")
    again, notes = load_model(tmp_path / "cast.pt", num_heads=4)
    assert again.config == SMALL and any("float16" in note for note in notes)
    video = torch.randn(1, 3, 4, 12, 12)
    torch.testing.assert_close(again(video), model(video), rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_heads_of_another_form_are_dropped_or_start_fresh():
    plain = randomised(SMALL)
    both = randomised(replace(SMALL, composition=True, num_verbs=2), seed=1)
    model = CAST(both.config)
    notes = load_weights(model, plain.state_dict())
    assert notes == [
        "last adapters dropped (composition)",
        "head_noun absent: a fresh one of 3 classes must be trained",
        "head_verb absent: a fresh one of 2 classes must be trained",
        "head of one kind of class dropped (composition)",
    ]
    model = CAST(SMALL)
    assert load_weights(model, both.state_dict()) == [
        "heads of nouns and verbs dropped (one head)",
        "last adapters absent: they start fresh",
        "head absent: a fresh one of 5 classes must be trained",
    ]
    model = CAST(replace(both.config, num_classes=6))
    assert load_weights(model, both.state_dict()) == [
        "head_noun of 3 classes not used: a fresh one of 4 classes must be trained"
    ]
    assert torch.equal(model.head_verb.weight, both.head_verb.weight)
    headless = CAST(replace(both.config, num_classes=0)).eval()
    assert load_weights(headless, both.state_dict()) == [
        "heads of nouns and verbs dropped (num_classes is 0)"
    ]
    video = torch.randn(1, 3, 4, 12, 12)
    assert torch.equal(headless(video), both.features(video))


def expert_files() -> tuple[dict, dict]:
    """(VideoMAE, CLIP's visual tower) as they are published, made from a CAST's own tensors."""
    state = randomised(SMALL).state_dict()
    clip = {}
    for name, tensor in state.items():
        if name.startswith("clip_"):
            clip[name.removeprefix("clip_")] = tensor
        elif ".clip_" in name and "cross" not in name:
            _, block, rest = name.split(".", 2)
            clip[f"transformer.resblocks.{block}.{rest.removeprefix('clip_')}"] = tensor
    kinds = ("norm1", "attn", "norm2", "mlp")
    videomae = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith("patch_embed.") or name.split(".")[2:3] in [[kind] for kind in kinds]
    }
    return videomae | {"head.weight": torch.zeros(7, 32), "head.bias": torch.zeros(7)}, clip


@torch.no_grad()
def test_starts_from_its_two_experts(tmp_path):
    videomae, clip = expert_files()
    torch.save({"model": videomae}, tmp_path / "videomae.pth")
    torch.save(
        {f"visual.{name}": t for name, t in clip.items()} | {"visual.proj": torch.zeros(32, 8)},
        tmp_path / "clip.pt",
    )
    with pytest.raises(ValueError, match=r"VideoMAE's weights alone.*give its file as clip"):
        load_model(tmp_path / "videomae.pth")
    model, notes = load_model(
        tmp_path / "videomae.pth",
        clip=tmp_path / "clip.pt",
        num_frames=4,
        num_classes=5,
        num_heads=4,
    )
    assert model.config == SMALL
    assert "of CLIP not used: proj" in notes
    assert "of VideoMAE not used: head.weight, head.bias" in notes
    assert any("only the two experts are in the files" in note for note in notes)
    del videomae["blocks.1.norm2.weight"], clip["ln_post.weight"]
    started = {**videomae, **{f"clip.visual.{name}": tensor for name, tensor in clip.items()}}
    with pytest.raises(
        ValueError, match=r"missing blocks.1.norm2.weight; missing clip_ln_post.weight"
    ):
        load_weights(CAST(SMALL), started)
    videomae, clip = expert_files()
    loaded, wanted = model.state_dict(), randomised(SMALL).state_dict()
    for name in (
        "clip_positional_embedding", "blocks.1.clip_attn.in_proj_bias", "blocks.0.attn.q_bias",
        "clip_ln_post.weight", "patch_embed.proj.weight",
    ):  # fmt: skip
        assert torch.equal(loaded[name], wanted[name]), name
    # a fresh model is the two experts unmixed: CLIP's vector is what torch's own layers make of its weights
    video = torch.randn(1, 3, 4, 12, 12)
    x = F.conv2d(video[0, :, [1, 3]].transpose(0, 1), clip["conv1.weight"], stride=4)
    x = torch.cat([clip["class_embedding"].expand(2, 1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = x + clip["positional_embedding"]
    x = F.layer_norm(x, (32,), clip["ln_pre.weight"], clip["ln_pre.bias"])
    for i in range(2):
        own = f"transformer.resblocks.{i}."
        part = {n.removeprefix(own): t for n, t in clip.items() if n.startswith(own)}
        attention = nn.MultiheadAttention(32, 4, batch_first=True)
        attention.load_state_dict({n[5:]: t for n, t in part.items() if n.startswith("attn.")})
        y = F.layer_norm(x, (32,), part["ln_1.weight"], part["ln_1.bias"])
        x = x + attention(y, y, y, need_weights=False)[0]
        y = F.layer_norm(x, (32,), part["ln_2.weight"], part["ln_2.bias"])
        y = F.linear(y, part["mlp.c_fc.weight"], part["mlp.c_fc.bias"])
        y = y / (1 + torch.exp(-1.702 * y))
        x = x + F.linear(y, part["mlp.c_proj.weight"], part["mlp.c_proj.bias"])
    x = F.layer_norm(x[:, 0].mean(0), (32,), clip["ln_post.weight"], clip["ln_post.bias"])
    torch.testing.assert_close(model.both(video)[0][0], x, rtol=1e-4, atol=1e-5)


def test_weights_of_something_else_are_named():
    with pytest.raises(ValueError, match=r"not CAST weights: clip_conv1.weight, .* missing"):
        CAST.config_of({"head.weight": torch.zeros(1)})
    state = randomised(SMALL).state_dict()
    state["clip_positional_embedding"] = torch.zeros(8, 32)
    with pytest.raises(ValueError, match="positions of 7 places are stored; a square number"):
        CAST.config_of(state)


@torch.no_grad()
def test_other_sizes_are_interpolated():
    state = randomised(SMALL).state_dict()
    model = CAST(replace(SMALL, num_frames=8, image_size=20, patch_size=5))
    notes = load_weights(model, state)
    assert notes == [
        "VideoMAE's fixed positions are computed for (4, 4, 4); sine_shape=(2, 3, 3) keeps the file's",
        "patch kernels 4 -> 5 px (bicubic)",
        "spatial positions 3x3 -> 4x4 (bicubic)",
        "temporal positions 2 -> 4 (linear)",
    ]
    own, bicubic = model.state_dict(), {"mode": "bicubic", "align_corners": False}
    for name, size in (("clip_conv1.weight", (5, 5)), ("patch_embed.proj.weight", (2, 5, 5))):
        planes = F.interpolate(state[name].reshape(32, -1, 4, 4), size=(5, 5), **bicubic)
        torch.testing.assert_close(own[name], planes.reshape(32, 3, *size))
    for name, first in (
        ("clip_positional_embedding", 1), ("blocks.1.s2t_cross.clip_space_pos", 0),
        ("blocks.0.s2t_cross.vmae_space_pos", 0),
    ):  # fmt: skip
        plane = state[name][first:].T.reshape(1, -1, 3, 3)
        plane = F.interpolate(plane, size=(4, 4), **bicubic).flatten(2)[0].T
        torch.testing.assert_close(own[name], torch.cat([state[name][:first], plane]))
    for name in ("blocks.0.t2s_cross.clip_time_pos", "blocks.1.t2s_cross.vmae_time_pos"):
        a, b = state[name]
        wanted = torch.stack([a, 0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b, b])
        torch.testing.assert_close(own[name], wanted)


def test_sizes_come_from_the_shapes():
    for changes in (
        {}, {"mlp_ratio": 2.0}, {"down_ratio": 4}, {"qkv_bias": False}, {"num_frames": 10}, {"patch_size": 3},
        {"depth": 3}, {"num_classes": 0}, {"composition": True, "num_verbs": 2}, {"embed_dim": 64},
        {"composition": True, "num_classes": 0},
    ):  # fmt: skip
        config = replace(SMALL, **changes)
        found = CAST.config_of(CAST(config).state_dict())
        assert [getattr(found, n) for n in config.shaped] == [
            getattr(config, n) for n in config.shaped
        ]
    for width, heads in ((128, 2), (96, 1)):
        found = CAST.config_of(CAST(replace(SMALL, embed_dim=width)).state_dict())
        assert found.num_heads == heads  # of 64 channels, where these divide the width
