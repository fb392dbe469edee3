"""Depth-wise causal convolution followed by SiLU, channels last.

Symbols: B batch, L tokens, D inner channels, K kernel width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stretchysnake.ops.backend import Backend, choose_backend
from stretchysnake.ops.packing import check_one_row, on_device, packed_lengths


def causal_conv_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reverse: bool = False,
    backend: Backend = "auto",
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """Return silu(bias + sum_k weight[:, k] * x_{t - K + 1 + k}), tokens before the first being 0.

    x (B, L, D), rows may be strided; weight (D, K); bias (D,) or None; returns (B, L, D) in the
    dtype of x. ``reverse`` mirrors it in time: token t reads x_t .. x_{t + K - 1}, with
    weight[:, K - 1] still on x_t. The native and the Triton kernel compute in fp32 (fp64 where any
    input is fp64). Equals ``nn.Conv1d(D, D, K, groups=D, padding=K - 1)`` cut to L tokens, then SiLU.
    backend and cu_seqlens as in ``selective_scan``; "reference", "torch" and "exported" are the same here.
    """
    _check_inputs(x, weight, bias)
    backend = choose_backend("causal_conv_silu", x, backend, name="x")
    if cu_seqlens is not None:
        check_one_row("x", x)
    match backend:
        case "cpu" | "meta":
            from stretchysnake.ops.causal_conv.native import causal_conv_silu_cpu as conv
        case "triton":
            from stretchysnake.ops.causal_conv.triton import causal_conv_silu_triton as conv
        case _:  # "torch", "reference" and "exported"
            if cu_seqlens is None:
                return causal_conv_silu_torch(x, weight, bias, reverse)
            pieces = x.split(packed_lengths(cu_seqlens, x.shape[1]), dim=1)
            return torch.cat([causal_conv_silu_torch(p, weight, bias, reverse) for p in pieces], 1)
    return conv(
        x, weight, bias, reverse, cu_seqlens if cu_seqlens is None else on_device(cu_seqlens, x)
    )


def causal_conv_silu_torch(
    x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool = False
) -> Tensor:
    """``causal_conv_silu`` in torch operations: any device and dtype, differentiable."""
    width = weight.shape[1]
    kernel = weight.flip(1) if reverse else weight
    padding = (0, width - 1) if reverse else (width - 1, 0)
    padded = F.pad(x.transpose(1, 2), padding)  # (B, D, L + K - 1)
    dtype = torch.promote_types(x.dtype, weight.dtype)
    y = F.conv1d(
        padded.to(dtype),
        kernel.unsqueeze(1).to(dtype),
        None if bias is None else bias.to(dtype),
        groups=weight.shape[0],
    )
    return F.silu(y).transpose(1, 2).to(x.dtype)  # (B, L, D)


def _check_inputs(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if x.dim() != 3:
        raise ValueError(
            f"x (shape {tuple(x.shape)}) must have 3 dimensions (batch, L, D); "
            "transpose channels-first input with x.transpose(1, 2)."
        )
    channels = x.shape[2]
    if weight.dim() != 2 or weight.shape[0] != channels or weight.shape[1] < 1:
        raise ValueError(
            f"weight (shape {tuple(weight.shape)}) must have shape (D, K) with D = {channels}; "
            "an nn.Conv1d weight (D, 1, K) fits after .squeeze(1)."
        )
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"bias (shape {tuple(bias.shape)}) must have shape (D,) = ({channels},).")
