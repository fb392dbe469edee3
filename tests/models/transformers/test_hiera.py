"""Hiera against official outputs, with its files and those of masked pre-training, and at other scales."""

import pytest
import torch
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.models.architectures import config_from_dict, config_to_dict, create_model
from stretchysnake.models.transformers.hiera import Hiera, HieraConfig
from stretchysnake.models.weights.files import save_model
from stretchysnake.models.weights.loading import load_model, load_weights


def official_config(told: dict) -> HieraConfig:
    """The config that a fixture's metadata tells; what it tells and ours cannot hold fails here."""
    constant = {
        "dim_mul": 2.0,
        "head_mul": 2.0,
        "sep_pos_embed": True,
        "norm_eps": 1e-6,
        "act": "gelu_erf",
    }
    assert {name: told[name] for name in constant} == constant
    tubelet, patch, _ = told["patch_stride"]
    assert told["patch_kernel"] == [2 * stride - 1 for stride in told["patch_stride"]]
    assert told["patch_padding"] == [stride - 1 for stride in told["patch_stride"]]
    side = 2 ** (len(told["stages"]) - 1)
    assert told["q_stride"] == [1, 2, 2] and told["mask_unit_size"] == [1, side, side]
    num_frames, height, width = told["input_size"]
    return HieraConfig(
        embed_dim=told["embed_dim"],
        num_heads=told["num_heads"],
        depths=tuple(told["stages"]),
        num_poolings=told["q_pool"],
        mask_units=tuple(told["mask_unit_attn"]),
        mlp_ratio=int(told["mlp_ratio"]),
        tubelet_size=tubelet,
        patch_size=patch,
        image_size=height,
        image_width=0 if width == height else width,
        num_frames=num_frames,
        num_classes=told["num_classes"],
    )


FIXTURES = fixtures_of("hiera")


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
        model = Hiera(official_config(metadata[f"config{which}"])).to(dtype).eval()
        notes = load_weights(model, state)
        assert all("float64" in note or "rows of" in note for note in notes)
        with torch.no_grad():
            video = tensors[name].to(dtype)
            features, logits = model.features(video), model(video)
        assert relative(features, tensors[f"features{which}{double}"]) < limit
        assert relative(logits, tensors[f"logits{which}{double}"]) < limit


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_sizes_are_read_from_the_weights(path):
    tensors, metadata = read_fixture(path)
    config = official_config(metadata["config"])
    told = {name: getattr(config, name) for name in ("num_heads", "num_poolings", "mask_units")}
    if config.image_width:
        told |= {"image_size": config.image_size, "image_width": config.image_width}
    assert Hiera.config_of(weights_of(tensors), **told) == config


@pytest.mark.parametrize(
    ("size", "count", "gmacs", "tensors"),
    [("base", 51.09, 101.73, 302), ("large", 213.09, 412.13, 590)],
)
def test_published_files_fit_and_cost_what_the_official_ones_do(size, count, gmacs, tensors):
    with torch.device("meta"):
        keys = full_size_keys(f"hiera_{size}_16x224")
        state = {key: torch.empty(shape) for key, shape in keys.items()}
        model = create_model(f"hiera-{size}").eval()
        assert len(state) == tensors
        assert Hiera.config_of(state) == model.config
        fitted, notes = model.fitted(state)
        model.load_state_dict(fitted, strict=True)
        assert notes == []
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, 16, 224, 224))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(count, abs=0.005)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, abs=0.005)


def small(**changes):
    values = {
        "embed_dim": 8, "depths": (1, 2, 2, 1), "patch_size": 2, "image_size": 32, "num_frames": 4, "num_classes": 5,
    }  # fmt: skip
    return Hiera(HieraConfig(**{**values, **changes}))


