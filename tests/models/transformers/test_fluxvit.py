"""FluxViT beside the official code's outputs and key lists, and at other scales beside tables resized by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import config_from_dict, config_to_dict, create_model
from stretchysnake.models.transformers.fluxvit import NAMED, FluxViT, FluxViTConfig
from stretchysnake.models.transformers.fluxvit_blocks import kept_tokens
from stretchysnake.models.weights.files import save_model
from stretchysnake.models.weights.fluxvit import likely_shape
from stretchysnake.models.weights.loading import load_model, load_weights

SMALL = FluxViTConfig(
    embed_dim=32, depth=2, num_heads=2, pool_heads=4, clip_dim=24, patch_size=4, image_size=16, num_frames=6,
    num_classes=5, token_budget=None,
)  # fmt: skip


def config_from(said: dict, **changes) -> FluxViTConfig:
    assert said["tubelet_size"] == 1
    values = {
        "embed_dim": said["embed_dim"],
        "depth": said["depth"],
        "num_heads": said["num_heads"],
        "mlp_ratio": said["mlp_ratio"],
        "patch_size": said["patch_size"],
        "image_size": said["img_size"],
        "num_frames": said["num_frames"],
        "num_classes": said["num_classes"],
        "clip_dim": said["clip_embed_dim"],
        "pool_heads": said["attn_pool_num_heads"],
        "token_budget": said["token_budget"],
        "output_head": said["output_head"],
    }
    return FluxViTConfig(**{**values, **changes})


def randomised(config: FluxViTConfig, seed: int = 0) -> FluxViT:
    """A model in eval mode in which nothing is zero, nor too small to matter."""
    torch.manual_seed(seed)
    model = FluxViT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def inputs_of(tensors: dict, metadata: dict) -> dict[str, dict]:
    """End of the names ("", "_2", ...) -> what the fixture says of that input."""
    ends = [name.removeprefix("input") for name in tensors if name.startswith("input")]
    return {end: metadata[f"config{end}"] for end in sorted(ends)}


@pytest.mark.parametrize("path", fixtures_of("fluxvit"), ids=lambda path: path.stem)
@torch.no_grad()
def test_parity_with_the_official_code(path):
    tensors, metadata = read_fixture(path)
    state = weights_of(tensors)

    def loaded(**changes):
        model = FluxViT(config_from(said, **changes)).eval()
        assert load_weights(model, state) == []
        return model

    for end, said in inputs_of(tensors, metadata).items():
        video = tensors[f"input{end}"]
        for dtype, suffix, limit in ((torch.float32, "", 1e-5), (torch.float64, "_fp64", 1e-10)):
            model = loaded().to(dtype)
            features, logits = model.features(video.to(dtype)), model(video.to(dtype))
            assert relative(features, tensors[f"features{end}{suffix}"]) <= limit
            assert relative(logits, tensors[f"logits{end}{suffix}"]) <= limit
        variants = {f"_head{i}": {"output_head": i} for i in range(3)}
        variants |= {"_exact_gelu": {"exact_gelu": True}, "_no_selection": {"token_budget": None}}
        for suffix, changes in variants.items():
            for what, run in (("features", FluxViT.features), ("logits", FluxViT.forward)):
                if f"{what}{end}{suffix}" in tensors:
                    found = run(loaded(**changes), video)
                    assert relative(found, tensors[f"{what}{end}{suffix}"]) <= 1e-5, suffix
        if f"kept_tokens{end}" in tensors and said["token_budget"] is not None:
            model, patch = loaded(), said["patch_size"]
            grid = (said["H"] // patch, said["W"] // patch)
            x = model.patch_embed(video, patch, grid, model._resized).flatten(2, 3)
            kept = torch.zeros_like(tensors[f"kept_tokens{end}"])
            kept.scatter_(1, kept_tokens(x, said["token_budget"]), True)
            assert torch.equal(kept, tensors[f"kept_tokens{end}"])


@pytest.mark.parametrize(
    ("listing", "size", "parameters", "table"),
    [
        ("fluxvit_s14_k400", "small", 28.85e6, 2.99e6),
        ("fluxvit_b14_k400", "base", 104.56e6, 9.83e6),
    ],
)
def test_full_size_files_load_strictly(listing, size, parameters, table):
    state = {n: torch.empty(shape, device="meta") for n, shape in full_size_keys(listing).items()}
    with torch.device("meta"):
        model = create_model(f"fluxvit-{size}")
    assert FluxViT.config_of(state) == model.config
    fitted, notes = model.fitted(state)
    assert notes == [] and sorted(fitted) == sorted(state)
    model.load_state_dict(fitted, strict=True)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=2e-4)
    assert model.pos_embed.numel() == pytest.approx(table, rel=2e-3)


GMACS = {"small": (153.9, 83.3, 32.0, 13.6, 0.058), "base": (440.1, 254.8, 108.1, 49.3, 0.116)}


@pytest.mark.parametrize("size", GMACS)
def test_gmacs_are_those_of_the_facts(size):
    def counted(model, frames):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, frames, 224, 224, device="meta"))
        return counter.get_total_flops() / 2e9

    *of_tokens, embedding = GMACS[size]
    with torch.device("meta"):
        whole = create_model(f"fluxvit-{size}", token_budget=None).eval()
        choosing = create_model(f"fluxvit-{size}", token_budget=512, depth=1).eval()
    for frames, wanted in zip((12, 8, 4, 2), of_tokens, strict=True):
        assert counted(whole, frames) == pytest.approx(wanted, abs=0.05)  # the last digit said
    left_out = counted(choosing, 8) - counted(choosing, 2)  # 1536 tokens cost their embedding alone
    assert left_out == pytest.approx(6 * embedding, rel=1e-2)


def test_published_sizes_and_configs_go_through_json():
    for size in NAMED:
        with torch.device("meta"):
            config = create_model(f"fluxvit-{size}").config
        assert config_from_dict(config_to_dict(config)) == config
        assert config.architecture == "fluxvit" and config.native == Scale(*{
            "small": (24, 252, 14), "base": (32, 280, 14),
        }[size])  # fmt: skip


@torch.no_grad()
def test_file_of_ours_gives_the_same_features(tmp_path):
    model = randomised(replace(SMALL, num_frames=3, token_budget=20, output_head=2))
    save_model(tmp_path / "w.safetensors", model)
    again, notes = load_model(tmp_path / "w.safetensors")
    video = torch.randn(1, 3, 6, 12, 12)
    assert notes == [] and again.config == model.config
    assert torch.equal(again(video), model(video))


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


def resized_by_hand(state: dict, *, t: int, grid: tuple[int, int], patch: int) -> dict:
    state = dict(state)
    table = state["pos_embed"][0]
    line = table[1:].reshape(6, -1).T.unsqueeze(0)
    line = F.interpolate(line, size=t, mode="linear", align_corners=False)[0].T
    planes = line.reshape(t, 4, 4, 32).permute(0, 3, 1, 2)
    planes = F.interpolate(planes, size=grid, mode="bicubic", align_corners=False)
    rows = planes.permute(0, 2, 3, 1).reshape(-1, 32)
    state["pos_embed"] = torch.cat([table[:1], rows])[None]
    size = {"size": (patch, patch), "mode": "bicubic", "align_corners": False}
    kernel = F.interpolate(state["patch_embed.proj.weight"].reshape(1, -1, 4, 4), **size)
    state["patch_embed.proj.weight"] = kernel.reshape(32, 3, 1, patch, patch)
    pixels = state["patch_embed.norm_before.weight"].reshape(4, 4, 3).permute(2, 0, 1)
    pixels = F.interpolate(pixels[None], **size)[0].permute(1, 2, 0)
    state["patch_embed.norm_before.weight"] = pixels.reshape(-1)
    return state


@torch.no_grad()
def test_another_scale_equals_a_model_resized_by_hand():
    model = randomised(SMALL)
    config = replace(SMALL, num_frames=8, image_size=30, patch_size=5)
    other = FluxViT(config).eval()
    other.load_state_dict(resized_by_hand(model.state_dict(), t=8, grid=(6, 6), patch=5))
    video = torch.randn(2, 3, 8, 30, 30)
    torch.testing.assert_close(model(video, patch_size=5), other(video), rtol=1e-4, atol=1e-5)
    again = FluxViT(replace(SMALL, image_size=30, patch_size=5)).eval()
    notes = load_weights(again, model.state_dict())
    assert notes == [
        "positions 6x4x4 -> 6x6x6 (linear over time, bicubic over space)",
        "patch kernel and weights of its pixels 4 -> 5 px (bicubic)",
    ]
    by_hand = resized_by_hand(model.state_dict(), t=6, grid=(6, 6), patch=5)
    for name in ("pos_embed", "patch_embed.proj.weight", "patch_embed.norm_before.weight"):
        torch.testing.assert_close(again.state_dict()[name], by_hand[name])


@torch.no_grad()
def test_native_scale_uses_the_stored_tensors_themselves():
    model, used = randomised(SMALL), []
    original = model._resized

    def watched(key, stored, resize, **how):
        used.append((stored, original(key, stored, resize, **how)))
        return used[-1][1]

    model._resized = watched
    model(torch.randn(1, 3, 6, 16, 16))
    assert len(used) == 3 and all(stored is taken for stored, taken in used)


@torch.no_grad()
def test_any_rectangle_and_number_of_frames():
    model = randomised(SMALL)
    for frames in (1, 3):
        video = torch.randn(2, 3, frames, 8, 20)
        features, tokens = model.features(video), model.tokens(video)
        assert features.shape == (2, 24) and features.isfinite().all()
        assert tokens.cls.shape == (2, 32) and tokens.patches.shape == (2, frames, 2, 5, 32)
    # upstream gives 2 x 8 cells the positions of 4 x 4; here a column more is a column more
    tall, wide = torch.randn(1, 3, 2, 8, 32), torch.randn(1, 3, 2, 32, 8)
    assert not torch.allclose(model(tall), model(tall.transpose(3, 4)))
    assert model(wide).isfinite().all()
    uneven = torch.randn(1, 3, 2, 9, 22)
    torch.testing.assert_close(model(uneven, grid="floor"), model(uneven[..., :8, :20]))
    with pytest.raises(ValueError, match=r"height \(9\) must be a multiple of .*nearest: 8, 12"):
        model(uneven)


def kept_by_hand(x: np.ndarray, budget: int) -> np.ndarray:
    """Which tokens of x (T, N, C) are kept, as the facts say it, token by token."""
    frames, places, _ = x.shape
    groups = 4 if frames % 4 == 0 else 1 if frames == 2 else 2
    n = frames // groups
    keep = int((1 - (1 - budget / (frames * places))) * (n * places))
    kept = np.zeros((frames, places), dtype=bool)
    for group in range(groups):
        weighed = []
        for j in range(n):
            for place in range(places):
                later = group * n + max(j, 1)
                distance = np.sqrt(((x[later, place] - x[later - 1, place]) ** 2).sum())
                weighed.append((-distance, j, place))
        for _, j, place in sorted(weighed)[:keep]:
            kept[group * n + j, place] = True
    return np.flatnonzero(kept)


@pytest.mark.parametrize(
    ("frames", "places", "budget"), [(2, 9, 7), (6, 4, 10), (8, 9, 20), (10, 5, 17), (12, 4, 13), (16, 6, 41)]
)  # fmt: skip
def test_kept_tokens_are_those_of_the_facts(frames, places, budget):
    """Half the budgets cut between the two equal weights of a group's first frames: the earlier is kept."""
    generator = torch.Generator().manual_seed(frames)
    tokens = torch.randn(3, frames, places, 4, generator=generator, dtype=torch.float64)
    found = kept_tokens(tokens, budget)
    for row, x in zip(found, tokens, strict=True):
        np.testing.assert_array_equal(row.numpy(), kept_by_hand(x.numpy(), budget))
    assert torch.equal(kept_tokens(tokens.flip(0), budget).flip(0), found)


