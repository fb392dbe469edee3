"""How torch differentiates and counts the convolution, whichever kernels compute it.

Symbols: B batch, L tokens, D inner channels, K kernel width.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from stretchysnake.ops.flops import causal_conv_flops
from stretchysnake.ops.native.library import refuse_double_backward


def new_gradients(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Room for those of x (B, L, D), weight (D, K) and bias (D,); an empty tensor for that of an absent bias."""
    grad_bias = x.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), grad_bias


def register_gradient(name: str, backward: Callable[..., tuple[Tensor, ...]], backend: str) -> None:
    """Tell torch the shapes, the gradient and the FLOPs of operation `name` and of its backward, `<name>_backward`.

    `name` takes x, weight, bias, then what has no gradient, reverse last; `backward` the gradient of y before these.
    """

    def setup_context(ctx, inputs, output):
        *tensors, ctx.reverse = inputs
        ctx.save_for_backward(*tensors)

    def differentiate(ctx, grad_y):
        refuse_double_backward("causal_conv_silu", backend)
        tensors = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = backward(grad_y, *tensors, ctx.reverse)
        bias = None if tensors[2] is None else grad_bias
        return grad_x, grad_weight, bias, *[None] * (len(tensors) - 2)

    full = f"stretchysnake::{name}"
    torch.library.register_autograd(full, differentiate, setup_context=setup_context)
    torch.library.register_fake(full, lambda x, *rest: x.new_empty(x.shape))
    torch.library.register_fake(f"{full}_backward", lambda _, *given: new_gradients(*given[:3]))

    @register_flop_formula(getattr(torch.ops.stretchysnake, name))
    def _(x_shape, weight_shape, *_, **__) -> int:
        return causal_conv_flops(*x_shape, weight_shape[1])

    @register_flop_formula(getattr(torch.ops.stretchysnake, f"{name}_backward"))
    def _(grad_y_shape, x_shape, weight_shape, *_, **__) -> int:
        return 3 * causal_conv_flops(*x_shape, weight_shape[1])  # again, into x, into the weight
