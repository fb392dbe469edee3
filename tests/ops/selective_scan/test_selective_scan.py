"""Every backend of the selective scan against the plain fp64 loop, and what the scan must mean."""

import logging

import pytest
import torch
from scan_problems import NAMES, expected, make_inputs, relative_rms, run_with_gradients

from stretchysnake.ops import backend as backend_module
from stretchysnake.ops import selective_scan as public_selective_scan
from stretchysnake.ops.flops import selective_scan_flops
from stretchysnake.ops.native.library import is_available
from stretchysnake.ops.selective_scan.scan import selective_scan

needs_native = pytest.mark.skipif(not is_available(), reason="native library not built")
backends = pytest.mark.parametrize("backend", ["torch", pytest.param("cpu", marks=needs_native)])
directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


@directions
@pytest.mark.parametrize(
    "sizes", [(1, 1), (5, 3), (12, 16), (33, 17)], ids=lambda s: "D{}-N{}".format(*s)
)
@pytest.mark.parametrize("length", [1, 2, 7, 63, 64, 65, 196], ids="L{}".format)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@backends
def test_scan_and_all_gradients_match_fp64_reference(backend, dtype, length, sizes, reverse):
    inputs = make_inputs(length, *sizes, dtype=dtype)
    found = run_with_gradients(inputs, reverse=reverse, backend=backend)
    # One number per channel summed over all tokens can cancel: a wider bound than the 2e-6 typical.
    bound = 2e-5 if dtype == torch.float32 else 1e-12
    errors = {
        name: relative_rms(found[name], wanted)
        for name, wanted in expected(length, *sizes, reverse).items()
    }
    assert {name: e for name, e in errors.items() if not e < bound} == {}


@backends
@directions
def test_scan_without_optional_inputs_matches_reference(backend, reverse):
    inputs = {name: make_inputs(40, 9, 5)[name] for name in ("u", "delta", "A", "B", "C")}
    inputs["delta"] = inputs["delta"].abs()
    leaves = [{name: t.clone().requires_grad_() for name, t in inputs.items()} for _ in range(2)]
    wanted = selective_scan(**leaves[0], reverse=reverse, backend="reference")
    found = selective_scan(**leaves[1], reverse=reverse, backend=backend)
    torch.testing.assert_close(found, wanted)
    wanted.sum().backward()
    found.sum().backward()
    for name in inputs:
        torch.testing.assert_close(leaves[1][name].grad, leaves[0][name].grad, msg=name)