def test_file_of_masked_pretraining_brings_the_encoder_alone():
    first, second = small(), small()
    state = first.state_dict()
    for name in ("norm.weight", "norm.bias", "head.projection.weight", "head.projection.bias"):
        del state[name]
    for name in (
        "encoder_norm.weight", "encoder_norm.bias", "mask_token", "decoder_pos_embed", "decoder_pred.weight",
        "multi_scale_fusion_heads.0.weight",
    ):  # fmt: skip
        state[name] = torch.ones(3)
    assert Hiera.config_of(state).num_classes == 0
    assert Hiera.config_of(state, num_classes=5) == second.config
    with torch.no_grad():
        second.norm.weight.fill_(0.5)
    assert load_weights(second, state) == [
        "6 tensors of masked pre-training dropped; the final norm starts fresh",
        "head absent: a fresh one of 5 classes must be trained",
    ]
    assert torch.equal(second.blocks[3].mlp.fc1.weight, first.blocks[3].mlp.fc1.weight)
    assert torch.equal(second.norm.weight, torch.full((64,), 0.5))


def test_a_file_without_its_norm_or_with_another_tensor_is_refused():
    model, state = small(), small().state_dict()
    del state["norm.bias"]
    with pytest.raises(ValueError, match=r"missing norm\.bias"):
        load_weights(model, state)
    with pytest.raises(ValueError, match=r"unexpected blocks\.0\.attn\.pool_k"):
        load_weights(model, {**small().state_dict(), "blocks.0.attn.pool_k.weight": torch.ones(1)})


def test_a_file_at_other_sizes_is_resized_with_notes():
    first, second = small(), small(image_size=48, patch_size=3, num_frames=6, image_width=72)
    assert load_weights(second, first.state_dict()) == [
        "stem 3 -> 5 px (bicubic)",
        "spatial positions 16x16 -> 16x24 (bicubic)",
        "temporal positions 2 -> 3 (linear)",
    ]
    video = torch.randn(2, 3, 6, 48, 72)
    with torch.no_grad():
        torch.testing.assert_close(
            second.eval().features(video), first.eval().features(video, 3), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("width", [0, 48, 16])
def test_saved_and_loaded_is_the_same_bit_for_bit(tmp_path, width):
    model, video = small(image_width=width).eval(), torch.randn(2, 3, 6, 48, 24)
    save_model(tmp_path / "w.safetensors", model)
    again, notes = load_model(tmp_path / "w.safetensors")
    assert again.config == model.config == config_from_dict(config_to_dict(model.config))
    rows = {0: [], 48: ["384 spatial positions taken as 16 rows of 24"]}
    assert notes == rows.get(width, ["128 spatial positions taken as 16 rows of 8"])
    with torch.no_grad():
        assert torch.equal(again.features(video, 3), model.features(video, 3))


def test_weights_of_something_else_are_named():
    state = small().state_dict()
    with pytest.raises(ValueError, match="these are not Hiera weights: pos_embed_class is MViT's"):
        Hiera.config_of({**state, "pos_embed_class": torch.zeros(1, 1, 8)})
    with pytest.raises(ValueError, match="holds 255 positions; a multiple of 64 is needed"):
        Hiera.config_of({**state, "pos_embed_spatial": state["pos_embed_spatial"][:, :-1]})
    del state["pos_embed_temporal"]
    with pytest.raises(ValueError, match="these are not Hiera weights: pos_embed_temporal missing"):
        Hiera.config_of(state)


def test_first_block_of_a_stage_attends_as_the_stage_before():
    for depths, first_global, pooling in (
        ((2, 3, 16, 3), 6, [2, 5, 21]),
        ((2, 6, 36, 4), 9, [2, 8, 44]),
    ):
        blocks = Hiera(HieraConfig(embed_dim=8, depths=depths)).blocks
        inside = [block.mask_units for block in blocks]
        assert inside == [True] * first_global + [False] * (sum(depths) - first_global)
        assert [i for i, block in enumerate(blocks) if block.pool == 4] == pooling


def test_nothing_crosses_frames_before_the_first_global_block():
    model, seen = small().eval(), {}
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, __, out, i=i: seen.setdefault(i, []).append(out))
    video = torch.randn(1, 3, 8, 32, 32)
    other = video.clone()
    other[:, :, 7] += torch.randn(1, 3, 32, 32)  # only the stem's last frame sees it
    with torch.no_grad():
        model.features(video), model.features(other)
    alike = {}
    for i, (before, after) in seen.items():
        units = (before == after).all(-1)[0].unflatten(0, (-1, 4, 4))  # 4 times of 2 x 2 units
        alike[i] = [bool(units[:, t].all()) for t in range(4)]
    assert [alike[i] for i in range(4)] == [[True, True, True, False]] * 4
    assert alike[4] == [False] * 4


