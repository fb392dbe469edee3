"""CAST beside the official code's outputs and key lists, and at other scales beside tables resized by hand."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of
from small_cast_fluxvit import CAST_SMALL as SMALL
from small_cast_fluxvit import randomised
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.models.architectures import config_from_dict, config_to_dict, create_model
from stretchysnake.models.transformers.cast import CAST, NAMED, CASTConfig
from stretchysnake.models.weights.files import save_model
from stretchysnake.models.weights.loading import load_model, load_weights


def config_from(said: dict, state: dict) -> CASTConfig:
    assert said["tubelet_size"] == 2
    verbs = {}
    if said["composition"]:
        nouns, verbs = (len(state[f"head_{kind}.weight"]) for kind in ("noun", "verb"))
        verbs = {"num_verbs": verbs, "num_classes": nouns + verbs}
    return CASTConfig(
        embed_dim=said["embed_dim"],
        depth=said["depth"],
        num_heads=said["num_heads"],
        mlp_ratio=said["mlp_ratio"],
        down_ratio=said["down_ratio"],
        qkv_bias=said["qkv_bias"],
        patch_size=said["patch_size"],
        image_size=said["img_size"],
        num_frames=said["num_frames"],
        composition=said["composition"],
        **{"num_classes": said["num_classes"], **verbs},
    )


@pytest.mark.parametrize("path", fixtures_of("cast"), ids=lambda path: path.stem)
@torch.no_grad()
def test_parity_with_the_official_code(path):
    tensors, metadata = read_fixture(path)
    state = weights_of(tensors)
    config = config_from(metadata["config"], state)
    found = CAST.config_of(state)
    assert all(getattr(found, name) == getattr(config, name) for name in config.shaped)
    for dtype, suffix, limit in ((torch.float32, "", 1e-5), (torch.float64, "_fp64", 1e-10)):
        model = CAST(config).eval()
        assert load_weights(model, state) == []
        model = model.to(dtype)
        for end in ("", "_2", "_3"):
            if f"input{end}" not in tensors:
                continue
            video = tensors[f"input{end}"].to(dtype)
            found = {"features": model.features(video), "logits": model(video)}
            if config.composition:
                nouns, verbs = found["logits"].split(config.outputs, dim=1)
                found = {"logits_noun": nouns, "logits_verb": verbs}
            for name, vector in found.items():
                assert relative(vector, tensors[f"{name}{end}{suffix}"]) <= limit
            paths = dict(zip(("clip", "videomae"), model.both(video), strict=True))
            for name, vector in paths.items():
                assert relative(vector, tensors[f"features_{name}{end}"]) <= 1e-5


@pytest.mark.parametrize(
    ("listing", "name", "parameters"),
    [
        ("cast_b16_16x224_k400", "cast-base", 217.40e6),
        ("cast_b16_16x224_ek100", "cast-base-ek100", 216.81e6),
    ],
)
def test_full_size_files_load_strictly(listing, name, parameters):
    state = {n: torch.empty(shape, device="meta") for n, shape in full_size_keys(listing).items()}
    with torch.device("meta"):
        model = create_model(name, frozen=True)
    assert replace(CAST.config_of(state), frozen=True) == model.config
    fitted, notes = model.fitted(state)
    assert notes == [] and sorted(fitted) == sorted(state)
    model.load_state_dict(fitted, strict=True)
    counts = {p: p.numel() for p in model.parameters()}
    assert sum(counts.values()) == pytest.approx(parameters, rel=1e-4)
    if name == "cast-base":
        trained = sum(number for p, number in counts.items() if p.requires_grad)
        assert trained == pytest.approx(45.4e6, rel=1e-3)


def test_gmacs_are_those_of_the_facts():
    with torch.device("meta"):
        model = create_model("cast-base").eval()
        video = torch.empty(1, 3, 16, 224, 224)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(video)
    assert counter.get_total_flops() / 2e9 == pytest.approx(390.5, rel=1e-3)


def test_published_sizes_and_configs_go_through_json():
    for size in NAMED:
        with torch.device("meta"):
            model = create_model(f"cast-{size}")
        assert isinstance(model, CAST) and model.config.architecture == "cast"
        again = config_from_dict(config_to_dict(model.config))
        assert again == model.config and hash(again) == hash(model.config)
    assert model.config.outputs == (300, 97) and model.config.feature_dim == 1536


@pytest.mark.parametrize("composition", [False, True])
@torch.no_grad()
def test_file_of_ours_gives_the_same_features(composition, tmp_path):
    model = randomised(replace(SMALL, composition=composition, num_verbs=2))
    save_model(tmp_path / "w.safetensors", model)
    again, notes = load_model(tmp_path / "w.safetensors")
    video = torch.randn(1, 3, 4, 12, 12)
    assert notes == [] and again.config == model.config
    assert torch.equal(again(video), model(video))
    assert torch.equal(again.features(video), model.features(video))


@torch.no_grad()
def test_nouns_are_told_from_clip_and_verbs_from_videomae():
    model = randomised(replace(SMALL, composition=True, num_verbs=2))
    video = torch.randn(2, 3, 4, 12, 12)
    clip, videomae = model.both(video)
    assert torch.equal(model.features(video), torch.cat([clip, videomae], 1))
    logits = model(video)
    assert logits.shape == (2, 5) and model.head.out_features == 5
    torch.testing.assert_close(logits[:, :3], model.head_noun(clip))
    torch.testing.assert_close(logits[:, 3:], model.head_verb(videomae))
    assert not [name for name in model.state_dict() if name.startswith(("head.", "noun", "verb"))]


def sine(place: int, channel: int, width: int) -> float:
    angle = place / 10000 ** (2 * (channel // 2) / width)
    return math.cos(angle) if channel % 2 else math.sin(angle)


def resized_by_hand(model: CAST, *, t: int, grid: tuple[int, int], patch: int) -> dict:
    """The state dict, and the fixed table, with stems and tables interpolated here, one by one."""

    def on_grid(rows):
        plane = rows.T.reshape(1, -1, 3, 3)
        plane = F.interpolate(plane, size=grid, mode="bicubic", align_corners=False)
        return plane.reshape(rows.shape[1], -1).T

    def over_time(rows):
        line = rows.T.unsqueeze(0)
        return F.interpolate(line, size=t, mode="linear", align_corners=False)[0].T

    state = dict(model.state_dict())
    for key, tensor in state.items():
        if key == "clip_positional_embedding":
            state[key] = torch.cat([tensor[:1], on_grid(tensor[1:])])
        elif key.endswith("_space_pos"):
            state[key] = on_grid(tensor)
        elif key.endswith("_time_pos"):
            state[key] = over_time(tensor)
        elif key in ("clip_conv1.weight", "patch_embed.proj.weight"):
            planes = tensor.reshape(1, -1, 4, 4)
            planes = F.interpolate(planes, size=(patch, patch), mode="bicubic", align_corners=False)
            state[key] = planes.reshape(*tensor.shape[:-2], patch, patch)
    table = torch.tensor([[sine(p, j, 32) for j in range(32)] for p in range(2 * 9)])
    frames = over_time(table.reshape(2, 9 * 32)).reshape(t, 9, 32)
    return state, torch.cat([on_grid(frame) for frame in frames])


@torch.no_grad()
def test_another_scale_equals_a_model_resized_by_hand():
    model = randomised(SMALL)
    config = replace(SMALL, num_frames=6, image_size=20, patch_size=5)
    state, table = resized_by_hand(model, t=3, grid=(4, 4), patch=5)
    other = CAST(config).eval()
    other.load_state_dict(state)
    other.frame_places.copy_(table)
    video = torch.randn(2, 3, 6, 20, 20)
    torch.testing.assert_close(model(video, patch_size=5), other(video), rtol=1e-4, atol=1e-5)
    # a file's weights are brought to another size by the same mathematics, the fixed table with them
    found = CAST.config_of(
        model.state_dict(), num_heads=4, num_frames=6, image_size=20, patch_size=5
    )
    assert found == replace(config, sine_shape=(2, 3, 3))
    again = CAST(found).eval()
    notes = load_weights(again, model.state_dict())
    torch.testing.assert_close(again(video), other(video), rtol=1e-4, atol=1e-5)
    assert notes == [
        "patch kernels 4 -> 5 px (bicubic)",
        "spatial positions 3x3 -> 4x4 (bicubic)",
        "temporal positions 2 -> 3 (linear)",
    ]


@torch.no_grad()
def test_native_scale_uses_the_stored_tensors_themselves():
    model, used = randomised(SMALL), []

    def watch(original):
        def watched(key, stored, resize, **how):
            used.append((stored, original(key, stored, resize, **how)))
            return used[-1][1]

        return watched

    model.resized = watch(model.resized)
    for block in model.blocks:
        for meeting in (block.t2s_cross, block.s2t_cross):
            meeting._resized = watch(meeting._resized)
    model(torch.randn(1, 3, 4, 12, 12))
    assert len(used) == 4 + 2 * 4 and all(stored is taken for stored, taken in used)
    table = [[sine(p, j, 32) for j in range(32)] for p in range(18)]
    torch.testing.assert_close(model.frame_places, torch.tensor(table))


@torch.no_grad()
def test_any_rectangle_and_even_number_of_frames():
    model = randomised(SMALL)
    video = torch.randn(2, 3, 2, 8, 20)
    features, tokens = model.features(video), model.tokens(video)
    assert features.shape == (2, 32) and features.isfinite().all()
    assert tokens.patches.shape == (2, 1, 2, 5, 32)
    assert torch.equal(tokens.cls, model.both(video)[0])
    uneven = torch.randn(1, 3, 2, 9, 22)
    torch.testing.assert_close(model(uneven, grid="floor"), model(uneven[..., :8, :20]))
    with pytest.raises(ValueError, match=r"height \(9\) must be a multiple of .*nearest: 8, 12"):
        model(uneven)
    with pytest.raises(ValueError, match=r"num_frames \(3\) must be a positive multiple .*2, 4"):
        model(torch.randn(1, 3, 3, 12, 12))


def test_depths_cover_every_stage_and_undecayed_names_exist():
    for composition in (False, True):
        model = CAST(replace(SMALL, composition=composition, num_verbs=2))
        depths = {n: model.depth_of(n) for n, _ in model.named_parameters()}
        assert set(depths.values()) == {0, 1, 2, 3} and len(model.stages()) == 2
        assert depths["clip_conv1.weight"] == depths["patch_embed.proj.bias"] == 0
        assert depths["blocks.1.t2s_cross.clip_time_pos"] == 2 and depths["clip_ln_post.bias"] == 3
        ends = {name.rsplit(".", 1)[-1] for name in depths}
        assert set(model.undecayed()) <= ends
        assert {e for e in ends if e.endswith(("_pos", "embedding"))} == set(model.undecayed())


def test_frozen_trains_what_was_added():
    model = CAST(replace(SMALL, frozen=True))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {"blocks.0.S_Adapter.D_fc1.weight", "head.weight", "vmae_fc_norm.bias"} <= trained
    assert "blocks.0.s2t_cross.clip_space_pos" in trained
    assert (
        not {
            "clip_conv1.weight",
            "patch_embed.proj.weight",
            "blocks.1.attn.qkv.weight",
            "blocks.0.clip_mlp.c_fc.weight",
        }
        & trained
    )
    assert all(p.requires_grad for p in CAST(SMALL).parameters())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"depth": 0}, r"depth \(0\) must be a positive integer"),
        ({"mlp_ratio": 0.01}, r"mlp_width \(0\) must be a positive integer"),
        ({"image_size": 14}, r"image_size \(14\) must be a multiple of .*nearest: 12, 16"),
        ({"num_frames": 5}, r"num_frames \(5\) must be even; nearest: 4, 6"),
        ({"embed_dim": 42, "num_heads": 3}, r"embed_dim \(42\) must be a multiple of 4 \(adapters\)"),
        ({"down_ratio": 3}, r"embed_dim \(32\) must be a multiple of down_ratio · num_heads \(3 · 4\)"),
        ({"composition": True}, r"num_classes \(5\) must be more than num_verbs \(97\)"),
        ({"drop_path": 1.0}, r"drop_path \(1.0\)"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_is_named(changes, text):
    with pytest.raises(ValueError, match=text):
        replace(SMALL, **changes)
