"""FluxViT beside the official code's outputs and key lists, and at other scales beside tables resized by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of
from small_cast_fluxvit import FLUXVIT_SMALL as SMALL
from small_cast_fluxvit import randomised
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import config_from_dict, config_to_dict, create_model
from stretchysnake.models.transformers.fluxvit import NAMED, FluxViT, FluxViTConfig
from stretchysnake.models.transformers.layers.fluxvit_blocks import kept_tokens
from stretchysnake.models.weights.files import save_model
from stretchysnake.models.weights.loading import load_model, load_weights


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
