"""Causal convolution and SiLU on a GPU: the Triton kernels as operations of torch.

Symbols: B batch, L tokens, D inner channels, K kernel width.
"""

import torch
from torch import Tensor

from stretchysnake.ops.causal_conv.gradient import new_gradients, register_gradient
from stretchysnake.ops.precision import state_dtype
from stretchysnake.ops.selective_scan.triton_tiles import Tiles, power_of_two
from stretchysnake.ops.triton import runtime as triton_runtime

FORWARD = Tiles(tokens=16, channels=32, num_warps=1)  # the quickest of those tried on an H100
BACKWARD = Tiles(tokens=16, channels=32, num_warps=4)
SPAN_TOKENS = 256  # of a program that sums the gradients of the weights


def causal_conv_silu_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reverse: bool = False,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """``causal_conv_silu`` in one pass over x (B, L, D), weight (D, K), bias (D,).

    In fp32, or fp64 where any input is fp64. Only x is kept for the backward; the convolution is computed again.
    A run repeats to the bit.
    """
    return _conv(x, weight, bias, cu_seqlens, reverse)


def _sequence_of(cu_seqlens: Tensor | None, length: int) -> Tensor | None:
    """The number of the packed sequence that each token belongs to (L,), computed on the device."""
    if cu_seqlens is None:
        return None
    tokens = torch.arange(length, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    return torch.searchsorted(cu_seqlens[1:].contiguous(), tokens, right=True, out_int32=True)


def _options(
    tiles: Tiles, x: Tensor, weight: Tensor, dtype: torch.dtype, reverse: bool
) -> tuple[int, dict]:
    """Blocks of channels, and a kernel's constants."""
    from stretchysnake.ops.selective_scan.triton_forward import state_type

    block = min(tiles.channels, power_of_two(x.shape[2]))
    options = {"REVERSE": reverse, "K": weight.shape[1], "TOKENS": tiles.tokens, "BLOCK_D": block}
    options |= {"TYPE": state_type(dtype), "num_warps": tiles.num_warps}
    return -(-x.shape[2] // block), options


@torch.library.custom_op("stretchysnake::causal_conv_silu_triton", mutates_args=())
def _conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, cu_seqlens: Tensor | None, reverse: bool
) -> Tensor:
    y = x.new_empty(x.shape)
    if not x.numel():
        return y
    from stretchysnake.ops.causal_conv.triton_kernels import conv_forward

    num_batch, length, channels = x.shape
    dtype = state_dtype(x, weight, bias)
    blocks, options = _options(FORWARD, x, weight, dtype, reverse)
    spans = -(-length // FORWARD.tokens)
    weight, bias = weight.contiguous(), None if bias is None else bias.contiguous()
    with triton_runtime.on_device(x):
        conv_forward[(blocks * spans * num_batch,)](
            *(x, *x.stride(), weight, bias, y, _sequence_of(cu_seqlens, length)),
            *(length, channels, spans),
            **options,
        )
    return y


@torch.library.custom_op("stretchysnake::causal_conv_silu_triton_backward", mutates_args=())
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
    if not x.numel():
        return grad_x, grad_weight.zero_(), grad_bias.zero_()
    from stretchysnake.ops.causal_conv.triton_kernels import conv_backward, conv_before_silu

    num_batch, length, channels = x.shape
    dtype = state_dtype(x, weight, bias)
    spans = -(-length // SPAN_TOKENS)
    weight_parts = x.new_empty(num_batch * spans, channels, weight.shape[1], dtype=dtype)
    bias_parts = None if bias is None else x.new_empty(num_batch * spans, channels, dtype=dtype)
    weight, bias = weight.contiguous(), None if bias is None else bias.contiguous()
    before_silu = x.new_empty(x.shape, dtype=dtype)
    sequence_of = _sequence_of(cu_seqlens, length)
    with triton_runtime.on_device(x):
        blocks, options = _options(FORWARD, x, weight, dtype, reverse)
        tiles = -(-length // FORWARD.tokens)
        conv_before_silu[(blocks * tiles * num_batch,)](
            *(grad_y, *grad_y.stride(), x, *x.stride(), weight, bias, before_silu, sequence_of),
            *(length, channels, tiles),
            **options,
        )
        blocks, options = _options(BACKWARD, x, weight, dtype, reverse)
        conv_backward[(blocks * spans * num_batch,)](
            *(before_silu, x, *x.stride(), weight, grad_x, weight_parts, bias_parts, sequence_of),
            *(length, channels, spans, SPAN_TOKENS),
            BLOCK_K=power_of_two(weight.shape[1]),
            **options,
        )
    grad_weight.copy_(weight_parts.sum(0))
    if bias_parts is not None:
        grad_bias.copy_(bias_parts.sum(0))
    return gradients


register_gradient("causal_conv_silu_triton", _conv_backward, "triton")