@backends
def test_reverse_equals_flipped_scan_of_flipped_sequences(backend):
    inputs = make_inputs(37, 5, 3)
    flipped = {
        name: t.flip(1) if name in ("u", "delta", "B", "C", "z") else t
        for name, t in inputs.items()
    }
    options = {"delta_softplus": True, "return_final_state": True, "backend": backend}
    y, state = selective_scan(**inputs, reverse=True, **options)
    y_flipped, state_flipped = selective_scan(**flipped, **options)
    torch.testing.assert_close(y, y_flipped.flip(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, state_flipped, rtol=1e-12, atol=1e-12)


@directions
@pytest.mark.parametrize("cut", [1, 15, 16, 17, 64, 69])
@backends
def test_scan_cut_anywhere_and_continued_equals_the_whole(backend, cut, reverse):
    inputs = make_inputs(70, 9, 4, dtype=torch.float32)
    options = {"delta_softplus": True, "return_final_state": True, "reverse": reverse}
    options["backend"] = backend
    whole, final_state = selective_scan(**inputs, **options)

    def piece(span: slice, state: torch.Tensor):
        sequences = ("u", "delta", "B", "C", "z")
        cut_inputs = {n: t[:, span] if n in sequences else t for n, t in inputs.items()}
        return selective_scan(**cut_inputs | {"initial_state": state}, **options)

    spans = [slice(0, cut), slice(cut, 70)]
    state, parts = inputs["initial_state"], {}
    for i in (1, 0) if reverse else (0, 1):
        parts[i], state = piece(spans[i], state)
    torch.testing.assert_close(torch.cat([parts[0], parts[1]], 1), whole, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(state, final_state, rtol=2e-5, atol=2e-5)


@backends
def test_prefix_is_bitwise_unaffected_by_the_suffix(backend):
    inputs = make_inputs(50, 9, 4, dtype=torch.float32)
    changed = {name: t.clone() for name, t in inputs.items()}
    for name in ("u", "delta", "B", "C", "z"):
        changed[name][:, 30:] += 1
    y, y_changed = (
        selective_scan(**i, delta_softplus=True, backend=backend) for i in (inputs, changed)
    )
    assert torch.equal(y[:, :30], y_changed[:, :30])
    assert not torch.equal(y[:, 30:], y_changed[:, 30:])


@directions
@backends
def test_gradients_pass_gradcheck(backend, reverse):
    inputs = make_inputs(18, 3, 2, batch=1)
    leaves = [inputs[name].requires_grad_() for name in NAMES]

    def scan(u, delta, A, B, C, D, z, delta_bias, state):
        return selective_scan(
            u, delta, A, B, C, D, z, delta_bias, True, reverse, state, True, backend
        )

    assert torch.autograd.gradcheck(scan, leaves, fast_mode=True)


@pytest.mark.parametrize("wanting", ["u", "A", "delta_bias", "initial_state"])
@backends
def test_gradient_of_a_single_input_needs_no_other(backend, wanting):
    inputs = make_inputs(7, 5, 3)
    inputs[wanting].requires_grad_()
    selective_scan(**inputs, delta_softplus=True, backend=backend).sum().backward()
    wanted = run_single_gradient(make_inputs(7, 5, 3), wanting)
    torch.testing.assert_close(inputs[wanting].grad, wanted)


def run_single_gradient(inputs: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    inputs[name].requires_grad_()
    selective_scan(**inputs, delta_softplus=True, backend="reference").sum().backward()
    return inputs[name].grad


@backends
def test_slices_of_wider_projections_give_the_same_as_copies(backend):
    projection = torch.randn(2, 30, 2 * 9 + 4 + 2 * 5, generator=torch.Generator().manual_seed(0))
    u, z, _, B, C = projection.split([9, 9, 4, 5, 5], dim=-1)
    inputs = make_inputs(30, 9, 5, dtype=torch.float32) | {"u": u, "z": z, "B": B, "C": C}
    found = run_with_gradients(inputs, backend=backend)
    wanted = run_with_gradients({n: t.contiguous() for n, t in inputs.items()}, backend=backend)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-5, msg=name)


@backends
def test_transposed_and_expanded_inputs_give_the_same_as_copies(backend):
    inputs = make_inputs(21, 6, 4, dtype=torch.float32)
    inputs["u"] = inputs["u"].transpose(1, 2).contiguous().transpose(1, 2)
    inputs["B"] = inputs["B"][:1].expand(2, -1, -1)
    inputs["delta"] = inputs["delta"][:, :, :1].expand(-1, -1, 6)
    found = run_with_gradients(inputs, backend=backend)
    wanted = run_with_gradients({n: t.contiguous() for n, t in inputs.items()}, backend=backend)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("delta", [-1e4, -90.0, 25.0, 1e4, 1e30], ids="delta{:g}".format)
@backends
def test_extreme_steps_stay_finite(backend, delta):
    inputs = make_inputs(20, 9, 4, dtype=torch.float32)
    inputs["delta"] = torch.full_like(inputs["delta"], delta)
    if delta == 1e30:  # outputs of that size are right; their products in gradients are not finite
        y = selective_scan(**inputs, delta_softplus=True, backend=backend)
        assert y.isfinite().all()
        return
    found = run_with_gradients(inputs, backend=backend)
    wanted = run_with_gradients({n: t.double() for n, t in inputs.items()}, backend="reference")
    assert all(t.isfinite().all() for t in found.values())
    assert relative_rms(found["y"], wanted["y"]) < 1e-5


@backends
def test_nan_reaches_its_own_sequence_and_channel_only(backend):
    inputs = make_inputs(20, 9, 4, dtype=torch.float32)
    inputs["delta"][1, 5, 3] = float("nan")
    y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    assert y[1, 5:, 3].isnan().all()
    assert y[1, :5].isfinite().all() and y[0].isfinite().all()
    assert y[1, :, [0, 1, 2, 4, 5, 6, 7, 8]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@backends
def test_half_precision_inputs_keep_an_fp32_state(backend, dtype):
    inputs = make_inputs(64, 9, 4, dtype=torch.float32)
    half = {n: t.to(dtype) if n in ("u", "delta", "B", "C", "z") else t for n, t in inputs.items()}
    y, state = selective_scan(**half, delta_softplus=True, return_final_state=True, backend=backend)
    wanted, wanted_state = selective_scan(
        **{n: t.double() for n, t in half.items()},
        **{"delta_softplus": True, "return_final_state": True, "backend": "reference"},
    )
    assert (y.dtype, state.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(y, wanted.to(dtype))
    torch.testing.assert_close(state, wanted_state.float(), rtol=1e-5, atol=1e-5)


@backends
def test_empty_batch_gives_empty_output_and_zero_gradients(backend):
    inputs = make_inputs(4, 3, 2, batch=0, dtype=torch.float32)
    found = run_with_gradients(inputs, backend=backend)
    assert found["y"].shape == (0, 4, 3)
    assert torch.equal(found["grad A"], torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("u", torch.zeros(2, 4), r"u \(shape \(2, 4\)\) must have 3 dimensions"),
        ("u", torch.zeros(2, 0, 3), r"u \(shape \(2, 0, 3\)\) must hold at least one token"),
        ("A", torch.zeros(3), r"A \(shape \(3,\)\) must have 2 dimensions"),
        ("A", torch.zeros(4, 2), r"A \(shape \(4, 2\)\) must have shape \(D, N\) = \(3, 2\)"),
        ("A", torch.zeros(3, 0), r"A \(shape \(3, 0\)\) must hold at least one state"),
        ("B", torch.zeros(2, 2, 4), r"B \(shape \(2, 2, 4\)\) must have shape \(batch, L, N\)"),
        ("z", torch.zeros(2, 4, 2), r"z \(shape \(2, 4, 2\)\) must have shape \(batch, L, D\)"),
        ("delta_bias", torch.zeros(1), r"delta_bias \(shape \(1,\)\) must have shape \(D,\)"),
        ("initial_state", torch.zeros(2, 3), r"initial_state .* must have shape \(batch, D, N\)"),
        ("C", torch.zeros(2, 4, 2).int(), r"C \(dtype torch.int32\) must be floating point"),
        ("D", torch.zeros(3, device="meta"), r"D \(device meta\) must be on the device of u"),
    ],
)
def test_wrong_input_is_named_with_rule_and_way_out(name, value, message):
    inputs = make_inputs(4, 3, 2, dtype=torch.float32) | {name: value}
    with pytest.raises(ValueError, match=message):
        selective_scan(**inputs)


def test_unknown_backend_lists_the_known_ones():
    inputs = make_inputs(4, 3, 2)
    with pytest.raises(ValueError, match=r"backend \('cuda'\) must be one of 'auto', 'reference'"):
        selective_scan(**inputs, backend="cuda")


def test_automatic_choice_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(backend_module, "_announced", set())
    inputs = make_inputs(4, 3, 2, dtype=torch.float32)
    with caplog.at_level(logging.INFO, logger="stretchysnake.ops.backend"):
        selective_scan(**inputs)
        selective_scan(**inputs)
    assert [r.message.split(":")[0] for r in caplog.records] == [
        f"selective_scan uses backend {'cpu' if is_available() else 'torch'!r}"
    ]


def test_package_exports_the_public_function():
    assert public_selective_scan is selective_scan


def test_flops_of_videomamba_tiny_layer():
    assert selective_scan_flops(1, 1569, 384, 16) == 9 * 1569 * 384 * 16 + 2 * 1569 * 384