@pytest.mark.parametrize(
    ("shape", "patch"), [((4, 32, 32), 2), ((2, 8, 24), 1), ((10, 32, 64), 4), ((8, 72, 48), 3)]
)
def test_any_even_length_and_whole_mask_units_run(shape, patch):
    model, video = small().eval(), torch.randn(2, 3, *shape)
    t, height, width = shape
    with torch.no_grad():
        tokens = model.tokens(video, patch)
        features = model.features(video, patch)
    assert tokens.cls is None
    assert tokens.patches.shape == (2, t // 2, height // patch // 8, width // patch // 8, 64)
    assert features.shape == (2, 64) and features.isfinite().all()


@pytest.mark.parametrize("poolings", [0, 1, 2, 3])
def test_tokens_come_back_in_their_places(poolings):
    model = small(num_poolings=poolings, depths=(1, 1, 1, 1)).eval()
    with torch.no_grad():
        for (
            block
        ) in model.blocks:  # no attention and no MLP: each place keeps what its own pixels gave
            block.attn.proj.weight.zero_(), block.mlp.fc2.weight.zero_()
        video = torch.randn(1, 3, 4, 48, 32)
        other = video.clone()
        other[0, :, 2, 33:35, 17:19] += (
            1.0  # inside patch (16, 8) and its lower and right neighbours
        )
        before, after = model.tokens(video).patches, model.tokens(other).patches
    assert before.shape[1:4] == (2, 24 >> poolings, 16 >> poolings)
    changed = (before != after).any(-1)[0].nonzero().tolist()
    rows = {(1, y >> poolings, x >> poolings) for y in (16, 17) for x in (8, 9)}
    assert sorted(map(tuple, changed)) == sorted(rows)


def test_sizes_that_do_not_fit_are_named_and_floor_leaves_the_rest():
    model = small().eval()
    for size, text in (
        ((4, 112, 32), r"height \(112\) must be a multiple of 32, a mask unit of 8 patches at patch_size \(4\); "
         "nearest: 96, 128"),
        ((4, 32, 24), r"width \(24\) must be a multiple of 32, .* nearest: 32"),
        ((5, 32, 32), r"num_frames \(5\) must be a positive multiple of tubelet_size \(2\); nearest: 4, 6"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            model.features(torch.randn(1, 3, *size), 4)
    with pytest.raises(ValueError, match=r"width \(24\) must be a multiple of 32"):
        model.features(torch.randn(1, 3, 4, 32, 24), 4, grid="floor")
    video = torch.randn(1, 3, 4, 112, 40)
    with torch.no_grad():
        assert torch.equal(
            model.features(video, 4, grid="floor"), model.features(video[..., :96, :32], 4)
        )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"depths": (1, 0, 1, 1)}, r"depths \(\(1, 0, 1, 1\)\) must be a positive integer for each"),
        ({"depths": (1, 1)}, r"mask_units \(.*\) must say True or False for each of the 2 stages"),
        ({"num_poolings": 4}, r"num_poolings \(4\) must be from 0 to 3"),
        ({"image_size": 112}, r"image_size \(112\) must be a multiple of 32, .* nearest: 96, 128"),
        ({"image_width": 112}, r"image_width \(112\) must be a multiple of 32, .* nearest: 96, 128"),
    ],
)  # fmt: skip
def test_bad_config_is_named(changes, text):
    with pytest.raises(ValueError, match=text):
        HieraConfig(**changes)


def test_pixel_statistics_are_the_official_ones():
    assert HieraConfig.pixel_mean == (0.45,) * 3 and HieraConfig.pixel_std == (0.225,) * 3
