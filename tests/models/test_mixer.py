"""The residual block: drop path sample by sample, the stream's precision, the mixer written out token by token."""

import math

import numpy as np
import pytest
import torch

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.models import mixer
from stretchysnake.models.mixer import BidirectionalMixer, Block, RMSNorm, drop_path


def tiny(**changes):
    values = {
        "embed_dim": 16,
        "depth": 4,
        "patch_size": 4,
        "image_size": 8,
        "num_frames": 2,
        "num_classes": 3,
    }
    return VideoMamba(VideoMambaConfig(**{**values, **changes}))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_drop_path_zeroes_whole_samples_and_keeps_the_mean(rate):
    x = torch.rand(4000, 5, 7) + 1
    found = drop_path(x, rate, training=True)
    dropped = (found == 0).flatten(1)
    assert (dropped.all(1) == dropped.any(1)).all()  # all of a sample or nothing of it
    assert dropped.all(1).double().mean() == pytest.approx(rate, abs=0.04)
    kept = ~dropped.all(1)
    torch.testing.assert_close(found[kept], x[kept] / (1 - rate))
    assert float(found.mean()) == pytest.approx(float(x.mean()), rel=0.1)
    assert drop_path(x, rate, training=False) is x and drop_path(x, 0.0, training=True) is x


def test_drop_path_rates_grow_with_depth_and_reach_every_place():
    """Official: what block i - 1 gave is dropped at rate (i - 1) / (depth - 1), and what the last gave at the whole."""
    model = tiny(depth=4, drop_path=0.3)
    assert [block.drop_path for block in model.layers] == pytest.approx([0.0, 0.0, 0.1, 0.2])
    assert model.config.drop_path == 0.3  # before norm_f
    assert [block.drop_path for block in tiny(depth=1, drop_path=0.3).layers] == [0.0]


def test_what_the_last_block_gave_is_dropped_at_the_whole_rate():
    model, video = tiny(depth=2, drop_path=0.999999).train(), torch.randn(3, 3, 2, 8, 8)
    seen = {}
    model.layers[1].register_forward_hook(lambda _, given, got: seen.update(residual=got[1]))
    model.norm_f.register_forward_pre_hook(lambda _, given: seen.update(end=given[0]))
    model.features(video)
    assert torch.equal(seen["end"], seen["residual"][:, 0])
    model.eval().features(video)
    assert not torch.equal(seen["end"], seen["residual"][:, 0])


def test_block_drops_what_the_one_before_gave_and_only_in_training():
    own = BidirectionalMixer(8, state_size=4, expand=2, conv_width=4, dt_rank=1)
    own.initialise(depth=2, init="mamba")
    block, x, residual = Block(own, 8, drop_path=0.9999999), *torch.randn(2, 3, 5, 8)
    with torch.no_grad():
        assert torch.equal(block.train()(x, residual)[1], residual)
        torch.testing.assert_close(block.eval()(x, residual)[1], residual + x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_residual_stream_is_kept_in_at_least_fp32(dtype):
    block = Block(BidirectionalMixer(8, state_size=4, expand=2, conv_width=4, dt_rank=1), 8).to(
        dtype
    )
    block.mixer.initialise(depth=2, init="mamba")
    x = torch.randn(2, 5, 8, dtype=dtype)
    wide = torch.promote_types(dtype, torch.float32)
    with torch.no_grad():
        first, residual = block(x, None)
        second, later = block(first, residual)
    assert first.dtype == second.dtype == dtype and residual.dtype == later.dtype == wide
    assert torch.equal(residual, x.to(wide))
    assert torch.equal(later, residual + first.to(wide))  # a narrow sum would round


def test_norm_is_the_root_mean_square():
    norm = RMSNorm(6)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 7.0))
    x = torch.randn(3, 6)
    wanted = (
        x.numpy() / np.sqrt((x.numpy() ** 2).mean(-1, keepdims=True) + 1e-5) * np.arange(1.0, 7.0)
    )
    np.testing.assert_allclose(norm(x).detach().numpy(), wanted, rtol=1e-5)


def softplus(x):
    return np.log1p(np.exp(x))


