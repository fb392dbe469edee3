"""What AIM, EVL and UniFormerV2 share: other scales, drop path, recomputation, depths, published sizes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_clip_models import SMALL, clip_of, each, randomised
from torch import nn

from stretchysnake.models.architectures import (
    build_model,
    config_from_dict,
    config_to_dict,
    create_model,
    model_names,
    sizes_of,
)
from stretchysnake.models.transformers.aim import AIM, AIMConfig
from stretchysnake.models.transformers.evl import EVL
from stretchysnake.models.transformers.uniformer_v2 import UniFormerV2
from stretchysnake.models.weights.loading import load_weights

FRAMES = {"aim": ("temporal_embedding",), "evl": ("temporal_pos_embed",)}


def test_fresh_model_is_clip_per_frame():
    """Adapters start as zero, so that each frame goes through CLIP alone: here torch's own layers, from its weights."""
    torch.manual_seed(0)
    model = AIM(
        AIMConfig(embed_dim=32, depth=2, num_heads=4, patch_size=4, image_size=8, num_classes=0)
    ).eval()
    video = torch.randn(2, 3, 3, 8, 8)
    state = model.backbone.state_dict()
    frames = video.transpose(1, 2).flatten(0, 1)
    x = F.conv2d(frames, state["conv1.weight"], stride=4).flatten(2).transpose(1, 2)
    x = torch.cat([state["class_embedding"].expand(6, 1, -1), x], 1) + state["positional_embedding"]
    x = F.layer_norm(x, (32,), state["ln_pre.weight"], state["ln_pre.bias"])
    for i in range(2):
        part = {
            n.removeprefix(f"transformer.resblocks.{i}."): t
            for n, t in state.items()
            if n.startswith(f"transformer.resblocks.{i}.")
        }
        attention = nn.MultiheadAttention(32, 4, batch_first=True)
        attention.load_state_dict(
            {n.removeprefix("attn."): t for n, t in part.items() if n.startswith("attn.")}
        )
        y = F.layer_norm(x, (32,), part["ln_1.weight"], part["ln_1.bias"])
        x = x + attention(y, y, y, need_weights=False)[0]
        y = F.layer_norm(x, (32,), part["ln_2.weight"], part["ln_2.bias"])
        y = F.linear(y, part["mlp.c_fc.weight"], part["mlp.c_fc.bias"])
        x = x + F.linear(
            y / (1 + torch.exp(-1.702 * y)), part["mlp.c_proj.weight"], part["mlp.c_proj.bias"]
        )
    cls = F.layer_norm(x[:, 0], (32,)).unflatten(0, (2, 3)).mean(1)
    with torch.no_grad():
        torch.testing.assert_close(model.features(video), cls, rtol=1e-4, atol=1e-5)


def resized_by_hand(name: str, state: dict, *, t: int, grid: tuple[int, int], patch: int) -> dict:
    """The state dict with stem and tables interpolated here, one by one."""
    state = dict(state)

    def on_grid(rows, before, after):
        plane = rows.T.reshape(1, -1, *before)
        plane = F.interpolate(plane, size=after, mode="bicubic", align_corners=False)
        return plane.reshape(rows.shape[1], -1).T

    for key, tensor in state.items():
        if key.endswith("positional_embedding"):
            state[key] = torch.cat([tensor[:1], on_grid(tensor[1:], (3, 3), grid)])
        elif key.endswith((".w1", ".w2")):
            state[key] = on_grid(tensor, (5, 5), tuple(2 * side - 1 for side in grid))
        elif key.endswith("conv1.weight"):
            planes = tensor.reshape(1, -1, 4, 4)
            planes = F.interpolate(planes, size=(patch, patch), mode="bicubic", align_corners=False)
            state[key] = planes.reshape(*tensor.shape[:-2], patch, patch)
        elif any(part in key for part in FRAMES.get(name, ())):
            line = tensor.reshape(1, -1, 64).transpose(1, 2)
            line = F.interpolate(line, size=t, mode="linear", align_corners=False)
            state[key] = line.transpose(1, 2).reshape(*tensor.shape[:-2], t, 64)
    return state


