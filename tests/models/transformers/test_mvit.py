"""MViT against official outputs and sizes, and at any scale; its files are test_mvit_files.py's."""

import pytest
import torch
from official import fixtures_of, read_fixture, relative, weights_of
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.flexibility import NANO, VARIANTS, Scale, eval_scale
from stretchysnake.models.architectures import create_model
from stretchysnake.models.transformers.mvit import MViT, MViTConfig
from stretchysnake.models.weights.loading import load_weights


def official_config(told: dict) -> MViTConfig:
    """The config that a fixture's metadata tells; what it tells and ours cannot hold fails here."""
    constant = {
        "pool_kvq_kernel": [3, 3, 3], "qkv_bias": True, "sep_pos_embed": True, "cls_embed_on": True,
        "pool_mode": "conv", "act": "gelu_erf",
    }  # fmt: skip
    assert {name: told[name] for name in constant} == constant
    tubelet, patch, _ = told["patch_stride"]
    assert told["patch_kernel"] == [2 * stride - 1 for stride in told["patch_stride"]]
    assert told["patch_padding"] == [stride - 1 for stride in told["patch_stride"]]
    pooling = [row[0] for row in told["pool_q_stride"]]
    assert told["pool_q_stride"] == [[i, 1, 2, 2] for i in pooling]
    assert told["dim_mul"] == told["head_mul"] == [[i, 2.0] for i in pooling]
    adaptive, listed = told["pool_kv_stride_adaptive"], told.get("pool_kv_stride") or []
    assert told["H"] == told["W"] == told["img_size"] and told["T"] == told["num_frames"]
    return MViTConfig(
        embed_dim=told["embed_dim"],
        depth=told["depth"],
        num_heads=told["num_heads"],
        pool_blocks=tuple(pooling),
        kv_stride=adaptive[-1] if adaptive else listed[0][-1],
        pool_unstrided=adaptive is not None or len(listed) == told["depth"],
        pool_norm_eps=told.get("pool_norm_eps", told["norm_eps"]),
        mlp_ratio=int(told["mlp_ratio"]),
        tubelet_size=tubelet,
        patch_size=patch,
        image_size=told["img_size"],
        num_frames=told["num_frames"],
        num_classes=told["num_classes"],
    )


FIXTURES = fixtures_of("mvit")


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_equals_the_official_model(path, dtype, limit):
    tensors, metadata = read_fixture(path)
    double = "_fp64" if dtype == torch.float64 else ""
    inputs = [name for name in tensors if name.startswith("input")]
    assert inputs
    for name in inputs:
        which = name.removeprefix("input")
        state = {**weights_of(tensors), **weights_of(tensors, f"model{which}.")}
        model = MViT(official_config(metadata[f"config{which}"])).to(dtype).eval()
        assert all("float64" in note for note in load_weights(model, state))
        with torch.no_grad():
            video = tensors[name].to(dtype)
            features, logits = model.features(video), model(video)
        assert relative(features, tensors[f"features{which}{double}"]) < limit
        assert relative(logits, tensors[f"logits{which}{double}"]) < limit


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_sizes_and_blocks_are_the_official_ones(path):
    tensors, metadata = read_fixture(path)
    told = metadata["config"]
    config = official_config(told)
    found = MViT.config_of(weights_of(tensors), kv_stride=config.kv_stride, pool_norm_eps=1e-6)
    assert found == config
    for block, wanted in zip(MViT(config).blocks, told["derived_blocks"], strict=True):
        assert block.norm1.weight.shape[0] == wanted["dim"]
        assert block.mlp.fc2.out_features == wanted["dim_out"]
        assert block.attn.num_heads == wanted["num_heads"]
        for part, stride in (("q", "stride_q"), ("k", "stride_kv"), ("v", "stride_kv")):
            found_stride = block.attn.strides.get(part)
            assert (found_stride and [1, found_stride, found_stride]) == wanted[stride]


