"""MViT and Hiera in training: drop path by hand, gradients, recomputation, precisions; blocks in depth order."""

import copy

import pytest
import torch

from stretchysnake.models.drop_path import growing_rates
from stretchysnake.models.transformers.hiera import Hiera, HieraConfig
from stretchysnake.models.transformers.mvit import MViT, MViTConfig


def mvit(**changes):
    values = {
        "embed_dim": 8, "depth": 4, "pool_blocks": (1, 2), "kv_stride": 4, "image_size": 32, "num_frames": 4,
        "num_classes": 3,
    }  # fmt: skip
    return MViT(MViTConfig(**{**values, **changes})).double()


def hiera(**changes):
    values = {
        "embed_dim": 8, "depths": (1, 1, 1, 1), "patch_size": 2, "image_size": 32, "num_frames": 4, "num_classes": 3,
    }  # fmt: skip
    return Hiera(HieraConfig(**{**values, **changes})).double()


both = pytest.mark.parametrize("make", [mvit, hiera])


def clips(number, size=32):
    return torch.randn(number, 3, 4, size, size, dtype=torch.float64)


def scattered(model):
    """With norms, biases and tables that are not what they begin as, so that each counts."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@both
def test_draws_leave_out_the_branch_of_their_column(make):
    model = scattered(make(drop_path=0.4)).train()
    video, rates = clips(1), growing_rates(0.4, 4)
    assert model.num_drop_draws(model.config.native) == 8
    for block, rate in enumerate(rates):
        for part, layer in enumerate(("attn.proj", "mlp.fc2")):
            draws = torch.full((1, 8), 0.999)
            draws[0, 2 * block + part] = rate - 1e-3
            # the same by hand: branches that stay are longer, that one gives nothing
            other = copy.deepcopy(model).eval()
            with torch.no_grad():
                for i, each in enumerate(other.blocks):
                    for name in ("attn.proj", "mlp.fc2"):
                        gone = i == block and name == layer and rate > 0
                        for parameter in each.get_submodule(name).parameters():
                            parameter.mul_(0 if gone else 1 / (1 - rates[i]))
                torch.testing.assert_close(
                    model.features(video, drop_draws=draws), other.features(video)
                )


@both
def test_parts_of_a_batch_drop_what_the_whole_drops(make):
    model, video = make(drop_path=0.5).train(), clips(4)
    draws = torch.rand(4, model.num_drop_draws(model.config.native))
    with torch.no_grad():
        whole = model.features(video, drop_draws=draws)
        parts = [model.features(video[i : i + 2], drop_draws=draws[i : i + 2]) for i in (0, 2)]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(whole, model.features(video, drop_draws=draws.flip(1)))
        evaluated = model.eval().features(video, drop_draws=draws)
    plain = make()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(evaluated, plain.eval().features(video))
        assert torch.equal(evaluated, plain.train().features(video))


@both
def test_every_weight_has_a_gradient_at_another_scale(make):
    model = scattered(make()).train()
    model(clips(2, 48), 3).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape, name
        # a bias of the keys shifts every score of a query alike, which the softmax does not see
        if not name.endswith("norm_k.bias"):
            assert parameter.grad.abs().max() > 1e-9, name


@both
def test_recomputed_activations_give_the_same_gradients(make):
    model, video = make(drop_path=0.3).train(), clips(2)
    draws, found, calls = torch.rand(2, 8), [], []
    model.blocks[1].norm1.register_forward_hook(lambda *_: calls.append(1))
    for model.checkpoint_activations in (False, True):
        model.zero_grad()
        calls.clear()
        model(video, drop_draws=draws).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
        assert len(calls) == 1 + model.checkpoint_activations
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@both
def test_depths_follow_the_blocks(make):
    model = make()
    assert [id(stage) for stage in model.stages()] == [id(block) for block in model.blocks]
    depths = {name: model.depth_of(name) for name, _ in model.named_parameters()}
    for name, depth in depths.items():
        wanted = int(name.split(".")[1]) + 1 if name.startswith("blocks.") else None
        if name.startswith(("norm.", "head.")):
            wanted = 5
        assert depth == (wanted or 0), name
    assert set(depths.values()) == {0, 1, 2, 3, 4, 5}
    assert depths["patch_embed.proj.weight"] == depths["pos_embed_spatial"] == 0
    ends = {name.rsplit(".", 1)[-1] for name in depths}
    assert set(model.undecayed()) == {end for end in ends if end.startswith(("pos_", "cls_"))}


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(make, dtype):
    model, video = make().float().eval(), clips(2, 48).float()
    with torch.no_grad():
        exact = model(video, 3)
        with torch.autocast("cpu", dtype=dtype):
            mixed = model(video, 3)
        assert mixed.dtype == dtype
        half = model.to(dtype)(video, 3)
    assert half.dtype == dtype
    for found in (mixed, half):
        assert float((found - exact).norm() / exact.norm()) < 0.05


def test_dropout_before_the_head_is_off_in_evaluation_and_in_the_features():
    model, video = mvit(head_dropout=0.5), clips(2)
    with torch.no_grad():
        features = model.eval().features(video)
        logits = model(video)
        torch.testing.assert_close(logits, model.head.projection(features))
        assert torch.equal(model.train().features(video), features)
        torch.manual_seed(3)
        found = model(video)
        torch.manual_seed(3)
        kept = torch.nn.functional.dropout(features, 0.5)
        torch.testing.assert_close(found, model.head.projection(kept))


@both
def test_no_classes_leaves_the_head_out(make):
    model, video = make(num_classes=0).eval(), clips(1)
    assert not [name for name in model.state_dict() if name.startswith("head")]
    with torch.no_grad():
        assert torch.equal(model(video), model.features(video))
        assert model(video).shape == (1, model.config.feature_dim)
