"""MViT against official outputs, under every published layout of names, and at any scale."""

import pytest
import torch
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.flexibility import NANO, VARIANTS, Scale, eval_scale
from stretchysnake.models.architectures import config_from_dict, config_to_dict, create_model
from stretchysnake.models.transformers.mvit import MViT, MViTConfig
from stretchysnake.models.weights.files import save_model
from stretchysnake.models.weights.loading import load_model, load_weights


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


def torchvision_names(state):
    """The other way round than the loader, written down from the facts."""
    found = {}
    for name, tensor in state.items():
        for ours, theirs in (
            ("patch_embed.proj.", "conv_proj."), ("pos_embed_spatial", "pos_encoding.spatial_pos"),
            ("pos_embed_temporal", "pos_encoding.temporal_pos"), ("pos_embed_class", "pos_encoding.class_pos"),
            ("cls_token", "pos_encoding.class_token"), ("attn.proj.", "attn.project.0."),
            ("head.projection.", "head.1."), ("mlp.fc1.", "mlp.0."), ("mlp.fc2.", "mlp.3."),
            ("attn.pool_q.", "attn.pool_q.pool."),
            ("attn.pool_k.", "attn.pool_k.pool."), ("attn.pool_v.", "attn.pool_v.pool."),
            ("attn.norm_q.", "attn.pool_q.norm_act.0."), ("attn.norm_k.", "attn.pool_k.norm_act.0."),
            ("attn.norm_v.", "attn.pool_v.norm_act.0."),
        ):  # fmt: skip
            name = name.replace(ours, theirs)
        if "attn" not in name and ".proj." in name:
            name = name.replace(".proj.", ".project.")
        found[name] = tensor.squeeze(0).squeeze(0) if "pos_encoding" in name else tensor
    return found


def separate_names(state):
    found = {}
    for name, tensor in state.items():
        if ".qkv." in name:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                found[name.replace(".qkv.", f".{part}.")] = third.clone()
        else:
            found[name] = tensor
    return found


def pytorchvideo_names(state):
    found = {}
    for name, tensor in separate_names(state).items():
        if name.startswith(("cls_token", "pos_embed")):
            name = f"cls_positional_encoding.{name}"
        name = name.replace("patch_embed.proj.", "patch_embed.patch_model.")
        name = name.replace("head.projection.", "head.proj.")
        name = name.replace("norm.", "norm_embed.") if name.startswith("norm.") else name
        found[name] = tensor
    found["blocks.0.attn._attention_pool_k.pool.weight"] = torch.ones(2)
    return found


@pytest.mark.parametrize(
    ("layout", "eps", "notes"),
    [
        (torchvision_names, 1e-6, []),
        (separate_names, 1e-5, ["attn.q, attn.k and attn.v joined to attn.qkv"]),
        (
            pytorchvideo_names,
            1e-6,
            [
                "1 tensors of _attention_pool_* left out: pool_* and norm_* hold the same",
                "attn.q, attn.k and attn.v joined to attn.qkv",
            ],
        ),
    ],
)
def test_other_layouts_are_the_same_model(layout, eps, notes):
    tensors, metadata = read_fixture(FIXTURES[0])
    ours, theirs = weights_of(tensors), layout(weights_of(tensors))
    assert not set(theirs) >= set(ours)
    config = MViT.config_of(theirs)
    assert config.pool_norm_eps == eps
    model = MViT(official_config(metadata["config"])).eval()
    assert MViT.config_of(theirs, pool_norm_eps=1e-6) == model.config
    assert load_weights(model, theirs) == notes
    assert model.state_dict().keys() == ours.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ("mvit_slowfast_b_16x4", "mvit-base"),
        ("mvit_slowfast_b_16x4_2021", "mvit-base-2021"),
        ("mvit_torchvision_v1_b", "mvit"),
        ("mvit_pytorchvideo_base_16x4", "mvit"),
    ],
)
def test_published_files_fit_by_name_and_shape(keys, name):
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in full_size_keys(keys).items()}
        model = create_model(name)
        assert MViT.config_of(state) == model.config
        fitted, _ = model.fitted(state)
        model.load_state_dict(fitted, strict=True)


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


def test_a_file_at_other_sizes_is_resized_with_notes():
    first, second = small(), small(image_size=24, patch_size=2, num_frames=4, num_classes=3)
    notes = load_weights(second, first.state_dict())
    assert notes == [
        "stem 7 -> 3 px (bicubic)",
        "spatial positions 8x8 -> 12x12 (bicubic)",
        "temporal positions 4 -> 2 (linear)",
        "head of 5 classes not used: a fresh one of 3 classes must be trained",
    ]
    video = torch.randn(2, 3, 4, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(
            second.eval().features(video), first.eval().features(video, 2), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("kv_stride", [2, 4, 16])
def test_saved_and_loaded_is_the_same_bit_for_bit(tmp_path, kv_stride):
    model = small(pool_unstrided=False, pool_norm_eps=1e-4, kv_stride=kv_stride).eval()
    video = torch.randn(2, 3, 6, 24, 20)
    if kv_stride < 16:
        assert MViT.config_of(model.state_dict()).kv_stride == kv_stride
    save_model(tmp_path / "w.safetensors", model)
    again, notes = load_model(tmp_path / "w.safetensors")
    assert (
        again.config == model.config == config_from_dict(config_to_dict(model.config))
        and notes == []
    )
    with torch.no_grad():
        assert torch.equal(again.features(video), model.features(video))


def test_a_broken_file_is_named():
    state = separate_names(small().state_dict())
    with pytest.raises(ValueError, match=r"hold norm\.bias twice, once as norm_embed\.bias"):
        MViT.config_of({**state, "norm_embed.bias": torch.zeros(32)})
    state["blocks.2.attn.k.weight"] = torch.zeros(16, 15)
    del state["blocks.3.attn.v.bias"]
    with pytest.raises(
        ValueError,
        match=r"missing blocks\.2\.attn\.qkv\.weight; missing blocks\.3\.attn\.qkv\.bias",
    ):
        load_weights(small(), state)


def test_weights_of_something_else_are_named():
    state = small().state_dict()
    del state["pos_embed_class"]
    with pytest.raises(ValueError, match="these are not MViT weights: pos_embed_class missing"):
        MViT.config_of(state)
    state = small().state_dict()
    state["pos_embed_spatial"] = state["pos_embed_spatial"][:, :-1]
    with pytest.raises(ValueError, match="holds 63 positions; a square number is needed"):
        MViT.config_of(state)


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
