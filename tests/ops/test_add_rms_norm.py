"""Residual sum and RMS norm in one operation against torch's, with every gradient."""

import pytest
import torch

from stretchysnake.ops import add_rms_norm
from stretchysnake.ops.add_rms_norm import rms_norm
from stretchysnake.ops.native import library as native_library

needs_native = pytest.mark.skipif(
    not native_library.is_available(), reason=f"{native_library.unavailable_reason()}"
)


def answers(shape, dtype, backend, *, uses_sum=True):
    """y, the sum and the gradients of the three inputs."""
    generator = torch.Generator().manual_seed(0)
    draws = [
        torch.randn(s, generator=generator, dtype=torch.float64).float().to(dtype)
        for s in (shape, shape, shape[-1:], shape, shape)
    ]
    x, residual, weight = (t.requires_grad_() for t in draws[:3])
    y, total = add_rms_norm(x, residual, weight, backend=backend)
    loss = (y * draws[3]).sum() + ((total * draws[4]).sum() if uses_sum else 0)
    return [y.detach(), total.detach(), *torch.autograd.grad(loss, (x, residual, weight))]


@needs_native
@pytest.mark.parametrize("uses_sum", [True, False], ids=["sum used", "sum unused"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 7), (3, 5, 33), (1, 2000, 192)], ids=str)
def test_native_norm_is_torchs(shape, uses_sum):
    wanted = answers(shape, torch.float64, "torch", uses_sum=uses_sum)
    for found, exact in zip(
        answers(shape, torch.float64, "cpu", uses_sum=uses_sum), wanted, strict=True
    ):
        torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-11)
    for found, exact in zip(
        answers(shape, torch.float32, "cpu", uses_sum=uses_sum), wanted, strict=True
    ):
        torch.testing.assert_close(
            found.double(), exact, rtol=1e-5, atol=1e-5 * max(1.0, float(exact.abs().max()))
        )


@needs_native
def test_mixed_dtypes_go_to_torch_and_are_refused_by_name():
    x, residual = torch.randn(2, 3, 8).bfloat16(), torch.randn(2, 3, 8)
    y, total = add_rms_norm(x, residual, torch.ones(8))
    assert (y.dtype, total.dtype) == (torch.float32, torch.float32)
    with pytest.raises(
        ValueError, match=r"x \(torch.bfloat16, cpu\).*must be fp32.*backend='torch'"
    ):
        add_rms_norm(x, residual, torch.ones(8), backend="cpu")
    with pytest.raises(ValueError, match=r"weight \(shape \(7,\)\) must have shape"):
        add_rms_norm(x, residual, torch.ones(7))
    with pytest.raises(ValueError, match=r"backend \('gpu'\) must be one of"):
        add_rms_norm(x, residual, torch.ones(8), backend="gpu")


@needs_native
def test_empty_nan_and_repeated_runs():
    y, total = add_rms_norm(torch.randn(0, 3, 8), torch.randn(0, 3, 8), torch.ones(8))
    assert y.shape == total.shape == (0, 3, 8)
    x = torch.randn(1, 3000, 96)
    spoilt = x.clone()
    spoilt[0, 7, 3] = torch.nan
    y, _ = add_rms_norm(spoilt, x, torch.ones(96))
    assert y[0, 7].isnan().all() and not y[0, 8:].isnan().any()
    first, again = (answers((1, 3000, 96), torch.float32, "cpu") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@needs_native
def test_torchs_operator_checks_pass():
    given = [torch.randn(2, 3, 9, requires_grad=True) for _ in range(2)]
    torch.library.opcheck(
        torch.ops.stretchysnake.add_rms_norm, (*given, torch.ones(9, requires_grad=True), 1e-5)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norm_of_a_narrow_stream_is_computed_wide(dtype):
    x, weight = torch.randn(3, 40).to(dtype), torch.randn(40)
    wanted = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    found = rms_norm(x, weight)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    y, total = add_rms_norm(x, torch.ones(3, 40), weight)
    assert total.dtype == y.dtype == torch.float32 and torch.equal(total, x.float() + 1)