def test_equal_weights_are_kept_in_order():
    still = torch.zeros(1, 8, 3, 4)  # nothing moves: all weights are equal
    assert kept_tokens(still, 12).tolist() == [[0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20]]


@pytest.mark.parametrize(
    ("frames", "grid", "budget", "kept"),
    [
        (24, 16, 1024, 1020), (24, 16, 2048, 2044), (12, 16, 1024, 1020), (20, 16, 1024, 1020), (16, 14, 2048, 2044),
        (32, 20, 1024, 1020), (8, 16, 1024, 1024),
    ],
)  # fmt: skip
def test_official_rounding_of_budgets(frames, grid, budget, kept):
    assert kept_tokens(torch.zeros(1, frames, grid**2, 1), budget).shape == (1, kept)


@torch.no_grad()
def test_budget_says_what_it_cannot_do():
    model = randomised(replace(SMALL, token_budget=20))
    for frames, near in ((3, "2, 6"), (4, "2, 6"), (5, "2, 6"), (7, "6, 8")):
        text = (
            rf"num_frames \({frames}\) must be even and not 4 where token_budget \(20\) leaves out some of "
            rf"{frames * 16} tokens; nearest: {near}; token_budget=None keeps all"
        )
        with pytest.raises(ValueError, match=text):
            model(torch.randn(1, 3, frames, 16, 16))
    assert model(torch.randn(1, 3, 5, 8, 8)).isfinite().all()  # exactly 20 tokens
    with pytest.raises(ValueError, match=r"token_budget \(20\) leaves 20 of 32 tokens, .*no grid"):
        model.tokens(torch.randn(1, 3, 2, 16, 16))
    with pytest.raises(
        ValueError, match=r"token_budget \(3\) must leave each of 4 groups .* use 8"
    ):
        kept_tokens(torch.zeros(1, 8, 16, 2), 3)


