"""Causal convolution and SiLU on the native CPU kernel, forward and backward, via ctypes.

Symbols: B batch, L tokens, D inner channels, K kernel width.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from stretchysnake.ops.flops import causal_conv_flops
from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.native.problems import conv_problem, dense, rows_in_place, run
from stretchysnake.ops.operation import operation
from stretchysnake.ops.precision import state_dtype


def causal_conv_silu_cpu(
    x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool = False
) -> Tensor:
    """``causal_conv_silu`` in one pass over x (B, L, D), weight (D, K), bias (D,).

    In fp32, or fp64 where any input is fp64. Only x is kept for the backward; the convolution is computed again.
    """
    dtype = state_dtype(x, weight, bias)
    x_read, weight, bias = (
        t if t is None or t.dtype == dtype else t.to(dtype) for t in (x, weight, bias)
    )
    y = _conv(x_read, weight, bias, reverse)
    return y if y.dtype == x.dtype else y.to(x.dtype)


@operation("causal_conv_silu")
def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    y = x.new_empty(x.shape)
    run("conv_forward", [conv_problem(**_given(x, weight, bias, reverse), y=y)])
    return y


@torch.library.register_fake("stretchysnake::causal_conv_silu")
def _(x, weight, bias, reverse):
    return x.new_empty(x.shape)


@operation("causal_conv_silu_backward")
def _conv_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; an empty tensor stands for that of an absent bias."""
    grad_x, grad_weight, grad_bias = gradients = _new_gradients(x, weight, bias)
    problem = conv_problem(
        **_given(x, weight, bias, reverse),
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


def _given(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> dict:
    """The arguments by name, as the kernel reads them."""
    return {"x": rows_in_place(x), "weight": dense(weight), "bias": dense(bias), "reverse": reverse}


def _new_gradients(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    grad_bias = x.new_empty(0 if bias is None else bias.shape)
    return x.new_empty(x.shape), x.new_empty(weight.shape), grad_bias


@torch.library.register_fake("stretchysnake::causal_conv_silu_backward")
def _(grad_y, x, weight, bias, reverse):
    return _new_gradients(x, weight, bias)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad_y):
    native_library.refuse_double_backward("causal_conv_silu")
    x, weight, bias = ctx.saved_tensors
    grad_x, grad_weight, grad_bias = _conv_backward(grad_y, x, weight, bias, ctx.reverse)
    return grad_x, grad_weight, None if bias is None else grad_bias, None


torch.library.register_autograd(
    "stretchysnake::causal_conv_silu", _backward, setup_context=_setup_context
)


@register_flop_formula(torch.ops.stretchysnake.causal_conv_silu)
def _(x_shape, weight_shape, *_, **__) -> int:
    return causal_conv_flops(*x_shape, weight_shape[1])


@register_flop_formula(torch.ops.stretchysnake.causal_conv_silu_backward)
def _(grad_y_shape, x_shape, weight_shape, *_, **__) -> int:
    return 3 * causal_conv_flops(*x_shape, weight_shape[1])  # again, into x, into the weight
