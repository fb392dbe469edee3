"""Causal convolution and SiLU on the native CPU kernel, forward and backward, via ctypes.

Symbols: B batch, L tokens, D inner channels, K kernel width.
"""

import ctypes

import torch
from torch import Tensor

from stretchysnake.ops import native_library


class _ConvProblem(ctypes.Structure):
    """``ConvProblem`` of native/kernels.h: every field is 8 bytes, an absent pointer is 0."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("batch", "length", "channels", "width", "reverse", "is_double", "num_threads"),
            *("x", "x_batch_stride", "x_row_stride", "weight", "bias", "y"),
            *("grad_y", "grad_y_batch_stride", "grad_y_row_stride"),
            *("grad_x", "grad_weight", "grad_bias"),
        )
    ]


def causal_conv_silu_cpu(
    x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool = False
) -> Tensor:
    """``causal_conv_silu`` in one pass over x, in fp32, or fp64 where any input is fp64.

    Only x is kept for the backward; the convolution is computed again there.
    """
    native_library.load()
    if not x.is_cpu:
        raise ValueError(
            f"x (device {x.device}) must be on the CPU for backend='cpu'; use backend='torch'."
        )
    given = [t for t in (x, weight, bias) if t is not None]
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in given) else torch.float32
    x_read, weight, bias = (
        t if t is None or t.dtype == dtype else t.to(dtype) for t in (x, weight, bias)
    )
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        y = _CausalConvSilu.apply(x_read, weight, bias, reverse)
    else:
        y, *_ = _forward(x_read, weight, bias, reverse)
    return y if y.dtype == x.dtype else y.to(x.dtype)


def _rows_in_place(tensor: Tensor) -> Tensor:
    if tensor.stride(-1) == 1 or tensor.shape[-1] == 1:
        return tensor
    return tensor.contiguous()


def _common_fields(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> tuple:
    """The fields of the problem up to and including ``bias``."""
    return (
        *(*x.shape, weight.shape[1], reverse, x.dtype == torch.float64, torch.get_num_threads()),
        *(x.data_ptr(), x.stride(0), x.stride(1), weight.data_ptr()),
        0 if bias is None else bias.data_ptr(),
    )


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """y, and the inputs as the kernel read them."""
    x, weight = _rows_in_place(x), weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    y = x.new_empty(x.shape)
    problem = _ConvProblem(*_common_fields(x, weight, bias, reverse), y.data_ptr())
    if x.numel():
        library = native_library.load()
        native_library.check(library.stretchysnake_conv_forward(ctypes.byref(problem)))
    return y, x, weight, bias


class _CausalConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, reverse):
        y, *read = _forward(x, weight, bias, reverse)
        ctx.save_for_backward(*read)
        ctx.reverse = reverse
        return y

    @staticmethod
    def backward(ctx, grad_y):
        native_library.refuse_double_backward("causal_conv_silu")
        x, weight, bias = ctx.saved_tensors
        grad_y = _rows_in_place(grad_y)
        grad_x = x.new_empty(x.shape)
        grad_weight = weight.new_zeros(weight.shape)
        grad_bias = None if bias is None else bias.new_zeros(bias.shape)
        problem = _ConvProblem(
            *_common_fields(x, weight, bias, ctx.reverse),
            *(0, grad_y.data_ptr(), grad_y.stride(0), grad_y.stride(1)),
            *(grad_x.data_ptr(), grad_weight.data_ptr()),
            0 if grad_bias is None else grad_bias.data_ptr(),
        )
        if x.numel():
            library = native_library.load()
            native_library.check(library.stretchysnake_conv_backward(ctypes.byref(problem)))
        return grad_x, grad_weight, grad_bias, None