def silu(x):
    return x / (1 + np.exp(-x))


def scanned(x, z, *, conv, bias, x_proj, dt_proj, dt_bias, A, D):
    """One direction over one sequence x (L, Di), token by token."""
    length, width = x.shape
    taps, rank, states = conv.shape[1], dt_proj.shape[1], A.shape[1]
    padded = np.concatenate([np.zeros((taps - 1, width)), x])
    u = silu(np.stack([(padded[t : t + taps].T * conv).sum(1) for t in range(length)]) + bias)
    state, found = np.zeros((width, states)), []
    for token in u:
        parts = x_proj @ token
        delta = softplus(dt_proj @ parts[:rank] + dt_bias)
        b, c = parts[rank : rank + states], parts[rank + states :]
        state = np.exp(delta[:, None] * A) * state + (delta * token)[:, None] * b
        found.append(state @ c + D * token)
    return np.stack(found) * silu(z)


@pytest.mark.parametrize("init", ["mamba", "official"])
def test_mixer_is_the_sum_of_both_directions_written_out(init):
    width, length = 6, 9
    mixer = BidirectionalMixer(width, state_size=3, expand=2, conv_width=4, dt_rank=2).double()
    mixer.initialise(depth=3, init=init)
    with torch.no_grad():
        for number, parameter in enumerate(mixer.parameters()):  # both directions their own values
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(number)
            )
    x = torch.randn(2, length, width, dtype=torch.float64)
    p = {name: tensor.detach().numpy() for name, tensor in mixer.state_dict().items()}
    for row in range(2):
        xz = x[row].numpy() @ p["in_proj.weight"].T
        ahead, gate = xz[:, :12], xz[:, 12:]
        total = 0
        for mark, log, skip, turn in (("", "A_log", "D", 1), ("_b", "A_b_log", "D_b", -1)):
            total = (
                total
                + scanned(
                    ahead[::turn],
                    gate[::turn],
                    conv=p[f"conv1d{mark}.weight"][:, 0],
                    bias=p[f"conv1d{mark}.bias"],
                    x_proj=p[f"x_proj{mark}.weight"],
                    dt_proj=p[f"dt_proj{mark}.weight"],
                    dt_bias=p[f"dt_proj{mark}.bias"],
                    A=-np.exp(p[log]),
                    D=p[skip],
                )[::turn]
            )
        wanted = total @ p["out_proj.weight"].T
        np.testing.assert_allclose(mixer(x)[row].detach().numpy(), wanted, rtol=1e-9, atol=1e-12)


def test_delta_begins_within_its_bounds(monkeypatch):
    """Bounds so large that softplus and its approximations differ."""
    monkeypatch.setattr(mixer, "DELTA_MIN", 5.0)
    monkeypatch.setattr(mixer, "DELTA_MAX", 10.0)
    found = BidirectionalMixer(64, state_size=5, expand=2, conv_width=4, dt_rank=4)
    found.initialise(depth=16, init="mamba")
    for projection in (found.dt_proj, found.dt_proj_b):
        delta = torch.nn.functional.softplus(projection.bias.detach())
        assert 4.99 < delta.min() < 5.5 and 9 < delta.max() < 10.01
        assert float(delta.log().mean()) == pytest.approx(math.log(50) / 2, abs=0.1)  # log-uniform


def test_initial_values_are_those_of_mamba():
    mixer = BidirectionalMixer(64, state_size=5, expand=2, conv_width=4, dt_rank=4)
    mixer.initialise(depth=16, init="mamba")
    for log, skip in ((mixer.A_log, mixer.D), (mixer.A_b_log, mixer.D_b)):
        torch.testing.assert_close(log.exp(), torch.arange(1.0, 6.0).expand(128, 5))
        assert (skip == 1).all()
    bound = 1 / math.sqrt(128) / math.sqrt(16)  # of a linear layer, over the root of the depth
    assert 0.95 * bound < mixer.out_proj.weight.abs().max() <= bound
    assert 0.45 < mixer.dt_proj.weight.abs().max() <= 0.5  # rank^-1/2
