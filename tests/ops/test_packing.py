"""Sequences packed into one row give what each gives alone: outputs, states, every gradient."""

import pytest
import torch
from scan_problems import make_inputs, relative_rms, run_with_gradients

from stretchysnake.ops import causal_conv_silu, selective_scan
from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.native import problems
from stretchysnake.ops.selective_scan import native

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
        (9, r"cu_seqlens \(shape \(\), torch.int64\) must be one row of int32 or int64"),
    ],
)  # fmt: skip
@backends
def test_wrong_seams_are_named(cu_seqlens, message, backend):
    x, B = torch.zeros(1, 9, 2), torch.zeros(1, 9, 3)
    seams = torch.tensor(cu_seqlens)
    with pytest.raises(ValueError, match=message):
        causal_conv_silu(x, torch.ones(2, 4), None, backend=backend, cu_seqlens=seams)
    with pytest.raises(ValueError, match=message):
        selective_scan(x, x, -torch.ones(2, 3), B, B, backend=backend, cu_seqlens=seams)


@backends
def test_seams_are_a_tensor(backend):
    x, B = torch.zeros(1, 9, 2), torch.zeros(1, 9, 3)
    message = r"cu_seqlens \(list\) must be a tensor of int32 or int64; make one with torch.tensor"
    how = {"backend": backend, "cu_seqlens": [0, 3, 9]}
    with pytest.raises(ValueError, match=message):
        causal_conv_silu(x, torch.ones(2, 4), None, **how)
    with pytest.raises(ValueError, match=message):
        selective_scan(x, x, -torch.ones(2, 3), B, B, **how)


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


@needs_native
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_packed_row_is_one_call_whatever_the_threads(threads, reverse):
    """Long enough for several threads, of which some share a sequence and some have several."""
    lengths = [1, 500, 3, 65, 33, 32, 64, 300]
    inputs = make_inputs(sum(lengths), 21, 16, batch=1)
    inputs["initial_state"] = make_inputs(1, 21, 16, batch=len(lengths), seed=2)["initial_state"]
    options = {"reverse": reverse, "cu_seqlens": ends(lengths)}
    wanted = run_with_gradients(inputs, backend="torch", **options)
    x, weight = inputs["u"], inputs["C"][0, :21, :4].contiguous()
    cotangent = inputs["z"]

    def convolved(backend):
        leaves = [t.detach().requires_grad_() for t in (x, weight, inputs["D"])]
        y = causal_conv_silu(*leaves, reverse, backend, cu_seqlens=ends(lengths))
        return y.detach(), *torch.autograd.grad(y, leaves, cotangent)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found, again = (run_with_gradients(inputs, backend="cpu", **options) for _ in range(2))
        convolutions = convolved("cpu")
    finally:
        torch.set_num_threads(before)
    for name in wanted:
        assert relative_rms(found[name], wanted[name]) < 1e-11, name
        assert torch.equal(found[name], again[name]), name
    for one, other in zip(convolutions, convolved("torch"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@needs_native
def test_a_packed_row_is_one_operation_for_torch(monkeypatch):
    calls = []
    run = problems.run
    monkeypatch.setattr(native, "run", lambda name, of: (calls.append(name), run(name, of))[1])
    selective_scan(**packed_problem(), cu_seqlens=ends(LENGTHS))
    assert calls == ["scan_forward"]


@needs_native
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_packed_operations_pass_torchs_operator_checks(dtype):
    """But for those that compare what is kept: rows of its bound that no sequence needs hold anything."""
    given = {n: t.float().requires_grad_() for n, t in packed_problem().items()}
    order = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
    tensors = [given[name] for name in order]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    scan, conv = torch.ops.stretchysnake.selective_scan, torch.ops.stretchysnake.causal_conv_silu
    cu_seqlens = ends(LENGTHS, dtype)
    torch.library.opcheck(scan, (*tensors, cu_seqlens, True, False, True), test_utils=checks)
    torch.library.opcheck(conv, (tensors[0], given["A"], None, cu_seqlens, True), test_utils=checks)
