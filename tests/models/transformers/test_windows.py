"""What Video Swin and Omnivore share, found by other ways: windows written out in loops, flexing, drop path."""

import copy
import itertools
import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from stretchysnake.flexibility import NANO, PAPER, Scale, static_tokens
from stretchysnake.models.architectures import config_from_dict, create_model
from stretchysnake.models.transformers.layers.swin_trunk import PatchMerging
from stretchysnake.models.transformers.layers.windows import (
    WindowAttention,
    cut_windows,
    fitting_window,
    join_windows,
    relative_index,
    shift_mask,
)

BOTH = pytest.mark.parametrize("name", ["video-swin", "omnivore"])
CPU = torch.device("cpu")


def small(name: str, **changes):
    """Two stages, windows 4x3x3: at 8x24x24 the first is shifted on all axes, the second in time alone."""
    fields = {
        "embed_dim": 8,
        "depths": (2, 2),
        "num_heads": (1, 2),
        "window_size": (4, 3, 3),
        "num_frames": 16,
        "image_size": 24,
        "num_classes": 5,
        "drop_path": 0.0,
        "dropout": 0.0,
        **changes,
    }
    torch.manual_seed(0)
    model = create_model(name, **fields).double()
    with torch.no_grad():  # biases and tables that matter
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def clip(*shape, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# the geometry


def test_axis_no_longer_than_the_window_is_one_window_without_shift():
    assert fitting_window((16, 7, 8), (8, 7, 7)) == ((8, 7, 7), (4, 0, 3))
    assert fitting_window((8, 4, 14), (8, 7, 7)) == ((8, 4, 7), (0, 0, 3))
    assert fitting_window((17, 56, 56), (16, 7, 7)) == ((16, 7, 7), (8, 3, 3))


def test_windows_are_cut_time_first_and_joined_again():
    places = list(itertools.product(range(4), range(6), range(2)))
    x = torch.tensor(places).view(1, 4, 6, 2, 3)
    windows = cut_windows(torch.cat([x, x + 100]), (2, 3, 1))
    by_hand = [
        [(t, y, c) for t in (a, a + 1) for y in (b, b + 1, b + 2)]
        for a in (0, 2)
        for b in (0, 3)
        for c in (0, 1)
    ]
    assert windows.shape == (16, 6, 3)
    assert torch.equal(windows[:8], torch.tensor(by_hand))
    assert torch.equal(join_windows(windows, (2, 3, 1), (4, 6, 2))[0], x[0])


def test_mask_keeps_what_the_shift_brought_together_apart():
    grid, window, shift = (4, 6, 3), (2, 3, 3), (1, 1, 0)
    mask = shift_mask(grid, window, shift, CPU)
    places = torch.tensor(list(itertools.product(*map(range, grid)))).view(1, *grid, 3)
    # where each token of a window stood before the shift: neighbours lie less than a window apart
    origin = cut_windows(places.roll((-1, -1), (1, 2)), window)
    for found, tokens in zip(mask, origin.tolist(), strict=True):
        for (i, query), (j, key) in itertools.product(enumerate(tokens), repeat=2):
            near = all(abs(q - k) < w for q, k, w in zip(query, key, window, strict=True))
            assert found[i, j] == (0.0 if near else -100.0)
    assert shift_mask(grid, window, (0, 0, 0), CPU) is None


def test_rows_of_the_table_are_the_offsets_time_slowest():
    stored = (3, 2, 4)
    offsets = list(itertools.product(range(-2, 3), range(-1, 2), range(-3, 4)))
    for window in (stored, (2, 1, 3), (1, 2, 2)):
        places = list(itertools.product(*map(range, window)))
        found = relative_index(window, stored, "geometric", CPU)
        for (i, query), (j, key) in itertools.product(enumerate(places), repeat=2):
            offset = tuple(q - k for q, k in zip(query, key, strict=True))
            assert offsets[found[i, j]] == offset


def test_official_index_of_a_shrunk_window_is_the_corner_of_the_stored_one():
    stored = (4, 3, 3)
    whole = relative_index(stored, stored, "geometric", CPU)
    for window in ((4, 3, 3), (2, 3, 3), (4, 2, 2), (3, 1, 2)):
        count = window[0] * window[1] * window[2]
        found = relative_index(window, stored, "official", CPU)
        assert torch.equal(found, whole[:count, :count])
        true = relative_index(window, stored, "geometric", CPU)
        assert torch.equal(found, true) == (
            window[1:] == stored[1:]
        )  # time alone keeps the offsets


def test_attention_by_hand():
    attention = WindowAttention(6, 2, (1, 1, 3), qkv_bias=True).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x, mask = clip(4, 3, 6), torch.tensor([[[0.0] * 3] * 3, [[0, 0, -100.0]] * 3]).double()
    index = relative_index((1, 1, 3), (1, 1, 3), "geometric", CPU)
    found = attention(x, index, mask)
    table = attention.relative_position_bias_table.tolist()
    for window in range(4):  # two windows of two clips
        q, k, v = (x[window] @ attention.qkv.weight.T + attention.qkv.bias).split(6, dim=1)
        out = []
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            logits = q[:, part] @ k[:, part].T * 3**-0.5 + mask[window % 2]
            bias = [[table[i - j + 2][head] for j in range(3)] for i in range(3)]
            logits = logits + torch.tensor(bias, dtype=torch.float64)
            out.append(logits.softmax(-1) @ v[:, part])
        wanted = torch.cat(out, 1) @ attention.proj.weight.T + attention.proj.bias
        assert torch.allclose(found[window], wanted, rtol=1e-12)


def test_merging_takes_rows_first_and_pads_odd_sides():
    merging = PatchMerging(2, 1e-5).double()
    x = clip(1, 1, 3, 3, 2)
    found = merging(x)
    zero = torch.zeros(2).double()
    four = torch.cat([x[0, 0, 2, 0], zero, x[0, 0, 2, 1], zero])  # 00, 10, 01, 11 of the last row
    normed = (four - four.mean()) / (four.var(unbiased=False) + 1e-5).sqrt()
    assert found.shape == (1, 1, 2, 2, 4)
    assert torch.allclose(found[0, 0, 1, 0], merging.reduction.weight @ normed, rtol=1e-10)


# flexing


@BOTH
def test_native_size_uses_the_very_stored_tensors(name):
    model = small(name).eval()
    stem = next(m for m in model.modules() if type(m).__name__ == "Stem")
    video = clip(1, 3, 16, 24, 24)
    wanted = F.conv3d(video, stem.proj.weight, stem.proj.bias, stride=(2, 4, 4))
    assert torch.equal(stem(video, 4), stem.norm(wanted.permute(0, 2, 3, 4, 1)))
    assert torch.equal(model(video), model(video, 4))


@BOTH
def test_other_patch_is_a_model_rebuilt_with_its_kernel(name):
    model = small(name).eval()
    rebuilt = small(name, patch_size=6).eval()
    state = model.state_dict()
    (stem,) = [key for key in state if key.endswith("patch_embed.proj.weight")]
    planes = F.interpolate(
        state[stem].flatten(1, 2), size=(6, 6), mode="bicubic", align_corners=False
    )
    rebuilt.load_state_dict({**state, stem: planes.view(8, 3, 2, 6, 6)})
    for shape in ((2, 3, 16, 36, 36), (1, 3, 5, 40, 26)):
        video = clip(*shape)
        assert torch.allclose(model(video, 6), rebuilt(video), rtol=1e-12)


@BOTH
@pytest.mark.parametrize("grid", ["exact", "floor"])
def test_any_size_is_padded_at_the_end(name, grid):
    model = small(name).eval()
    video = clip(2, 3, 9, 26, 41)
    padded = torch.zeros(2, 3, 10, 28, 44).double()
    padded[:, :, :9, :26, :41] = video
    found = model.features(video, grid=grid)
    assert found.shape == (2, 16) and torch.equal(found, model.features(padded))
    tokens = model.tokens(video, grid=grid)
    assert tokens.cls is None and tokens.patches.shape == (2, 5, 4, 6, 16)
    assert torch.allclose(tokens.patches.mean((1, 2, 3)), found, rtol=1e-12)
    assert model(video[:, :, :1, :1, :1]).isfinite().all()


def test_geometric_index_is_a_model_of_the_small_window():
    video = clip(2, 3, 8, 8, 8)  # 4x2x2 tokens in windows 4x3x3
    one = {"depths": (2,), "num_heads": (2,)}
    model = small("video-swin", **one, shrunk_window="geometric").eval()
    tight = small("video-swin", **one, window_size=(4, 2, 2)).eval()
    state = model.state_dict()
    for key in [key for key in state if key.endswith("bias_table")]:
        cube = state[key].view(7, 5, 5, 2)
        state[key] = cube[:, 1:4, 1:4].reshape(63, 2)
    tight.load_state_dict(state)
    assert torch.allclose(model(video), tight(video), rtol=1e-12)
    official = small("video-swin", **one).eval()
    official.load_state_dict(model.state_dict())
    assert not torch.allclose(model(video), official(video), rtol=1e-3)
    whole = clip(1, 3, 8, 12, 12)  # 4x3x3: the window is whole
    assert torch.equal(model(whole), official(whole))


@BOTH
def test_static_tokens_never_shrink_a_window_that_is_whole_at_the_native_scale(name):
    config = config_from_dict({"architecture": name.replace("-", "_")})
    sets = replace(PAPER, native=config.native, sizes=(96, 112, 128, 224, 384))
    scales = {static_tokens(random.Random(draw), sets) for draw in range(100)}
    assert {scale.patch_size for scale in scales} == {2, 4, 7}
    for scale in scales:
        for stage in range(4):
            side = scale.size // scale.patch_size // 2**stage
            window, _ = fitting_window((scale.num_frames // 2, side, side), config.window_size)
            assert window[1:] == (7, 7)


@BOTH
@pytest.mark.parametrize("size", NANO.sizes)
def test_gradients_reach_every_parameter_at_a_flexed_scale(name, size):
    model = small(name).train()
    patch = round(size / 6)  # the native grid is 24 / 4
    video = clip(2, 3, 9, size, size + 3)
    model(video, patch).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@BOTH
def test_bad_clips_and_sizes_are_named(name):
    model = small(name).eval()
    with pytest.raises(ValueError, match=r"must be floating point of shape \(B, 3, T, H, W\)"):
        model(torch.zeros(3, 16, 24, 24).double())
    with pytest.raises(ValueError, match=r"patch_size \(0\) must be a positive integer"):
        model(clip(1, 3, 16, 24, 24), 0)
    with pytest.raises(ValueError, match=r"grid \('round'\) must be \"exact\" or \"floor\""):
        model(clip(1, 3, 16, 24, 24), grid="round")
    with pytest.raises(ValueError, match=r"num_frames \(0\) must be positive"):
        model(clip(1, 3, 0, 24, 24))


# training


@BOTH
def test_draws_decide_which_branch_a_clip_goes_without(name):
    rate = 0.4
    model = small(name, drop_path=rate)
    assert model.num_drop_draws(Scale(16, 24, 4)) == 8
    video = clip(4, 3, 16, 24, 24)
    draws = torch.rand(4, 8)
    draws[0], draws[1] = 0.99, 0.0
    found = model.train()(video, drop_draws=draws)
    for b in range(4):
        # branches end in a linear layer: scaled or emptied by hand in a copy that drops nothing
        by_hand = copy.deepcopy(model).eval()
        with torch.no_grad():
            for i, block in enumerate(by_hand.stages()):
                last = rate * i / 3
                for part, layer in enumerate((block.attn.proj, block.mlp.fc2)):
                    factor = 0.0 if draws[b, 2 * i + part] < last else 1 / (1 - last)
                    layer.weight.mul_(factor), layer.bias.mul_(factor)
        assert torch.allclose(found[b], by_hand(video[b : b + 1])[0], rtol=1e-9)
    parts = [model(video[i : i + 2], drop_draws=draws[i : i + 2]) for i in (0, 2)]
    assert torch.allclose(torch.cat(parts), found, rtol=1e-12)
    undrawn = model(video), model(video)
    assert not torch.allclose(*undrawn)  # torch's generator decides


@BOTH
def test_eval_mode_drops_nothing(name):
    rates = {"drop_path": 0.5, "dropout": 0.5}
    model, plain = small(name, **rates).eval(), small(name).eval()
    video = clip(2, 3, 16, 24, 24)
    assert torch.equal(model(video), plain(video))
    features = model.features(video)
    model.head.train()  # the dropout before the head, by torch's generator
    torch.manual_seed(3)
    found = model.head(features)
    torch.manual_seed(3)
    kept = F.dropout(features, 0.5)
    assert torch.allclose(found, kept @ model.head.weight.T + model.head.bias, rtol=1e-12)


@BOTH
def test_recomputed_stages_give_the_same_gradients(name):
    found = []
    for checkpoint in (False, True):
        model = small(name, drop_path=0.3).train()
        model.checkpoint_activations = checkpoint
        draws = torch.rand(2, 8, generator=torch.Generator().manual_seed(5))
        model(clip(2, 3, 16, 24, 24), drop_draws=draws).sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@BOTH
def test_depths_grow_from_the_stem_to_the_head(name):
    model = small(name)
    names = [parameter for parameter, _ in model.named_parameters()]
    depths = [model.depth_of(parameter) for parameter in names]
    assert depths == sorted(depths) and set(depths) == set(range(6))
    merging = [d for n, d in zip(names, depths, strict=True) if ".downsample." in n]
    assert set(merging) == {2}  # with the block before it
    norm = "backbone.norm.weight" if name == "video-swin" else "trunk.norm.weight"
    assert model.depth_of(norm) == model.depth_of(f"{model.classifier}.weight") == 5
    assert all(any(n.endswith(last) for n in names) for last in model.undecayed())


@BOTH
def test_half_precision_and_autocast(name):
    model = small(name).float().eval()
    video = clip(2, 3, 16, 24, 24).float()
    with torch.no_grad():
        wanted = model.features(video)
        with torch.autocast("cpu", torch.bfloat16):
            autocast = model.features(video)
        half = copy.deepcopy(model).bfloat16().features(video)
    assert half.dtype == torch.bfloat16
    for found in (autocast, half):
        assert float((found.float() - wanted).abs().max() / wanted.abs().max()) < 0.05


@BOTH
def test_a_model_of_fake_tensors_is_made_and_run(name):
    with FakeTensorMode():
        model = create_model(name, depths=(2, 2), num_heads=(4, 8)).eval()
        assert model(torch.empty(2, 3, 8, 56, 56)).shape == (2, 400)