@pytest.mark.parametrize(
    ("name", "changes", "count", "gmacs"),
    [
        ("mvit", {}, 36.61, 70.60),
        ("mvit-base-2021", {}, 36.60, 70.52),
        ("mvit", {"depth": 24, "pool_blocks": (2, 5, 21), "num_frames": 32}, 53.2, 236.2),
    ],
)
def test_parameters_and_multiplications_are_the_official_ones(name, changes, count, gmacs):
    with torch.device("meta"):
        model = create_model(name, **changes).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, model.config.num_frames, 224, 224))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(count, rel=1e-3)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=1e-3)


def small(**changes):
    values = {
        "embed_dim": 8, "depth": 4, "num_heads": 1, "pool_blocks": (1, 2), "kv_stride": 4, "image_size": 32,
        "num_frames": 8, "num_classes": 5,
    }  # fmt: skip
    return MViT(MViTConfig(**{**values, **changes}))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pool_blocks": (0, 3)}, r"pool_blocks \(\(0, 3\)\) must be growing numbers from 1 to depth - 1 \(15\)"),
        ({"pool_blocks": (3, 1)}, r"pool_blocks \(\(3, 1\)\) must be growing"),
        ({"kv_stride": 1, "pool_unstrided": False}, r"kv_stride \(1\) must be at least 2, or pool_unstrided True"),
        ({"head_dropout": 1.0}, r"head_dropout \(1.0\) must be at least 0 and less than 1"),
    ],
)  # fmt: skip
def test_bad_config_is_named(changes, text):
    with pytest.raises(ValueError, match=text):
        MViTConfig(**changes)


@pytest.mark.parametrize("shape", [(0, 32, 32), (4, 0, 32)])
def test_an_empty_clip_is_named(shape):
    with pytest.raises(ValueError, match=r"\(0\) must be a (positive )?multiple"):
        small().features(torch.randn(1, 3, *shape))


def test_nano_has_the_size_of_nano_videomamba_and_runs_at_every_scale_of_the_study():
    sizes = [
        sum(p.numel() for p in create_model(f"{name}-nano", num_classes=0).parameters())
        for name in ("mvit", "videomamba")
    ]
    assert 0.8 < sizes[0] / sizes[1] < 1.2
    model = create_model("mvit-nano", num_classes=10).eval()
    assert model.config.native == Scale(8, 32, 4)
    sets = type(NANO)(native=model.config.native, sizes=NANO.sizes, frames=NANO.frames)
    for size in NANO.sizes:
        for num_frames in NANO.frames:
            scale = eval_scale(
                VARIANTS["static_tokens"].using(sets), num_frames=num_frames, size=size
            )
            assert scale.size == size and scale.patch_size == round(size / 8)
            with torch.no_grad():
                video = torch.randn(1, 3, num_frames, size, size)
                tokens = model.tokens(video, scale.patch_size)
                assert tokens.patches.shape == (1, num_frames // 2, 2, 2, 64)
                assert torch.equal(model.features(video, scale.patch_size), tokens.cls)


@pytest.mark.parametrize(
    ("shape", "patch", "grid"),
    [
        ((8, 32, 32), 4, (4, 2, 2)),
        ((5, 36, 36), 4, (3, 3, 3)),
        ((1, 30, 50), 4, (1, 2, 4)),
        ((2, 9, 14), 2, (1, 2, 2)),
        ((3, 7, 64), 16, (2, 1, 1)),
    ],
)
@pytest.mark.parametrize("mode", ["exact", "floor"])
def test_any_length_and_frame_size_rounds_up(shape, patch, grid, mode):
    model, video = small().eval(), torch.randn(2, 3, *shape)
    with torch.no_grad():
        tokens = model.tokens(video, patch, grid=mode)
        assert tokens.patches.shape == (2, *grid, 32)
        assert tokens.patches.isfinite().all()
        assert torch.equal(model.features(video, patch, grid=mode), tokens.cls)
        video[..., -1, -1] += 1
        assert not torch.equal(model.features(video, patch, grid=mode), tokens.cls)


def test_pixel_statistics_are_the_official_ones():
    assert MViTConfig.pixel_mean == (0.45,) * 3 and MViTConfig.pixel_std == (0.225,) * 3