@each
@torch.no_grad()
def test_native_scale_uses_the_stored_tensors_themselves(name):
    model = randomised(SMALL[name])
    tower = next(module for module in model.modules() if hasattr(module, "class_embedding"))
    used = []
    original = tower.resized

    def watched(key, stored, resize, **how):
        used.append((stored, original(key, stored, resize, **how)))
        return used[-1][1]

    for module in model.modules():
        if hasattr(module, "resized"):
            module.resized = watched
    model(torch.randn(1, 3, SMALL[name].num_frames, 12, 12))
    assert len(used) >= 2 and all(stored is taken for stored, taken in used)


@each
@torch.no_grad()
def test_another_scale_equals_a_model_resized_by_hand(name):
    """Other T, H, W and P at once, H = W so that the other model's config can say it."""
    model = randomised(SMALL[name])
    config = replace(SMALL[name], num_frames=6, image_size=20, patch_size=5)
    other = build_model(config).eval()
    other.load_state_dict(resized_by_hand(name, model.state_dict(), t=6, grid=(4, 4), patch=5))
    video = torch.randn(2, 3, 6, 20, 20)
    wanted = other(video)
    torch.testing.assert_close(model(video, patch_size=5), wanted, rtol=1e-4, atol=1e-5)
    # a file's weights are brought to another size by the same mathematics
    again = build_model(config).eval()
    notes = load_weights(again, model.state_dict())
    torch.testing.assert_close(again(video), wanted, rtol=1e-4, atol=1e-5)
    assert "patch kernel 4x4 -> 5x5 px (bicubic)" in notes
    assert "spatial positions 3x3 -> 4x4 (bicubic)" in notes
    assert ("temporal positions 4 -> 6 (linear)" in notes) == (name in FRAMES)


@each
@torch.no_grad()
def test_any_rectangle_and_number_of_frames(name):
    model = randomised(SMALL[name])
    video = torch.randn(2, 3, 2, 8, 20)
    features, tokens = model.features(video), model.tokens(video)
    t = 2 // SMALL[name].frame_multiple
    assert features.shape == (2, 64) and features.isfinite().all()
    assert tokens.patches.shape == (2, t, 2, 5, 64) and torch.equal(tokens.cls, features)
    torch.testing.assert_close(model(video), model.head(features))
    uneven = torch.randn(1, 3, 2, 9, 22)
    torch.testing.assert_close(model(uneven, grid="floor"), model(uneven[..., :8, :20]))
    with pytest.raises(ValueError, match=r"height \(9\) must be a multiple of .*nearest: 8, 12"):
        model(uneven)
    with pytest.raises(ValueError, match="num_frames"):
        model(video[:, :, :0])
    with pytest.raises(ValueError, match=r"must be floating point of shape \(B, 3, T, H, W\)"):
        model(video[0])


@each
def test_gradients_reach_everything_at_another_scale(name):
    model = randomised(SMALL[name]).train()
    model(torch.randn(2, 3, 6, 10, 15), patch_size=5).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@each
def test_two_parts_drop_what_the_whole_drops(name):
    model = randomised(replace(SMALL[name], drop_path=0.7)).double().train()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.eval()  # its batch statistics would join the parts
    video = torch.randn(4, 3, 4, 12, 12, dtype=torch.float64)
    count = model.num_drop_draws(model.config.native)
    draws = torch.rand(4, count, generator=torch.Generator().manual_seed(3))
    whole = model(video, drop_draws=draws)
    parts = [model(video[i : i + 2], drop_draws=draws[i : i + 2]) for i in (0, 2)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-9, atol=1e-9)
    kept = model(video, drop_draws=torch.ones_like(draws))
    assert not torch.allclose(kept, whole)
    # every column decides something: of the last rate, since the first block's is 0
    for column in range(count // 2, count):
        one = torch.ones_like(draws)
        one[1, column] = 0.0
        changed = model(video, drop_draws=one)
        assert torch.equal(changed[0], kept[0]) and not torch.allclose(changed[1], kept[1]), column


@each
def test_eval_mode_drops_nothing_and_torch_draws_where_none_are_given(name):
    model = randomised(replace(SMALL[name], drop_path=0.5))
    plain = build_model(SMALL[name]).eval()
    plain.load_state_dict(model.state_dict())
    video = torch.randn(2, 3, 4, 12, 12)
    assert torch.equal(model(video), plain(video))
    model.train()
    drawn = []
    for seed in (0, 1, 2, 3, 0):
        torch.manual_seed(seed)
        drawn.append(model(video))
    assert torch.allclose(drawn[0], drawn[4])
    assert not all(torch.allclose(drawn[0], other) for other in drawn[1:4])


@each
def test_recomputing_gives_the_same_gradients(name):
    model = randomised(replace(SMALL[name], drop_path=0.3)).double().train()
    video = torch.randn(2, 3, 4, 12, 12, dtype=torch.float64)
    draws = torch.rand(2, model.num_drop_draws(model.config.native))
    grads = []
    for model.checkpoint_activations in (False, True):
        model.zero_grad()
        model(video, drop_draws=draws).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-10, atol=1e-12)


