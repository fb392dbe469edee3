"""UniFormer beside the same written out by hand: its files, every scale, batch norms, drop path."""

import dataclasses
import itertools
import json
import math

import pytest
import torch
import torch.nn.functional as F

from stretchysnake.flexibility import NANO, VARIANTS, Scale, Variant, eval_scale
from stretchysnake.models.architectures import config_from_dict, config_to_dict, create_model
from stretchysnake.models.transformers.uniformer import UniFormer, UniFormerConfig
from stretchysnake.models.weights.files import save_model
from stretchysnake.models.weights.loading import load_model


@pytest.fixture
def model():
    """A small one in fp64 whose norms are no identity: 32 px, patches of 4, 4 frames."""
    return used(config())


def config(**changes) -> UniFormerConfig:
    values = {
        "embed_dims": (4, 6, 8, 16), "depths": (1, 1, 2, 1), "head_dim": 4, "image_size": 32, "num_frames": 4,
        "num_classes": 3, "drop_path": 0.4,
    }  # fmt: skip
    return UniFormerConfig(**{**values, **changes})


def used(config: UniFormerConfig) -> UniFormer:
    """A model in eval mode and fp64; scales, shifts and statistics of the norms are drawn."""
    torch.manual_seed(0)
    model = UniFormer(config).double().eval()
    with torch.no_grad():
        for stored in model.state_dict().values():
            if stored.dim() == 1:
                stored += 0.3 * torch.rand_like(stored)
            elif stored.dim() == 2:
                stored.mul_(10)  # else attention is all but even
    return model


def clip(*size: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).double()


def normed(x, norm):
    """A batch norm with its stored statistics, written out over (..., C)."""
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    return (x - norm.running_mean) * scale + norm.bias


def layer_normed(x, norm, eps):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * norm.weight + norm.bias


def patches_by_hand(x, weight, bias, stride):
    """A convolution without overlap in space as a product, (B, t, h, w, C) in and out."""
    t, p = weight.shape[2], weight.shape[-1]
    if t == 3:
        x = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1))
    x = x.unfold(1, t, stride).unfold(2, p, p).unfold(3, p, p)  # (B, t', h', w', C, t, p, p)
    return torch.einsum("bthwcijk,ocijk->bthwo", x, weight) + bias


