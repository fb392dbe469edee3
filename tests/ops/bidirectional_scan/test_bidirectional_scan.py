"""Both directions in one native operation against the composition of single ones, in fp64 and with gradients."""

import pytest
import torch
from scan_problems import relative_rms
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.ops import bidirectional_scan
from stretchysnake.ops.bidirectional_scan.direction import Carry, Direction
from stretchysnake.ops.bidirectional_scan.scan import one_direction
from stretchysnake.ops.native import library as native_library

needs_native = pytest.mark.skipif(
    not native_library.is_available(), reason=f"{native_library.unavailable_reason()}"
)
SIZES = [(1, 1, 1, 1, 1), (2, 7, 9, 3, 2), (3, 33, 16, 16, 5), (1, 130, 40, 5, 3)]


def problem(batch, length, inner, states, rank, *, width=4, dtype=torch.float64):
    """xz and the two directions, equal in every dtype."""
    generator = torch.Generator().manual_seed(batch + length)

    def draw(*shape, scale=1.0):
        values = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.float().to(dtype)

    def direction():
        return Direction(
            conv_weight=draw(inner, width),
            conv_bias=draw(inner),
            x_proj=draw(rank + 2 * states, inner, scale=inner**-0.5),
            dt_proj=draw(inner, rank, scale=rank**-0.5),
            dt_bias=draw(inner),
            A_log=draw(inner, states),
            D=draw(inner),
        )

    return draw(batch, length, 2 * inner), direction(), direction()


def answers(xz, forward, backward, **options) -> dict[str, torch.Tensor]:
    """y and the gradient of every input under a fixed cotangent."""
    leaves = [t.detach().requires_grad_() for t in (xz, *forward, *backward)]
    y = bidirectional_scan(leaves[0], Direction(*leaves[1:8]), Direction(*leaves[8:]), **options)
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype)
    names = [
        "xz",
        *(f"{way} {name}" for way in ("forward", "backward") for name in Direction._fields),
    ]
    gradients = torch.autograd.grad(y, leaves, cotangent)
    return {"y": y.detach()} | {f"grad {n}": g for n, g in zip(names, gradients, strict=True)}


@needs_native
@pytest.mark.parametrize("width", [4, 3], ids="K{}".format)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_native_operation_is_the_composition_in_fp64(sizes, width):
    given = problem(*sizes, width=width)
    wanted = answers(*given, backend="reference")
    for name, found in answers(*given, backend="cpu").items():
        torch.testing.assert_close(found, wanted[name], rtol=1e-9, atol=1e-11, msg=name)


@needs_native
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_fp32_stays_within_the_error_budget(sizes):
    wanted = answers(*problem(*sizes), backend="reference")
    for name, found in answers(*problem(*sizes, dtype=torch.float32), backend="cpu").items():
        assert relative_rms(found, wanted[name]) < 1e-5, name


def test_the_sum_is_that_of_two_gated_scans_one_of_them_read_backwards():
    """Against the definition, written with single tokens: no shared code but the reference scan."""
    xz, forward, _ = problem(1, 6, 3, 2, 1)
    both = bidirectional_scan(xz, forward, forward, backend="reference")
    mirrored = bidirectional_scan(xz.flip(1), forward, forward, backend="reference").flip(1)
    torch.testing.assert_close(both, mirrored, rtol=1e-12, atol=1e-12)


@needs_native
@pytest.mark.parametrize("sizes", [(1, 600, 64, 16, 4), (5, 90, 40, 16, 3)], ids=str)
def test_threads_change_rounding_only_and_runs_are_bitwise_equal(sizes):
    given, before, by_threads = problem(*sizes, dtype=torch.float32), torch.get_num_threads(), {}
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            by_threads[threads] = answers(*given, backend="cpu")
            again = answers(*given, backend="cpu")
            for name, found in by_threads[threads].items():
                assert torch.equal(found, again[name]), name
    finally:
        torch.set_num_threads(before)
    for threads in (2, 3):
        for name, found in by_threads[threads].items():
            assert relative_rms(found, by_threads[1][name].double()) < 2e-6, (threads, name)


@needs_native
def test_strided_input_and_no_gradient_give_the_same():
    xz, forward, backward = problem(2, 40, 24, 8, 3, dtype=torch.float32)
    wanted = bidirectional_scan(xz, forward, backward)
    wide = torch.cat([xz, xz], dim=-1)[..., : xz.shape[-1]]
    assert not wide.is_contiguous()
    assert torch.equal(bidirectional_scan(wide, forward, backward), wanted)
    trained = bidirectional_scan(xz.clone().requires_grad_(), forward, backward)
    assert torch.equal(trained.detach(), wanted)


@needs_native
def test_other_dtypes_and_autocast_take_the_single_operations():
    xz, forward, backward = problem(1, 20, 8, 4, 2, dtype=torch.float32)
    wanted = bidirectional_scan(xz, forward, backward)
    half = bidirectional_scan(
        xz.bfloat16(), *(Direction(*(t.bfloat16() for t in d)) for d in (forward, backward))
    )
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wanted, rtol=0.1, atol=0.2)
    with torch.autocast("cpu", torch.bfloat16):
        cast = bidirectional_scan(xz, forward, backward)
    torch.testing.assert_close(cast.float(), wanted, rtol=0.1, atol=0.2)


@needs_native
def test_nan_in_any_input_reaches_the_output():
    xz, forward, backward = problem(1, 9, 8, 4, 2, dtype=torch.float32)
    for name in Direction._fields:
        spoilt = forward._replace(**{name: torch.full_like(getattr(forward, name), torch.nan)})
        assert bidirectional_scan(xz, spoilt, backward).isnan().all(), name
    assert bidirectional_scan(xz * torch.nan, forward, backward).isnan().all()