@each
def test_depths_cover_every_stage_and_undecayed_names_exist(name):
    model = build_model(SMALL[name])
    names = [n for n, _ in model.named_parameters()]
    depths = {n: model.depth_of(n) for n in names}
    assert set(depths.values()) == set(range(len(model.stages()) + 2))
    for number, stage in enumerate(model.stages(), 1):
        own = {id(p) for p in stage.parameters()}
        assert all(depths[n] == number for n, p in model.named_parameters() if id(p) in own)
    assert all(
        depths[n] == 0 for n in names if n.endswith(("positional_embedding", "conv1.weight"))
    )
    assert depths[f"{model.classifier}.weight"] == len(model.stages()) + 1
    assert set(model.undecayed()) <= {n.split(".")[-1] for n in names}
    if name == "evl":
        first = 1 + SMALL[name].depth
        assert depths["decoder.cls_token"] == depths["decoder.temporal_pos_embed.0"] == first
        assert (
            depths["decoder.cross_attention.1.w2"]
            == depths["decoder.temporal_conv.1.bias"]
            == first + 1
        )
    if name.startswith("uniformer"):
        first = 1 + SMALL[name].depth
        assert depths["transformer.temporal_cls_token"] == depths["transformer.dpe.0.bias"] == first
        assert depths["transformer.dpe.1.weight"] == first + 1


@each
@torch.no_grad()
def test_half_precision_runs_near_the_whole(name):
    model = randomised(SMALL[name])
    video = torch.randn(2, 3, 4, 10, 15)
    wanted = model(video, patch_size=5)
    with torch.autocast("cpu", torch.bfloat16):
        near = model(video, patch_size=5)
    assert (near.float() - wanted).norm() / wanted.norm() < 0.05
    for dtype in (torch.bfloat16, torch.float16):
        low = build_model(SMALL[name]).eval()
        low.load_state_dict(model.state_dict())
        found = low.to(dtype)(video, patch_size=5)
        assert found.dtype == dtype and (found.float() - wanted).norm() / wanted.norm() < 0.05


@pytest.mark.parametrize("model", [AIM, EVL, UniFormerV2])
def test_every_published_size_is_made_and_goes_through_json(model):
    name = model.__module__.rsplit(".", 1)[1]
    for size in sizes_of(name):
        with torch.device("meta"):
            made = create_model(f"{name}-{size}")
        assert isinstance(made, model) and f"{name.replace('_', '-')}-{size}" in model_names()
        assert config_from_dict(config_to_dict(made.config)) == made.config
        assert set(made.config.shaped) <= set(dir(made.config))


def test_frozen_trains_what_is_not_clips():
    for name in ("aim", "evl", "uniformer_v2"):
        model = build_model(replace(SMALL[name], frozen=True))
        frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
        own = clip_of(name)
        assert {f"{own}conv1.weight", f"{own}transformer.resblocks.1.attn.in_proj_weight"} <= frozen
        assert f"{model.classifier}.weight" not in frozen
        assert not [n for n in frozen if "Adapter" in n or "decoder" in n or ".dec." in n]
        assert all(p.requires_grad for p in build_model(SMALL[name]).parameters())
