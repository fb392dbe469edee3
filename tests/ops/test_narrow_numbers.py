"""bf16 rows in the native forwards: against fp64 of the same bf16 inputs, within the roundings that bf16 makes.

A value is rounded once for each time it is stored, by at most `HALF_STEP` of itself; everything between is fp32.
"""

import pytest
import torch
from scan_problems import make_inputs

from stretchysnake.ops import bidirectional_scan, causal_conv_silu, selective_scan
from stretchysnake.ops.add_rms_norm import add_rms_norm
from stretchysnake.ops.bidirectional_scan.direction import Direction
from stretchysnake.ops.native import library as native_library

pytestmark = pytest.mark.skipif(
    not native_library.is_available(), reason=f"{native_library.unavailable_reason()}"
)
HALF_STEP = torch.finfo(torch.bfloat16).eps / 2
FP32 = 1e-5  # of the largest number, the rounding inside
ORDERS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
LENGTHS = [1, 64, 3, 65, 33]


def ends(lengths=LENGTHS):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])


def draw(*shape, seed=0, scale=1.0):
    """fp64 numbers that bf16 holds exactly."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return (scale * torch.randn(*shape, generator=generator)).bfloat16().double()


def stored(x):
    """What bf16 makes of fp64 numbers."""
    return x.float().bfloat16().double()


def assert_rounded_once(found, exact, more=0.0):
    """found bf16 is exact fp64 but for its own rounding, FP32, and `more` absolute."""
    assert found.dtype == torch.bfloat16
    error, scale = (found.double() - exact).abs(), exact.abs().max()
    assert (error <= HALF_STEP * exact.abs() * 1.001 + FP32 * scale + more).all()


@pytest.mark.parametrize("instruction_set", ["baseline", "best"])
def test_rows_are_rounded_to_the_nearest_with_ties_to_even_and_keep_nan_and_infinity(
    instruction_set, monkeypatch
):
    """Through the norm of numbers that it leaves alone: rms 1, weight w gives w in every place."""
    library, best = native_library.load(), native_library.instruction_set().encode()
    weight = torch.tensor(
        [1.0, 1.00390625, 1.01171875, -1.00390625, 1.005, 3e-39, 3.4e38, torch.inf, -torch.inf, torch.nan]
        + [1 + k / 1024 for k in range(11)]
    )  # fmt: skip
    ones = torch.ones(3, len(weight))
    name = b"baseline" if instruction_set == "baseline" else best
    assert library.stretchysnake_use_instruction_set(name) == 0
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            found, _ = add_rms_norm(ones.bfloat16(), 0 * ones, weight, eps=0.0, backend="cpu")
    finally:
        assert library.stretchysnake_use_instruction_set(best) == 0
    assert torch.equal(found.isnan(), weight.isnan().expand_as(ones))
    assert torch.equal(found[0].nan_to_num(7.0), weight.bfloat16().nan_to_num(7.0))
    assert torch.equal(found[0].nan_to_num(7.0), found[2].nan_to_num(7.0))


@ORDERS
@pytest.mark.parametrize(("length", "width"), [(1, 4), (7, 4), (33, 3), (130, 4)])
def test_convolution(length, width, reverse):
    x = draw(2, length, 2 * 21)[..., 5:26]  # strided, and no multiple of any vector
    weight, bias = draw(21, width), draw(21)
    exact = causal_conv_silu(x, weight, bias, reverse, backend="reference")
    narrow = x.bfloat16()
    found = causal_conv_silu(narrow, weight.float(), bias.float(), reverse, backend="cpu")
    assert_rounded_once(found, exact)
    wide = causal_conv_silu(narrow.float(), weight.float(), bias.float(), reverse, backend="cpu")
    assert torch.equal(found, wide.bfloat16())  # fp32 inside, to the bit


@ORDERS
def test_packed_convolution(reverse):
    x, weight, bias = draw(1, sum(LENGTHS), 21), draw(21, 4), draw(21)
    exact = [
        causal_conv_silu(part, weight, bias, reverse, backend="reference")
        for part in x.split(LENGTHS, 1)
    ]
    found = causal_conv_silu(
        x.bfloat16(), weight.float(), bias.float(), reverse, backend="cpu", cu_seqlens=ends()
    )
    assert_rounded_once(found, torch.cat(exact, 1))


def narrow_scan(inputs, **options):
    """The scan of inputs whose sequences are bf16 and whose parameters are fp32."""
    sequences = ("u", "delta", "z", "B", "C")
    given = {
        name: tensor.bfloat16() if name in sequences else tensor.float()
        for name, tensor in inputs.items()
    }
    return selective_scan(
        **given, delta_softplus=True, return_final_state=True, backend="cpu", **options
    )


@ORDERS
@pytest.mark.parametrize(("length", "channels"), [(1, 1), (31, 21), (65, 16), (130, 40)])
def test_scan(length, channels, reverse):
    inputs = {name: stored(t) for name, t in make_inputs(length, channels, 5).items()}
    exact, state = selective_scan(
        **inputs, delta_softplus=True, reverse=reverse, return_final_state=True, backend="reference"
    )
    found, narrow_state = narrow_scan(inputs, reverse=reverse)
    assert_rounded_once(found, exact)
    assert narrow_state.dtype == torch.float32
    torch.testing.assert_close(narrow_state.double(), state, rtol=1e-4, atol=1e-4)


@ORDERS
def test_packed_scan(reverse):
    inputs = {name: stored(t) for name, t in make_inputs(sum(LENGTHS), 9, 4, batch=1).items()}
    inputs["initial_state"] = draw(len(LENGTHS), 9, 4)
    found, states = narrow_scan(inputs, reverse=reverse, cu_seqlens=ends())
    for number, (start, length) in enumerate(zip(ends(), LENGTHS, strict=False)):
        own = {
            name: t[:, start : start + length] if name in ("u", "delta", "z", "B", "C") else t
            for name, t in inputs.items()
        } | {"initial_state": inputs["initial_state"][number : number + 1]}
        exact, state = selective_scan(
            **own, delta_softplus=True, reverse=reverse, return_final_state=True, backend="reference"
        )  # fmt: skip
        assert_rounded_once(found[:, start : start + length], exact, more=1e-5)
        torch.testing.assert_close(states[number].double(), state[0], rtol=1e-4, atol=1e-4)


def both_directions(length, inner, states, rank, batch=1):
    def direction(seed):
        return Direction(
            conv_weight=draw(inner, 4, seed=seed),
            conv_bias=draw(inner, seed=seed),
            x_proj=draw(rank + 2 * states, inner, seed=seed, scale=inner**-0.5),
            dt_proj=draw(inner, rank, seed=seed, scale=rank**-0.5),
            dt_bias=draw(inner, seed=seed),
            A_log=draw(inner, states, seed=seed),
            D=draw(inner, seed=seed),
        )

    return draw(batch, length, 2 * inner), direction(1), direction(2)


def in_steps(xz, forward, backward):
    """Both directions in fp64, rounded where the kernels store: (y, what its roundings may come to)."""
    x, z = xz.chunk(2, dim=-1)
    shares = []
    for reverse, own in ((False, forward), (True, backward)):
        u = stored(
            causal_conv_silu(x, own.conv_weight, own.conv_bias, reverse, backend="reference")
        )
        rank, states = own.dt_proj.shape[1], own.A_log.shape[1]
        dt, B, C = (u @ own.x_proj.T).split((rank, states, states), -1)
        scanned = selective_scan(
            u, dt @ own.dt_proj.T, -own.A_log.exp(), B, C, D=own.D, delta_bias=own.dt_bias,
            delta_softplus=True, reverse=reverse, backend="reference",
        )  # fmt: skip
        shares.append(scanned)
    gate = torch.nn.functional.silu(z)
    return (shares[0] + shares[1]) * gate, HALF_STEP * (shares[0] * gate).abs()


@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16], ids=["autocast", "model"])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (7, 9, 3, 2, 2), (130, 40, 5, 3, 1)], ids=str)
def test_both_directions_of_a_bf16_model_and_under_autocast(sizes, parameters):
    given = both_directions(*sizes)
    exact, first = in_steps(*given)
    directions = [Direction(*(t.to(parameters) for t in way)) for way in given[1:]]
    with torch.autocast("cpu", torch.bfloat16, enabled=parameters == torch.float32):
        found = bidirectional_scan(given[0].bfloat16(), *directions, backend="cpu")
    # u may round the other way where fp32 and fp64 differ about a tie: a step of one number in thousands
    assert_rounded_once(found, exact, more=first + 2e-3 * exact.abs().max())
    error = (found.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error < HALF_STEP


def test_packed_both_directions_and_threads():
    xz, *directions = both_directions(sum(LENGTHS), 24, 4, 3)
    narrow = xz.bfloat16(), *(Direction(*(t.float() for t in way)) for way in directions)
    found, before = {}, torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found[threads] = bidirectional_scan(*narrow, backend="cpu", cu_seqlens=ends())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[1], found[2])
    parts = [bidirectional_scan(part, *narrow[1:]) for part in narrow[0].split(LENGTHS, 1)]
    assert torch.equal(found[1], torch.cat(parts, 1))
    exact = torch.cat([in_steps(part, *directions)[0] for part in xz.split(LENGTHS, 1)], 1)
    error = (found[1].double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error < HALF_STEP


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["autocast", "model"])
@pytest.mark.parametrize("width", [1, 9, 192])
def test_residual_sum_and_norm(width, weights):
    x, residual, weight = draw(2, 7, width), draw(2, 7, width, seed=1), draw(width)
    total = x + residual
    exact = total / (total.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    with torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.float32):
        y, found = add_rms_norm(x.bfloat16(), residual.float(), weight.to(weights), backend="cpu")
    assert found.dtype == torch.float32  # the stream stays wide
    assert torch.equal(found, total.float())
    assert_rounded_once(y, exact)


def test_with_gradients_bf16_takes_torchs_operations_and_its_gradients():
    xz, *directions = both_directions(7, 9, 3, 2)
    narrow = [Direction(*(t.float() for t in way)) for way in directions]
    leaf = xz.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = bidirectional_scan(leaf, *narrow)
        (found,) = torch.autograd.grad(y.float().square().sum(), leaf)
    wide = xz.clone().requires_grad_()
    wanted = torch.autograd.grad(
        bidirectional_scan(wide, *directions, backend="reference").square().sum(), wide
    )[0]
    assert (found.double() - wanted).norm() / wanted.norm() < 8 * HALF_STEP
    x = draw(1, 5, 8).bfloat16().requires_grad_()
    y, _ = add_rms_norm(x, torch.ones(1, 5, 8), torch.ones(8))
    assert y.requires_grad and y.dtype == torch.float32


def test_schemas_and_shapes_hold_for_bf16():
    tests = (
        "test_schema",
        "test_faketensor",
    )  # the rest is of gradients, and imports torch's compiler
    xz, *directions = both_directions(5, 9, 3, 2)
    tensors = [[t.float() for t in own] for own in directions]
    torch.library.opcheck(
        torch.ops.stretchysnake.bidirectional_scan,
        (xz.bfloat16(), *tensors, None, False),
        test_utils=tests,
    )
    x = draw(2, 3, 9)
    torch.library.opcheck(
        torch.ops.stretchysnake.add_rms_norm,
        (x.bfloat16(), x.float(), torch.ones(9), 1e-5),
        test_utils=tests,
    )