@torch.no_grad()
def test_what_is_not_kept_does_not_matter():
    """One place moves: its tokens are all that the budget keeps, so the rest may be anything that stands still."""
    model = randomised(replace(SMALL, token_budget=8))
    still = torch.randn(1, 3, 1, 16, 16).expand(-1, -1, 8, -1, -1).clone()
    still[..., 4:8, 8:12] = torch.randn(1, 3, 8, 4, 4)
    other = torch.randn(1, 3, 1, 16, 16).expand(-1, -1, 8, -1, -1).clone()
    other[..., 4:8, 8:12] = still[..., 4:8, 8:12]
    torch.testing.assert_close(model(still), model(other))
    whole = randomised(SMALL)
    assert not torch.allclose(whole(still), whole(other))


def test_gradients_reach_what_is_used_at_another_scale():
    for budget in (None, 24):
        model = randomised(replace(SMALL, token_budget=budget, output_head=2)).train()
        model(torch.randn(2, 3, 8, 10, 15), patch_size=5).square().sum().backward()
        without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        idle = {n for n, p in model.named_parameters() if not p.requires_grad}
        assert without - idle <= {"clip_projector.2.cross_attn.k_bias"}  # moves every weight alike
        firsts = ("clip_projector.0.", "clip_projector.1.", "head.0.", "head.1.", "final_clip")
        assert idle == {n for n, _ in model.named_parameters() if n.startswith(firsts)}


