"""The stem of MViT and Hiera, with its kernel and tables resized by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from stretchysnake.models.transformers.hiera import Hiera, HieraConfig
from stretchysnake.models.transformers.layers.separable_stem import embed
from stretchysnake.models.transformers.mvit import MViT, MViTConfig


def model(**changes):
    values = {"embed_dim": 8, "depth": 2, "pool_blocks": (1,), "image_size": 32, "num_frames": 8}
    return MViT(MViTConfig(**{**values, **changes})).double().eval()


def by_hand(model, video, patch, grid):
    """Each of kernel and tables interpolated here; positions added token by token."""
    kernel, bias = model.patch_embed.proj.weight, model.patch_embed.proj.bias
    width, _, frames, side, _ = kernel.shape
    if patch != (side + 1) // 2:
        kernel = F.interpolate(
            kernel.reshape(-1, 1, side, side), size=(2 * patch - 1,) * 2, mode="bicubic"
        )
        kernel = kernel.reshape(width, 3, frames, 2 * patch - 1, 2 * patch - 1)
    x = F.conv3d(F.pad(video, [patch - 1] * 4 + [1, 1]), kernel, bias, stride=(2, patch, patch))
    t, h, w = grid
    table = model.pos_embed_spatial.reshape(1, 8, 8, width).permute(0, 3, 1, 2)
    table = F.interpolate(table, size=(h, w), mode="bicubic")
    times = F.interpolate(model.pos_embed_temporal.transpose(1, 2), size=t, mode="linear")
    for i in range(t):
        for y in range(h):
            for j in range(w):
                x[:, :, i, y, j] += table[0, :, y, j] + times[0, :, i]
    return x.permute(0, 2, 3, 4, 1)


@pytest.mark.parametrize(
    ("size", "patch", "grid"),
    [
        ((8, 32, 32), 4, (4, 8, 8)),
        ((6, 32, 32), 4, (3, 8, 8)),
        ((8, 24, 40), 4, (4, 6, 10)),
        ((8, 24, 24), 3, (4, 8, 8)),
        ((3, 30, 21), 5, (2, 6, 5)),
        ((1, 8, 9), 1, (1, 8, 9)),
    ],
)
def test_tokens_are_those_of_weights_resized_by_hand(size, patch, grid):
    own, video = model(), torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        found = embed(own, video, patch)
        wanted = by_hand(own, video, patch, grid)
    assert found.shape == (2, *grid, 8)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_kernel_centres_lie_on_the_first_pixel_of_their_patch():
    own = model()
    with torch.no_grad():
        for parameter in (own.pos_embed_spatial, own.pos_embed_temporal, own.patch_embed.proj.bias):
            parameter.zero_()
        kernel = own.patch_embed.proj.weight.zero_()
        kernel[:, :, 1, 3, 3] = 1.0
        video = torch.randn(1, 3, 4, 16, 20, dtype=torch.float64)
        found = embed(own, video, 4)
    torch.testing.assert_close(found[0, ..., 0], video[0, :, ::2, ::4, ::4].sum(0))


def test_the_way_a_kernel_is_resized_is_the_config_s():
    area, plain = model(patch_resize="area"), model()
    area.load_state_dict(plain.state_dict())
    video = torch.randn(1, 3, 2, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        for each in (area, plain):
            (
                each.patch_embed.proj.bias.zero_(),
                each.pos_embed_spatial.zero_(),
                each.pos_embed_temporal.zero_(),
            )
        torch.testing.assert_close(embed(area, video, 2), embed(plain, video, 2) * (7 / 3) ** 2)


def test_inference_never_uses_stale_weights():
    own, video = model(), torch.randn(1, 3, 4, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        before = own.features(video, 3)
        for parameter in (
            own.patch_embed.proj.weight,
            own.pos_embed_spatial,
            own.pos_embed_temporal,
        ):
            parameter.data.add_(torch.randn_like(parameter))  # moves no version counter
            after = own.features(video, 3)
            own.patch_embed.resized.clear()
            assert torch.equal(after, own.features(video, 3)) and not torch.equal(after, before)
            before = after


@pytest.mark.parametrize("mode", [lambda: torch.device("meta"), FakeTensorMode])
def test_shapes_alone_can_be_asked_for_again_and_again(mode):
    with mode():
        own = Hiera(HieraConfig(embed_dim=8, depths=(1, 1, 1, 1), image_size=64)).eval()
        with torch.no_grad():
            for frames, size, patch in ((4, 48, 3), (4, 48, 3), (4, 32, 2)):
                assert own.features(torch.empty(2, 3, frames, size, size), patch).shape == (2, 64)
        own.train()(torch.empty(2, 3, 4, 32, 32), 2).sum().backward()
        assert own.pos_embed_spatial.grad.shape == own.pos_embed_spatial.shape


@pytest.mark.parametrize("config", [MViTConfig, HieraConfig])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"image_size": 222},
            r"image_size \(222\) must be a multiple of patch_size \(4\); nearest: 220, 224",
        ),
        ({"num_frames": 15}, r"num_frames \(15\) must be a multiple of tubelet_size \(2\)"),
        ({"patch_resize": "cubic"}, r"patch_resize \('cubic'\) must be one of: bicubic, area, pi"),
        (
            {"embed_dim": 97, "num_heads": 2},
            r"embed_dim \(97\) must be a multiple of num_heads \(2\)",
        ),
        ({"drop_path": 1.0}, r"drop_path \(1.0\) must be at least 0 and less than 1"),
        ({"mlp_ratio": 0}, r"mlp_ratio \(0\) must be a positive integer"),
    ],
)
def test_bad_config_is_named(config, changes, text):
    with pytest.raises(ValueError, match=text):
        config(**changes)


def test_tables_begin_small_and_biases_at_zero():
    own = Hiera(HieraConfig(embed_dim=8, depths=(1, 1, 1, 1), image_size=64))
    for name, parameter in own.named_parameters():
        if name.startswith("pos_embed") or (name.endswith("weight") and parameter.dim() == 2):
            assert 0.015 < float(parameter.detach().std()) < 0.025, name
        if name.endswith("bias") and "patch_embed" not in name:
            assert not parameter.any(), name


@pytest.mark.parametrize("make", [MViT, Hiera])
def test_an_image_model_is_named(make):
    config = {"embed_dim": 8, "image_size": 32, "num_frames": 4}
    state = make(HieraConfig(**config) if make is Hiera else MViTConfig(**config)).state_dict()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, 1]
    with pytest.raises(
        ValueError, match=r"weight has shape \(8, 3, 7, 7\); a video model's has 5 axes"
    ):
        make.config_of(state)
