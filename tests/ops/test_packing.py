"""Sequences packed into one row give what each gives alone: outputs, states, every gradient."""

import pytest
import torch
from scan_problems import make_inputs, relative_rms, run_with_gradients

from stretchysnake.ops import causal_conv_silu, selective_scan
from stretchysnake.ops.native import library as native_library

LENGTHS = [1, 64, 3, 65, 33]
SEQUENCES = ("u", "delta", "B", "C", "z")
needs_native = pytest.mark.skipif(
    not native_library.is_available(), reason=f"{native_library.unavailable_reason()}"
)
backends = pytest.mark.parametrize(
    "backend", ["reference", "torch", pytest.param("cpu", marks=needs_native)]
)


def ends(lengths, dtype=torch.int32):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=dtype)


def packed_problem():
    """One row of all sequences, with a starting state for each."""
    inputs = make_inputs(sum(LENGTHS), 5, 3, batch=1)
    states = make_inputs(1, 5, 3, batch=len(LENGTHS), seed=2)["initial_state"]
    return inputs | {"initial_state": states}


def alone(inputs, number):
    start = sum(LENGTHS[:number])
    cut = slice(start, start + LENGTHS[number])
    own = {name: t[:, cut] if name in SEQUENCES else t for name, t in inputs.items()}
    return own | {"initial_state": inputs["initial_state"][number : number + 1]}


@backends
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_each_packed_sequence_scans_as_if_alone(backend, reverse):
    inputs = packed_problem()
    y, states = selective_scan(
        **inputs, delta_softplus=True, reverse=reverse, return_final_state=True,
        cu_seqlens=ends(LENGTHS), backend=backend,
    )  # fmt: skip
    expected = [
        selective_scan(
            **alone(inputs, number), delta_softplus=True, reverse=reverse,
            return_final_state=True, backend="reference",
        )
        for number in range(len(LENGTHS))
    ]  # fmt: skip
    torch.testing.assert_close(y, torch.cat([y for y, _ in expected], 1), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(states, torch.cat([s for _, s in expected]), rtol=1e-11, atol=1e-11)


@backends
def test_gradients_of_packed_sequences_match_the_plain_loop(backend):
    inputs = packed_problem()
    options = {"reverse": True, "cu_seqlens": ends(LENGTHS, torch.int64)}
    wanted = run_with_gradients(inputs, backend="reference", **options)
    found = run_with_gradients(inputs, backend=backend, **options)
    for name in wanted:
        assert relative_rms(found[name], wanted[name]) < 1e-11, name


@backends
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_convolution_does_not_reach_over_a_seam(backend, reverse):
    inputs = make_inputs(sum(LENGTHS), 5, 4, batch=1)
    x, weight, bias = inputs["u"], inputs["A"], inputs["D"]
    found = causal_conv_silu(x, weight, bias, reverse, backend, cu_seqlens=ends(LENGTHS))
    wanted = [
        causal_conv_silu(part, weight, bias, reverse, "torch") for part in x.split(LENGTHS, 1)
    ]
    torch.testing.assert_close(found, torch.cat(wanted, 1), rtol=1e-12, atol=1e-12)
    seamless = causal_conv_silu(x, weight, bias, reverse, "torch")
    assert not torch.allclose(found, seamless)


@pytest.mark.parametrize(
    ("cu_seqlens", "message"),
    [
        ([0, 3, 3, 9], r"cu_seqlens \(3, 3 at 1\) must increase strictly; leave empty sequences out"),
        ([0, 5], r"cu_seqlens \(0 .. 5\) must begin with 0 and end with the row's length, 9"),
        ([2, 9], r"cu_seqlens \(2 .. 9\) must begin with 0"),
        ([0.0, 9.0], r"cu_seqlens \(shape \(2,\), torch.float32\) must be one row of int32 or int64"),
        ([[0, 9]], r"must be one row"),
    ],
)  # fmt: skip
def test_wrong_seams_are_named(cu_seqlens, message):
    x = torch.zeros(1, 9, 2)
    with pytest.raises(ValueError, match=message):
        causal_conv_silu(x, torch.ones(2, 4), None, cu_seqlens=torch.tensor(cu_seqlens))


def test_a_packed_batch_has_one_row():
    inputs = make_inputs(9, 2, 3)
    inputs.pop("initial_state")
    with pytest.raises(ValueError, match=r"u \(batch 2\) must have batch 1 with cu_seqlens"):
        selective_scan(**inputs, cu_seqlens=torch.tensor([0, 9]))


def test_states_are_counted_by_sequence():
    inputs = packed_problem()
    inputs["initial_state"] = inputs["initial_state"][:2]
    with pytest.raises(ValueError, match=r"initial_state .* must have shape .* \(5, 5, 3\)"):
        selective_scan(**inputs, cu_seqlens=ends(LENGTHS))