def test_training_the_head_alone_trains_what_logits_read():
    model = FluxViT(SMALL)
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"head.1.weight", "head.1.bias", "fc_norm.weight", "fc_norm.bias"}
    assert model.head.out_features == 5


def test_draws_decide_what_each_clip_leaves_out():
    model = randomised(replace(SMALL, drop_path=0.6, token_budget=30)).double().train()
    video = torch.randn(4, 3, 6, 16, 16, dtype=torch.float64)
    count = model.num_drop_draws(Scale(6, 16, 4))
    assert count == 4
    draws = torch.rand(4, count, generator=torch.Generator().manual_seed(1))
    whole = model(video, drop_draws=draws)
    parts = [model(video[i : i + 2], drop_draws=draws[i : i + 2]) for i in (0, 2)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-10, atol=1e-10)
    ones = torch.ones(4, count)
    kept = model(video, drop_draws=ones)
    for column in range(count):
        one = ones.clone()
        one[1, column] = 0.0
        changed = model(video, drop_draws=one)
        assert torch.equal(changed[0], kept[0])
        assert torch.equal(changed[1], kept[1]) == (column < 2), column  # the first rate is 0
    none = ones.clone()
    none[:, 2:] = 0.0
    shorter = FluxViT(replace(model.config, depth=1)).double().eval()
    state = {n: t for n, t in model.state_dict().items() if not n.startswith("blocks.1.")}
    shorter.load_state_dict(state)
    torch.testing.assert_close(model(video, drop_draws=none), shorter(video))