@needs_native
def test_torchs_operator_checks_pass():
    xz, forward, backward = problem(2, 35, 9, 3, 2, dtype=torch.float32)
    tensors = [t.requires_grad_() for t in (xz, *forward, *backward)]
    torch.library.opcheck(torch.ops.stretchysnake.bidirectional_scan, (*tensors, None, True))


@needs_native
def test_flops_are_those_of_the_single_operations():
    given = problem(2, 35, 9, 3, 2, dtype=torch.float32)
    counts = {}
    for backend in ("cpu", "auto"):
        with FlopCounterMode(display=False) as counter:
            if backend == "cpu":
                bidirectional_scan(*given)
            else:  # fp16 parameters are no case for the fused operation
                xz, *directions = given
                double = [d._replace(D=d.D.double()) for d in directions]
                bidirectional_scan(xz, *double)
        counts[backend] = counter.get_total_flops()
    assert counts["cpu"] == counts["auto"] > 0


@needs_native
def test_double_backward_is_refused():
    xz, forward, backward = problem(1, 5, 4, 2, 1, dtype=torch.float32)
    y = bidirectional_scan(xz.requires_grad_(), forward, backward)
    with pytest.raises(RuntimeError, match=r"bidirectional_scan .* no second derivative"):
        torch.autograd.grad(y.sum(), xz, create_graph=True)


@pytest.mark.parametrize("name", Direction._fields)
def test_a_wrong_shape_is_named_before_any_kernel_runs(name):
    xz, forward, backward = problem(1, 5, 4, 2, 1, dtype=torch.float32)
    wrong = backward._replace(**{name: getattr(backward, name)[:-1]})
    with pytest.raises(ValueError, match=rf"backward\.{name} \(shape .*must have shape"):
        bidirectional_scan(xz, forward, wrong)
    with pytest.raises(ValueError, match=r"xz \(shape \(1, 5, 7\)\) must be"):
        bidirectional_scan(xz[..., :7], forward, backward)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("lengths", [[3, 8, 1, 9], [1, 1, 19], [21]], ids=str)
def test_a_direction_read_part_by_part_is_the_direction_of_the_whole(reverse, lengths):
    xz, own, _ = problem(2, 21, 6, 3, 2)
    whole, _ = one_direction(xz, own, reverse=reverse, backend="reference")
    carry = Carry(xz.new_zeros(2, 6, 3), xz.new_zeros(2, 3, 6))
    parts = list(xz.split(lengths, 1))
    found = []
    for part in reversed(parts) if reverse else parts:
        y, carry = one_direction(part, own, reverse=reverse, carry=carry, backend="reference")
        found.append(y)
    joined = torch.cat(found[::-1] if reverse else found, 1)
    torch.testing.assert_close(joined, whole, rtol=1e-10, atol=1e-12)


def alone_and_joined(lengths, given, **options) -> dict[str, torch.Tensor]:
    """`answers` of every sequence of the row alone, joined: parameters' gradients are summed over them."""
    (xz, forward, backward), joined = given, {}
    generator = torch.Generator().manual_seed(1)
    cotangents = torch.randn(1, *xz[0, :, ::2].shape, generator=generator, dtype=torch.float64)
    for part, cotangent in zip(
        xz.split(lengths, 1), cotangents.to(xz.dtype).split(lengths, 1), strict=True
    ):
        leaves = [t.detach().requires_grad_() for t in (part, *forward, *backward)]
        y = bidirectional_scan(
            leaves[0], Direction(*leaves[1:8]), Direction(*leaves[8:]), **options
        )
        gradients = torch.autograd.grad(y, leaves, cotangent)
        for place, value in enumerate((y.detach(), *gradients)):
            joined.setdefault(place, []).append(value)
    return {
        place: torch.cat(parts, 1) if place < 2 else torch.stack(parts).sum(0)
        for place, parts in joined.items()
    }


@pytest.mark.parametrize(
    ("backend", "threads"),
    [("torch", 1), *(pytest.param("cpu", n, marks=needs_native) for n in (1, 3))],
)
def test_packed_sequences_are_scanned_as_if_alone(backend, threads):
    lengths = [7, 1, 300, 65, 32, 2]
    given = problem(1, sum(lengths), 40, 16, 3)
    before = torch.get_num_threads()
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    try:
        torch.set_num_threads(threads)
        found = answers(*given, backend=backend, cu_seqlens=ends)
    finally:
        torch.set_num_threads(before)
    wanted = alone_and_joined(lengths, given, backend="torch")
    for (name, one), other in zip(found.items(), wanted.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11, msg=name)


@needs_native
def test_a_packed_row_passes_torchs_operator_checks():
    """But for those that compare what is kept: rows of its bound that no sequence needs hold anything."""
    xz, forward, backward = problem(1, 35, 9, 3, 2, dtype=torch.float32)
    tensors = [[t.requires_grad_() for t in own] for own in (forward, backward)]
    torch.library.opcheck(
        torch.ops.stretchysnake.bidirectional_scan,
        (xz.requires_grad_(), *tensors, torch.tensor([0, 34, 35]), True),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize(
    ("batch", "seams", "message"),
    [
        (2, [0, 35], r"xz \(batch 2\) must have batch 1 with cu_seqlens; put all sequences"),
        (1, [0, 34], r"cu_seqlens \(0 .. 34\) must begin with 0 and end with the row's length, 35"),
    ],
)
def test_wrong_seams_of_both_directions_are_named(batch, seams, message):
    with pytest.raises(ValueError, match=message):
        bidirectional_scan(*problem(batch, 35, 9, 3, 2), cu_seqlens=torch.tensor(seams))
