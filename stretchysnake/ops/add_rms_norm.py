"""The residual sum and the norm after it, in one pass over memory.

Symbols: B batch, L tokens, C width.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stretchysnake.ops.backend import choose_backend, is_narrow_fit, is_native_fit
from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.native.problems import norm_problem, run
from stretchysnake.ops.operation import operation
from stretchysnake.ops.precision import state_dtype


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    eps: float = 1e-5,
    backend: Literal["auto", "torch", "cpu"] = "auto",
) -> tuple[Tensor, Tensor]:
    """Return (y, s): s = residual + x and y = s / rms(s) · weight, over the last axis.

    x and residual (B, L, C), weight (C,). s has the wider of their dtypes; y is computed in at least
    fp32 and returned in the dtype of weight. The native kernel takes three tensors of fp32 or of fp64
    on the CPU, and without gradients a bf16 x with an fp32 residual, which is what a bf16 model and CPU autocast
    hand it: y is then bf16, as the product that follows would make it. "auto" leaves everything else to torch,
    "cpu" refuses it (ValueError).
    """
    if weight.shape != x.shape[-1:]:
        raise ValueError(
            f"weight (shape {tuple(weight.shape)}) must have shape (C,) = ({x.shape[-1]},)"
        )
    narrow = (
        is_narrow_fit(x, residual, weight)
        and residual.dtype == torch.float32
        and _narrow_follows(weight)
    )
    fits = (is_native_fit(x, residual, weight) or narrow) and x.shape == residual.shape
    chosen = choose_backend("add_rms_norm", x, backend, among=("auto", "torch", "cpu"))
    if backend == "cpu" and not fits:
        raise ValueError(
            f"x ({x.dtype}, {x.device}), residual ({residual.dtype}) and weight ({weight.dtype}) must be fp32, "
            "or all fp64, on the CPU for backend='cpu'; use backend='torch'."
        )
    if chosen in ("cpu", "meta") and fits:
        y, total, _ = _native(x, residual, weight.float() if narrow else weight, eps)
        return y, total
    total = residual + x
    return rms_norm(total, weight, eps), total


def _narrow_follows(weight: Tensor) -> bool:
    """Whether what takes y takes it as bf16: the weights are, or autocast makes it so."""
    if weight.dtype == torch.bfloat16:
        return True
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """x (..., C) / rms(x) · weight (C,), at least in fp32, returned in the weight's dtype."""
    wide = torch.promote_types(x.dtype, torch.float32)
    y = F.rms_norm(x.to(wide), (x.shape[-1],), weight.to(wide), eps)
    return y.to(weight.dtype)


@operation("add_rms_norm")
def _native(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the sum, and 1 / rms of every row."""
    y, total, inverse = _new_outputs(x)
    given = {"x": x.contiguous(), "residual": residual.contiguous(), "weight": weight.contiguous()}
    run("norm_forward", [norm_problem(**given, eps=eps, y=y, sum=total, inverse=inverse)])
    return y, total, inverse


def _new_outputs(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    wide = state_dtype(x)
    return (
        x.new_empty(x.shape),
        x.new_empty(x.shape, dtype=wide),
        x.new_empty(x.shape[:-1], dtype=wide),
    )


@torch.library.register_fake("stretchysnake::add_rms_norm")
def _(x, residual, weight, eps):
    return _new_outputs(x)


@operation("add_rms_norm_backward")
def _native_backward(
    grad_y: Tensor, grad_total: Tensor | None, total: Tensor, inverse: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the sum's two terms, which are equal, and of the weight."""
    grad_x, grad_weight = torch.empty_like(total), weight.new_zeros(weight.shape)
    problem = norm_problem(
        x=total,
        sum=total,
        inverse=inverse,
        weight=weight.contiguous(),
        grad_y=grad_y.contiguous(),
        grad_sum=None if grad_total is None else grad_total.contiguous(),
        grad_x=grad_x,
        grad_weight=grad_weight,
    )
    run("norm_backward", [problem])
    return grad_x, grad_weight


@torch.library.register_fake("stretchysnake::add_rms_norm_backward")
def _(grad_y, grad_total, total, inverse, weight):
    return torch.empty_like(total), weight.new_empty(weight.shape)


def _setup_context(ctx, inputs, output):
    _, total, inverse = output
    ctx.mark_non_differentiable(inverse)
    ctx.save_for_backward(total, inverse, inputs[2])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_y, grad_total, _):
    native_library.refuse_double_backward("add_rms_norm")
    total, inverse, weight = ctx.saved_tensors
    if grad_y is None:
        return grad_total, grad_total, None, None
    grad, grad_weight = _native_backward(grad_y, grad_total, total, inverse, weight)
    return grad, grad, grad_weight, None


torch.library.register_autograd(
    "stretchysnake::add_rms_norm", _backward, setup_context=_setup_context
)