def test_eval_mode_drops_nothing_and_torch_draws_where_none_are_given():
    model = randomised(replace(SMALL, drop_path=0.5))
    plain = FluxViT(SMALL).eval()
    plain.load_state_dict(model.state_dict())
    video = torch.randn(2, 3, 6, 16, 16)
    assert torch.equal(model(video), plain(video))
    model.train()
    drawn = []
    for seed in (0, 1, 2, 3, 0):
        torch.manual_seed(seed)
        drawn.append(model(video))
    assert torch.equal(drawn[0], drawn[4])
    assert not all(torch.equal(drawn[0], other) for other in drawn[1:4])


def test_recomputing_gives_the_same_gradients():
    model = randomised(replace(SMALL, drop_path=0.3, token_budget=30)).double().train()
    video = torch.randn(2, 3, 6, 16, 16, dtype=torch.float64)
    draws, grads = torch.rand(2, 4), []
    for model.checkpoint_activations in (False, True):
        model.zero_grad()
        model(video, drop_draws=draws).square().sum().backward()
        grads.append([p.grad for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-10, atol=1e-12)


def test_depths_cover_every_stage_and_undecayed_names_exist():
    model = FluxViT(SMALL)
    depths = {n: model.depth_of(n) for n, _ in model.named_parameters()}
    assert set(depths.values()) == {0, 1, 2, 3} and len(model.stages()) == 2
    assert {n.split(".")[0] for n, depth in depths.items() if depth == 0} == {
        "cls_token", "pos_embed", "gpe_proj", "patch_embed",
    }  # fmt: skip
    assert depths["blocks.1.ls2.gamma"] == 2 and depths["clip_projector.1.norm1_q.bias"] == 3
    assert set(model.undecayed()) <= {name.rsplit(".", 1)[-1] for name in depths}


@torch.no_grad()
def test_fresh_values():
    model = FluxViT(SMALL)
    for block in model.blocks:
        for scale in (block.ls1, block.ls2):
            torch.testing.assert_close(scale.gamma, torch.full((32,), 1e-5))


@torch.no_grad()
def test_half_precision_runs_near_the_whole():
    model = randomised(SMALL)
    video = torch.randn(2, 3, 6, 10, 15)
    wanted = model(video, patch_size=5)
    with torch.autocast("cpu", torch.bfloat16):
        near = model(video, patch_size=5)
    assert (near.float() - wanted).norm() / wanted.norm() < 0.05
    low = FluxViT(replace(SMALL, token_budget=20)).eval()
    low.load_state_dict(model.state_dict())
    wanted = low(video, patch_size=5)
    found = low.to(torch.bfloat16)(video, patch_size=5)
    assert found.dtype == torch.bfloat16 and (found.float() - wanted).norm() / wanted.norm() < 0.1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"depth": 0}, r"depth \(0\) must be a positive integer"),
        ({"mlp_ratio": 0.01}, r"mlp_width \(0\) must be a positive integer"),
        ({"token_budget": 0}, r"token_budget \(0\) must be a positive integer"),
        ({"image_size": 18}, r"image_size \(18\) must be a multiple of .*nearest: 16, 20"),
        ({"num_heads": 3}, r"embed_dim \(32\) must be a multiple of num_heads \(3\)"),
        ({"pool_heads": 5}, r"embed_dim \(32\) must be a multiple of pool_heads \(5\)"),
        ({"output_head": 3}, r"output_head \(3\) must be 0, 1 or 2"),
        ({"drop_path": 1.0}, r"drop_path \(1.0\)"),
    ],
)
def test_a_config_that_cannot_be_is_named(changes, text):
    with pytest.raises(ValueError, match=text):
        replace(SMALL, **changes)