def near_places(x, conv):
    """A depth-wise convolution with zeros around, as a sum of shifted clips; (B, t, h, w, C)."""
    k = conv.weight.shape[-1]
    around = F.pad(x, (0, 0, *[k // 2] * 6))
    t, h, w = x.shape[1:4]
    total = conv.bias
    for i, j, m in itertools.product(range(k), repeat=3):
        total = total + around[:, i : i + t, j : j + h, m : m + w] * conv.weight[:, 0, i, j, m]
    return total


def product(x, layer):
    """A Linear, or a convolution of one place."""
    return x @ layer.weight.flatten(1).T + layer.bias


def attention_by_hand(x, attention, heads):
    width = x.shape[-1]
    qkv = x @ attention.qkv.weight.T + attention.qkv.bias
    q, k, v = (part.unflatten(-1, (heads, -1)) for part in qkv.split(width, dim=-1))
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / math.sqrt(width // heads)
    mixed = torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v).flatten(2)
    return mixed @ attention.proj.weight.T + attention.proj.bias


def features_by_hand(model, video, kernel, kept=None):
    """The forward pass with channels last, convolutions as sums; kept (B, blocks, 2) multiplies the branches."""
    x = patches_by_hand(video.movedim(1, -1), kernel, model.patch_embed1.proj.bias, 2)
    x, number = layer_normed(x, model.patch_embed1.norm, 1e-5), 0
    for stage in range(1, 5):
        if stage > 1:
            embedding = model.get_submodule(f"patch_embed{stage}")
            x = patches_by_hand(x, embedding.proj.weight, embedding.proj.bias, 1)
            x = layer_normed(x, embedding.norm, 1e-5)
        for block in model.get_submodule(f"blocks{stage}"):
            scale = torch.ones(len(video), 2) if kept is None else kept[:, number]
            mixing, mlp = scale.double().view(-1, 2, 1, 1, 1, 1).unbind(1)
            x = x + near_places(x, block.pos_embed)
            if stage < 3:
                branch = near_places(product(normed(x, block.norm1), block.conv1), block.attn)
                x = x + product(branch, block.conv2) * mixing
                hidden = normed(x, block.norm2)
            else:
                tokens = layer_normed(x, block.norm1, 1e-6).flatten(1, 3)
                heads = x.shape[-1] // model.config.head_dim
                branch = attention_by_hand(tokens, block.attn, heads).view(x.shape)
                x = x + branch * mixing
                hidden = layer_normed(x, block.norm2, 1e-6)
            hidden = product(hidden, block.mlp.fc1)
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
            x = x + product(hidden, block.mlp.fc2) * mlp
            number += 1
    return normed(x, model.norm).mean((1, 2, 3))


# Its files


def test_config_of_finds_what_shapes_say_and_names_what_is_missing(model):
    state = model.state_dict()
    said = {"head_dim": 4, "image_size": 32, "num_frames": 4, "drop_path": 0.4}
    assert UniFormer.config_of(state, **said) == model.config
    other = used(config(mlp_ratio=2.7, qkv_bias=False, num_classes=0, embed_strides=(2, 1, 1)))
    found = UniFormer.config_of(other.state_dict(), head_dim=4)
    assert found.mlp_widths == (10, 16, 21, 43) and found.embed_strides == (2, 1, 1)
    assert not found.qkv_bias and found.num_classes == 0 and found.head_dim == 4
    del state["patch_embed3.proj.weight"]
    with pytest.raises(
        ValueError, match=r"not UniFormer weights: patch_embed3.proj.weight missing"
    ):
        UniFormer.config_of(state)


def test_a_file_of_ours_gives_the_same_features_bit_for_bit(model, tmp_path):
    model = model.float()
    model.norm.num_batches_tracked.fill_(7)
    save_model(tmp_path / "own.safetensors", model)
    loaded, notes = load_model(tmp_path / "own.safetensors")
    video = clip(1, 3, 4, 32, 32).float()
    assert notes == [] and loaded.config == model.config and isinstance(loaded, UniFormer)
    assert loaded.norm.num_batches_tracked == 7
    with torch.no_grad():
        assert torch.equal(loaded.features(video), model.features(video))
        assert torch.equal(loaded(video), model(video))


def test_a_config_survives_json():
    for changes in ({}, {"embed_strides": (1, 2, 1), "qkv_bias": False, "mlp_ratio": 2.5}):
        before = config(**changes)
        assert config_from_dict(json.loads(json.dumps(config_to_dict(before)))) == before


def test_fitted_resizes_the_stem_and_spreads_image_kernels_over_time(model):
    bigger, stem = used(config(patch_size=7, image_size=56)), "patch_embed1.proj.weight"
    state, notes = bigger.fitted(model.state_dict())
    assert notes == ["patch kernel 4x4 -> 7x7 (bicubic)"]
    assert torch.equal(state[stem], stem_by_hand(model, 7))
    still = {n: x.sum(2) if x.dim() == 5 else x for n, x in model.state_dict().items()}
    state, notes = model.fitted(still)
    count = sum(x.dim() == 5 for x in model.state_dict().values())
    assert notes == [f"{count} kernels inflated from an image model (mean)"]
    for name, times in ((stem, 3), ("blocks1.0.attn.weight", 5), ("blocks2.0.mlp.fc1.weight", 1)):
        wanted = model.state_dict()[name].sum(2, keepdim=True).expand_as(state[name]) / times
        assert torch.allclose(state[name], wanted, rtol=0, atol=1e-15)


# Every scale


def stem_by_hand(model, patch):
    kernel = model.patch_embed1.proj.weight
    planes = F.interpolate(
        kernel.flatten(1, 2), size=(patch, patch), mode="bicubic", align_corners=False
    )
    return planes.unflatten(1, (3, 3))


@pytest.mark.parametrize(
    ("frames", "height", "width", "patch"),
    [(4, 32, 32, 4), (5, 24, 33, 3), (1, 56, 56, 7), (7, 20, 26, 2), (2, 32, 40, 4)],
)
def test_every_scale_is_the_stem_resized_by_hand(model, frames, height, width, patch):
    video = clip(2, 3, frames, height, width)
    with torch.no_grad():
        wanted = features_by_hand(model, video, stem_by_hand(model, patch))
        found = model.features(video, patch)
        assert torch.allclose(found, wanted, rtol=0, atol=1e-11)
        assert torch.equal(model(video, patch), model.head(found))
        tokens = model.tokens(video, patch)
    shape = ((frames + 1) // 2, height // patch // 8, width // patch // 8, 16)
    assert tokens.cls is None and tokens.patches.shape == (2, *shape)
    assert torch.allclose(tokens.patches.mean((1, 2, 3)), found, rtol=0, atol=1e-12)


def test_native_scale_uses_the_very_stored_stem(model, monkeypatch):
    used_weights = []
    forward = model.patch_embed1.forward
    monkeypatch.setattr(
        model.patch_embed1, "forward", lambda x, w: used_weights.append(w) or forward(x, w)
    )
    with torch.no_grad():
        model.features(clip(1, 3, 4, 32, 32))
        model.features(clip(1, 3, 4, 16, 16), 2)
    assert used_weights[0] is model.patch_embed1.proj.weight
    assert used_weights[1].shape == (4, 3, 3, 2, 2)


def test_floor_leaves_the_rest_unused_and_exact_names_the_nearest_sizes(model):
    video = clip(1, 3, 4, 35, 33)
    with torch.no_grad():
        wanted = model.features(video[..., :32, :32])
        assert torch.equal(model.features(video, grid="floor"), wanted)
    with pytest.raises(ValueError, match=r"height \(35\).*patch_size \(4\); nearest: 32, 36"):
        model.features(video)
    with pytest.raises(
        ValueError, match=r"size \(32x28\) must be at least 32 px a side, 8 patches of 4"
    ):
        model.features(video[..., :32, :28])
    with pytest.raises(ValueError, match=r"size \(31x33\) must be at least 32 px"):
        model.features(video[..., :31, :], grid="floor")


def test_no_pixel_of_a_grid_that_is_halved_to_a_half_goes_unseen(model):
    """36 px are 9 patches, of which the second embedding leaves one out: the convolutions before it saw it."""
    video = clip(1, 3, 4, 36, 36)
    moved = video.clone()
    moved[..., 32:, 32:] += 1.0
    with torch.no_grad():
        assert (model.features(video) - model.features(moved)).abs().max() > 1e-4


def test_gradients_reach_everything_at_another_scale(model):
    model.train()
    kept = torch.full((2, 10), 0.99)
    model(clip(2, 3, 5, 48, 32), 2, drop_draws=kept).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_nano_is_as_large_as_nano_videomamba_and_takes_its_scales():
    model = create_model("uniformer-nano", num_classes=0).eval()
    mamba = create_model("videomamba-nano", num_classes=0)
    count, wanted = (sum(p.numel() for p in one.parameters()) for one in (model, mamba))
    native = model.config.native
    assert (native.num_frames, native.size) == (8, 32) and abs(count / wanted - 1) < 0.2
    sets = dataclasses.replace(NANO, native=native)
    static = Variant(name="static_tokens", draw=VARIANTS["static_tokens"].draw, sets=sets)
    with torch.no_grad():
        for frames in NANO.frames:
            for size in NANO.sizes:
                scale = eval_scale(static, num_frames=frames, size=size)
                assert scale.patch_size == round(size / 8) and scale.size == size
                video = torch.zeros(1, 3, frames, size, size)
                assert model.features(video, scale.patch_size).shape == (1, 64)
                assert model.features(video).shape == (
                    1,
                    64,
                )  # vanilla is tested with its own patch


def test_half_precision_is_near(model):
    video = clip(2, 3, 4, 32, 32).float()
    model = model.float()
    with torch.no_grad():
        wanted = model.features(video)
        with torch.autocast("cpu", torch.bfloat16):
            assert (model.features(video).float() - wanted).abs().max() < 0.2
        found = model.bfloat16().features(video)
    assert found.dtype == torch.bfloat16 and (found.float() - wanted).abs().max() < 0.2


# Training


def still_norms(model):
    """Training mode with the stored statistics, so that a clip does not depend on its batch."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.eval()
    return model


def test_draws_decide_which_clip_goes_without_which_branch(model):
    still_norms(model)
    video, draws = (
        clip(3, 3, 4, 32, 32),
        torch.rand(3, 10, generator=torch.Generator().manual_seed(2)),
    )
    draws[0] = 0.99
    rates = torch.tensor([0.4 * i / 4 for i in range(5)], dtype=torch.float64)
    kept = (draws.view(3, 5, 2) >= rates[:, None]) / (1 - rates[:, None])
    assert (kept[1:] == 0).any() and (kept[0] > 0).all()
    with torch.no_grad():
        wanted = features_by_hand(model, video, model.patch_embed1.proj.weight, kept)
        whole = model.features(video, drop_draws=draws)
        parts = [model.features(video[i : i + 1], drop_draws=draws[i : i + 1]) for i in range(3)]
    assert torch.allclose(whole, wanted, rtol=0, atol=1e-11)
    assert torch.allclose(torch.cat(parts), whole, rtol=0, atol=1e-12)
    assert model.num_drop_draws(Scale(5, 24, 8)) == 10
    with pytest.raises(ValueError, match=r"drop_draws \(shape \(3, 9\)\) must be \(3, 10\)"):
        model.features(video, drop_draws=draws[:, 1:])


def test_torch_draws_in_training_and_nothing_is_dropped_in_eval(model):
    video = clip(2, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.features(video), used(config(drop_path=0.0)).features(video))
        still_norms(model)
        torch.manual_seed(3)
        first, second = model.features(video), model.features(video)
        torch.manual_seed(3)
        assert torch.equal(model.features(video), first) and not torch.equal(first, second)


def test_training_uses_and_keeps_the_statistics_of_the_batch(model):
    video = clip(2, 3, 4, 32, 32)
    before = model.norm.running_mean.clone()
    seen = []
    model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    model.train()
    features = model.features(video)
    x = seen[0].movedim(1, -1).flatten(0, -2)
    wanted = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt() * model.norm.weight
    wanted = (wanted + model.norm.bias).view(2, -1, 16).mean(1)
    assert torch.allclose(features, wanted, rtol=0, atol=1e-11)
    assert torch.allclose(
        model.norm.running_mean, 0.9 * before + 0.1 * x.mean(0), rtol=0, atol=1e-12
    )
    assert model.norm.num_batches_tracked == 1


def test_recomputed_activations_give_the_same_gradients_and_statistics():
    video, draws, found = clip(2, 3, 4, 32, 32), torch.rand(2, 10), []
    for again in (False, True):
        model = used(config()).train()
        model.checkpoint_activations = again
        loss = model(video, drop_draws=draws).square().sum()
        loss.backward(retain_graph=True)
        model.zero_grad()
        loss.backward()  # computed again a second time
        gradients = [parameter.grad for parameter in model.parameters()]
        found.append((gradients, {n: x.clone() for n, x in model.named_buffers()}))
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])
    assert found[1][1]["blocks1.0.norm1.num_batches_tracked"] == 1


def test_depth_grows_from_the_stem_to_the_head(model):
    depths = {name: model.depth_of(name) for name, _ in model.named_parameters()}
    assert {name for name, depth in depths.items() if depth == 0} == {
        f"patch_embed1.{end}" for end in ("proj.weight", "proj.bias", "norm.weight", "norm.bias")
    }
    # a later embedding is as deep as the block that it feeds
    assert {name[:12]: depth for name, depth in depths.items() if name.startswith("patch_embed")} == {
        "patch_embed1": 0, "patch_embed2": 2, "patch_embed3": 3, "patch_embed4": 5,
    }  # fmt: skip
    assert depths["blocks3.1.mlp.fc1.weight"] == 4
    assert depths["norm.weight"] == depths["head.bias"] == 6 == len(model.stages()) + 1
    assert list(model.undecayed()) == []


def test_a_fresh_model_is_drawn_as_the_facts_say():
    torch.manual_seed(0)
    model = create_model("uniformer-nano", num_classes=40)
    block = model.blocks3[0]
    assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not block.attn.qkv.bias.any() and not model.head.bias.any()
    assert model.patch_embed1.proj.bias.any() and (model.norm.weight == 1).all()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"embed_dims": (4, 6, 8)}, r"embed_dims \(\(4, 6, 8\)\) must be 4 positive integers"),
        ({"embed_strides": (2, 2, 0)}, r"embed_strides \(\(2, 2, 0\)\) must be 3 positive integers"),
        ({"head_dim": 10}, r"embed_dims \(8\).*head_dim \(10\)"),
        ({"embed_dims": (4, 6, 11, 16)}, r"embed_dims \(11\) must be a multiple of 11 // head_dim \(4\), its heads"),
        ({"image_size": 34}, r"image_size \(34\) must be a multiple of patch_size \(4\), and at least 32"),
        ({"image_size": 28}, r"image_size \(28\).*at least 32"),
        ({"mlp_ratio": 0.1}, r"mlp_ratio \(0.1\)"),
        ({"patch_resize": "linear"}, r"patch_resize \('linear'\) must be one of: bicubic, area, pi"),
        ({"drop_path": 1.0}, r"drop_path \(1.0\)"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_is_named(changes, text):
    with pytest.raises(ValueError, match=text):
        config(**changes)
