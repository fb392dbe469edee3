"""Causal convolution and SiLU on the native CPU kernel, forward and backward, via ctypes.

Symbols: B batch, L tokens, D inner channels, K kernel width.
"""

from torch import Tensor

from stretchysnake.ops.backend import is_narrow_fit
from stretchysnake.ops.causal_conv.gradient import new_gradients, register_gradient
from stretchysnake.ops.native.problems import conv_problem, dense, rows_in_place, run, seams
from stretchysnake.ops.operation import operation
from stretchysnake.ops.precision import state_dtype


def causal_conv_silu_cpu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reverse: bool = False,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """``causal_conv_silu`` in one pass over x (B, L, D), weight (D, K), bias (D,), packed sequences in one call.

    In fp32, or fp64 where any input is fp64. A bf16 x is read and answered as it is where no gradient is wanted, and
    otherwise converted. Only x is kept for the backward; the convolution is computed again.
    """
    dtype = state_dtype(x, weight, bias)
    parameters = (weight,) if bias is None else (weight, bias)
    x_read = x if is_narrow_fit(x, *parameters) else x.to(dtype)
    weight, bias = (t if t is None else t.to(dtype) for t in (weight, bias))
    y = _conv(x_read, weight, bias, cu_seqlens, reverse)
    return y if y.dtype == x.dtype else y.to(x.dtype)


@operation("causal_conv_silu")
def _conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, cu_seqlens: Tensor | None, reverse: bool
) -> Tensor:
    y = x.new_empty(x.shape)
    run("conv_forward", [conv_problem(**_given(x, weight, bias, cu_seqlens, reverse), y=y)])
    return y


@operation("causal_conv_silu_backward")
def _conv_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cu_seqlens: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; an empty tensor stands for that of an absent bias."""
    grad_x, grad_weight, grad_bias = gradients = new_gradients(x, weight, bias)
    problem = conv_problem(
        **_given(x, weight, bias, cu_seqlens, reverse),
        grad_y=rows_in_place(grad_y),
        grad_x=grad_x,
        grad_weight=grad_weight,
        grad_bias=None if bias is None else grad_bias,
    )
    if x.numel():
        run("conv_backward", [problem])
    else:
        grad_weight.zero_()
        grad_bias.zero_()
    return gradients


def _given(
    x: Tensor, weight: Tensor, bias: Tensor | None, cu_seqlens: Tensor | None, reverse: bool
) -> dict:
    """The arguments by name, as the kernel reads them."""
    return {
        "x": rows_in_place(x),
        "weight": dense(weight),
        "bias": dense(bias),
        "cu_seqlens": seams(cu_seqlens),
        "reverse": reverse,
    }


register_gradient("causal_conv_silu", _conv_backward, "cpu")
