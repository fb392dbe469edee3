"""TimeSformer beside the same written out by hand: its files, every scale, drop path."""

import json

import pytest
import torch
import torch.nn.functional as F

from stretchysnake.flexibility import NANO, VARIANTS, Scale, Variant, eval_scale
from stretchysnake.models.architectures import config_from_dict, config_to_dict, create_model
from stretchysnake.models.transformers.timesformer import TimeSformer, TimeSformerConfig
from stretchysnake.models.weights.files import save_model
from stretchysnake.models.weights.loading import load_model


@pytest.fixture
def model():
    """A small one in fp64 with every table and weight in use: 3x3 patches of 8 px, 4 frames."""
    return used(config())


def config(**changes) -> TimeSformerConfig:
    values = {
        "embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8, "image_size": 24, "num_frames": 4,
        "num_classes": 3, "drop_path": 0.4,
    }  # fmt: skip
    return TimeSformerConfig(**{**values, **changes})


def used(config: TimeSformerConfig) -> TimeSformer:
    """A model in eval mode and fp64 whose zeros at the start are drawn too, else half of it would be unheard."""
    torch.manual_seed(0)
    model = TimeSformer(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "time_embed" or parameter.dim() == 1 or ".temporal_fc." in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def clip(*size: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).double()


def features_by_hand(model, video, patch, kernel, positions, frames, kept=None):
    """The forward pass in the official layout: [CLS], then (h, w, t) with t fastest; kept multiplies each branch.

    kernel (C, 3, P, P), positions (1 + N, C), frames (T, C); kept holds (B, N), (B, T) and (B, 1) for each block.
    """
    batch, _, t, height, width = video.shape
    stills = video.transpose(1, 2).reshape(batch * t, 3, height, width)
    x = F.conv2d(stills, kernel, model.patch_embed["proj"].bias, stride=patch)
    n = x.shape[2] * x.shape[3]
    x = x.reshape(batch, t, -1, n).permute(0, 3, 1, 2)  # (B, N, T, C)
    x = x + positions[1:, None] + frames
    cls = (model.cls_token[0] + positions[:1]).expand(batch, 1, -1)
    x = torch.cat([cls, x.reshape(batch, n * t, -1)], dim=1)
    for i, block in enumerate(model.blocks):
        places, times, mlp = (1.0, 1.0, 1.0) if kept is None else kept[i]
        if kept is not None:
            places = places.reshape(batch * n, 1, 1)
            times, mlp = times.reshape(batch * t, 1, 1), mlp.reshape(batch, 1, 1)
        cls, line = x[:, :1], x[:, 1:].reshape(batch * n, t, -1)
        branch = block.temporal_fc(block.temporal_attn(block.temporal_norm1(line)) * places)
        x = x[:, 1:] + branch.reshape(batch, n * t, -1)
        frame = x.reshape(batch, n, t, -1).transpose(1, 2).reshape(batch * t, n, -1)
        frame = torch.cat([cls.repeat_interleave(t, dim=0), frame], dim=1)
        branch = (block.attn(block.norm1(frame)) * times).reshape(batch, t, 1 + n, -1)
        x = x + branch[:, :, 1:].transpose(1, 2).reshape(batch, n * t, -1)
        x = torch.cat([cls + branch[:, :, 0].mean(1, keepdim=True), x], dim=1)
        x = x + block.mlp(block.norm2(x)) * mlp
    return model.norm(x)[:, 0]


def stored_weights(model):
    return model.patch_embed["proj"].weight, model.pos_embed[0], model.time_embed[0]


# Its files


def test_config_of_finds_what_shapes_say_and_names_what_is_missing(model):
    state = model.state_dict()
    found = TimeSformer.config_of(state, num_heads=2, drop_path=0.4)
    assert found == model.config
    other = used(config(mlp_ratio=2.7, qkv_bias=False, num_classes=0))
    assert TimeSformer.config_of(other.state_dict()).mlp_width == int(2.7 * 16) == 43
    assert not TimeSformer.config_of(other.state_dict()).qkv_bias
    del state["time_embed"]
    with pytest.raises(ValueError, match="not TimeSformer weights: time_embed missing"):
        TimeSformer.config_of(state)
    with pytest.raises(ValueError, match=r"'num_head'.*did you mean num_heads"):
        TimeSformer.config_of(model.state_dict(), num_head=2)


def test_a_file_of_ours_gives_the_same_features_bit_for_bit(model, tmp_path):
    model = model.float()
    save_model(tmp_path / "own.safetensors", model)
    loaded, notes = load_model(tmp_path / "own.safetensors")
    video = clip(1, 3, 4, 24, 24).float()
    assert notes == [] and loaded.config == model.config and isinstance(loaded, TimeSformer)
    with torch.no_grad():
        assert torch.equal(loaded.features(video), model.features(video))
        assert torch.equal(loaded(video), model(video))


def test_a_config_survives_json():
    for changes in ({}, {"table_resize": "nearest", "qkv_bias": False, "mlp_ratio": 2.5}):
        before = config(**changes)
        assert config_from_dict(json.loads(json.dumps(config_to_dict(before)))) == before


def test_fitted_resizes_stem_and_tables_and_says_so(model):
    bigger = used(config(patch_size=12, image_size=60, num_frames=7))
    state, notes = bigger.fitted(model.state_dict())
    assert notes == [
        "patch kernel 8x8 -> 12x12 (bicubic)",
        "spatial positions 3x3 -> 5x5 (bicubic)",
        "temporal positions 4 -> 7 (linear)",
    ]
    kernel, positions, frames = resized_by_hand(model, 12, (5, 5), 7)
    assert torch.equal(state["patch_embed.proj.weight"], kernel)
    assert torch.equal(state["pos_embed"][0], positions)
    assert torch.allclose(state["time_embed"][0], frames, rtol=0, atol=1e-15)
    nearest = used(config(num_frames=6, table_resize="nearest"))
    state, notes = nearest.fitted(model.state_dict())
    assert notes == ["temporal positions 4 -> 6 (nearest)"]
    assert torch.equal(state["time_embed"], model.time_embed[:, [0, 0, 1, 2, 2, 3]])


# Every scale


def resized_by_hand(model, patch, grid, frames):
    kernel, positions, times = stored_weights(model)
    side = model.config.native.grid
    kernel = F.interpolate(kernel, size=(patch, patch), mode="bicubic", align_corners=False)
    plane = positions[1:].T.reshape(1, -1, side, side)
    plane = F.interpolate(plane, size=grid, mode="bicubic", align_corners=False)
    positions = torch.cat([positions[:1], plane[0].flatten(1).T])
    times = F.interpolate(times.T[None], size=frames, mode="linear", align_corners=False)[0].T
    return kernel, positions, times


def test_native_scale_uses_the_very_stored_weights(model):
    for stored, size in ((model.pos_embed, (3, 3)), (model.time_embed, (4,))):
        name = "pos_embed" if stored is model.pos_embed else "time_embed"
        assert model._weight(name, stored, *size) is stored
    video = clip(2, 3, 4, 24, 24)
    with torch.no_grad():
        wanted = features_by_hand(model, video, 8, *stored_weights(model))
        assert torch.allclose(model.features(video), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("frames", "height", "width", "patch"),
    [
        (1, 24, 24, 8),
        (6, 24, 24, 8),
        (4, 40, 24, 8),
        (5, 36, 60, 12),
        (3, 15, 10, 5),
        (9, 8, 16, 8),
    ],
)
def test_every_scale_is_the_tables_resized_by_hand(model, frames, height, width, patch):
    video = clip(2, 3, frames, height, width)
    grid = height // patch, width // patch
    with torch.no_grad():
        wanted = features_by_hand(model, video, patch, *resized_by_hand(model, patch, grid, frames))
        assert torch.allclose(model.features(video, patch), wanted, rtol=0, atol=1e-12)
        assert torch.equal(model(video, patch), model.head(model.features(video, patch)))


def test_nearest_tables_repeat_rows_and_keep_that_of_cls(model):
    near = used(config(table_resize="nearest"))
    with torch.no_grad():
        positions = near._weight("pos_embed", near.pos_embed, 6, 1)
        frames = near._weight("time_embed", near.time_embed, 2)
    rows = [
        1 + 3 * (i // 2) for i in range(6)
    ]  # 3 -> 6 doubles rows, 3 -> 1 takes the first column
    assert torch.equal(positions[0], near.pos_embed[0, [0, *rows]])
    assert torch.equal(frames[0], near.time_embed[0, [0, 2]])


def test_floor_leaves_the_rest_unused_and_exact_names_the_nearest_sizes(model):
    video = clip(1, 3, 4, 29, 26)
    with torch.no_grad():
        assert torch.equal(
            model.features(video, grid="floor"), model.features(video[..., :24, :24])
        )
    with pytest.raises(ValueError, match=r"height \(29\).*patch_size \(8\); nearest: 24, 32"):
        model.features(video)
    with pytest.raises(ValueError, match=r"width \(6\).*nearest: 8"):
        model.features(video[..., :24, :6], grid="floor")
    with pytest.raises(ValueError, match="add a batch axis"):
        model.features(video[0])


def test_tokens_are_where_their_pixels_are(model):
    video = clip(1, 3, 3, 16, 24)
    moved = video.clone()
    moved[:, :, 2, 8:, 16:] += 1.0  # frame 2, row 1, column 2
    with torch.no_grad():
        for block in model.blocks:  # no token hears of another
            for branch in (block.attn.proj, block.temporal_fc):
                branch.weight.zero_()
        before, after = model.tokens(video), model.tokens(moved)
        assert before.patches.shape == (1, 3, 2, 3, 16)
        assert torch.equal(before.cls, model.features(video))
    changed = (before.patches != after.patches).any(-1)
    assert changed.nonzero().tolist() == [[0, 2, 1, 2]]


def test_gradients_reach_everything_at_another_scale(model):
    model.train()
    kept = torch.full((2, 2 * (20 + 6 + 1)), 0.99)
    model(clip(2, 3, 6, 40, 50), 10, drop_draws=kept).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_nano_is_as_large_as_nano_videomamba_and_takes_its_scales():
    model = create_model("timesformer-nano", num_classes=0).eval()
    mamba = create_model("videomamba-nano", num_classes=0)
    count, wanted = (sum(p.numel() for p in one.parameters()) for one in (model, mamba))
    assert model.config.native == NANO.native and abs(count / wanted - 1) < 0.2
    static = Variant(name="static_tokens", draw=VARIANTS["static_tokens"].draw, sets=NANO)
    with torch.no_grad():
        for frames in NANO.frames:
            for size in NANO.sizes:
                scale = eval_scale(static, num_frames=frames, size=size)
                assert scale.patch_size == round(size / 4) and scale.size == size
                video = torch.zeros(1, 3, frames, size, size)
                assert model.features(video, scale.patch_size).shape == (1, 64)


def test_half_precision_is_near(model):
    video = clip(2, 3, 4, 24, 24).float()
    model = model.float()
    with torch.no_grad():
        wanted = model.features(video)
        with torch.autocast("cpu", torch.bfloat16):
            assert (model.features(video).float() - wanted).abs().max() < 0.1
        found = model.bfloat16().features(video)
    assert found.dtype == torch.bfloat16 and (found.float() - wanted).abs().max() < 0.2


# Training


def test_draws_decide_which_place_and_frame_goes_without_which_branch(model):
    model.train()
    video = clip(3, 3, 5, 24, 16)
    n, t = 6, 5
    draws = torch.rand(3, 2 * (n + t + 1), generator=torch.Generator().manual_seed(2))
    draws[0] = 0.99
    draws[1, -1], draws[1, -t - 1] = 0.0, 0.99  # the MLP goes, the first frame stays
    kept = []
    for i, rate in enumerate((0.0, 0.4)):
        mine = draws[:, i * (n + t + 1) :][:, : n + t + 1]
        kept.append([(part >= rate).double() / (1 - rate) for part in mine.split((n, t, 1), dim=1)])
    assert sum(int((part == 0).sum()) for part in kept[1]) > 0
    with torch.no_grad():
        wanted = features_by_hand(model, video, 8, *resized_by_hand(model, 8, (3, 2), 5), kept)
        whole = model.features(video, drop_draws=draws)
        parts = [model.features(video[i : i + 1], drop_draws=draws[i : i + 1]) for i in range(3)]
    assert torch.allclose(whole, wanted, rtol=0, atol=1e-12)
    assert torch.allclose(torch.cat(parts), whole, rtol=0, atol=1e-12)
    assert model.num_drop_draws(Scale(5, 24, 8)) == 2 * (9 + 5 + 1)
    with pytest.raises(ValueError, match=r"drop_draws \(shape \(3, 23\)\) must be \(3, 24\)"):
        model.features(video, drop_draws=draws[:, 1:])


def test_torch_draws_in_training_and_nothing_is_dropped_in_eval(model):
    video = clip(2, 3, 4, 24, 24)
    with torch.no_grad():
        plain = model.features(video)
        undropped = used(config(drop_path=0.0)).features(video)
        assert torch.equal(plain, undropped)
        model.train()
        torch.manual_seed(3)
        first, second = model.features(video), model.features(video)
        torch.manual_seed(3)
        assert torch.equal(model.features(video), first) and not torch.equal(first, second)


def test_recomputed_activations_give_the_same_gradients(model):
    model.train()
    video, draws = clip(2, 3, 4, 24, 24), torch.rand(2, model.num_drop_draws(Scale(4, 24, 8)))
    found = []
    for again in (False, True):
        model.checkpoint_activations = again
        model.zero_grad()
        model(video, drop_draws=draws).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_depth_grows_from_the_embeddings_to_the_head(model):
    depths = {name: model.depth_of(name) for name, _ in model.named_parameters()}
    assert {name for name, depth in depths.items() if depth == 0} == {
        "cls_token", "pos_embed", "time_embed", "patch_embed.proj.weight", "patch_embed.proj.bias",
    }  # fmt: skip
    assert {depths[name] for name in depths if name.startswith("blocks.1.")} == {2}
    assert depths["norm.weight"] == depths["head.bias"] == 3 == len(model.stages()) + 1
    assert set(model.undecayed()) <= {name.split(".")[-1] for name in depths}


def test_a_fresh_model_sees_every_frame_for_itself():
    torch.manual_seed(0)
    model = TimeSformer(config(embed_dim=64, depth=3, num_classes=40)).eval()
    for block in model.blocks:
        assert not block.temporal_fc.weight.any() and not block.temporal_fc.bias.any()
        assert not block.attn.qkv.bias.any() and not block.mlp.fc2.bias.any()
        assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.time_embed.any() and model.pos_embed.std().item() == pytest.approx(
        0.02, rel=0.2
    )
    video = clip(1, 3, 1, 24, 24).float()
    with torch.no_grad():
        still = model.features(video.expand(-1, -1, 4, -1, -1))
        assert torch.allclose(still, model.features(video), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"embed_dim": 0}, r"embed_dim \(0\) must be a positive integer"),
        ({"mlp_ratio": 0.01}, r"mlp_width \(0\) must be a positive integer"),
        ({"image_size": 30}, r"image_size \(30\) must be a multiple of patch_size \(8\); nearest: 24, 32"),
        ({"table_resize": "bicubic"}, r"table_resize \('bicubic'\) must be one of: paper, nearest"),
        ({"patch_resize": "linear"}, r"patch_resize \('linear'\) must be one of: bicubic, area, pi"),
        ({"drop_path": 1.0}, r"drop_path \(1.0\)"),
        ({"num_heads": 3}, r"embed_dim \(16\) must be a multiple of num_heads \(3\)"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_is_named(changes, text):
    with pytest.raises(ValueError, match=text):
        config(**changes)
