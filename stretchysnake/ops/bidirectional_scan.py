"""What VideoMamba's mixer does between its two outer projections: both directions, one operation.

Symbols: B batch, L tokens, Di inner channels, K convolution width, N state size, R rank of delta.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stretchysnake.ops import native_library
from stretchysnake.ops.causal_conv import causal_conv_silu
from stretchysnake.ops.selective_scan import Backend, choose_automatically, selective_scan


class Direction(NamedTuple):
    """The parameters of one direction."""

    conv_weight: Tensor
    """(Di, K)"""
    conv_bias: Tensor
    """(Di,)"""
    x_proj: Tensor
    """(R + 2N, Di): from the convolved input to dt, B and C."""
    dt_proj: Tensor
    """(Di, R): from dt to delta."""
    dt_bias: Tensor
    """(Di,)"""
    A_log: Tensor
    """(Di, N), A = -exp(A_log)"""
    D: Tensor
    """(Di,)"""


def bidirectional_scan(
    xz: Tensor, forward: Direction, backward: Direction, *, backend: Backend = "auto"
) -> Tensor:
    """Return the sum of the forward and the backward scan of x, gated by z; xz = [x, z] (B, L, 2 Di).

    Each direction: u = silu(conv(x)); [dt, B, C] = u x_proj^T; delta = dt dt_proj^T; then
    ``selective_scan`` of u with delta_bias = dt_bias, softplus, D and gate z. The backward one reads
    from the last token to the first. Returns (B, L, Di) in the dtype of xz; state and accumulation are
    fp32, fp64 for fp64 parameters. backend as in ``selective_scan``; where it is the native one and
    xz and the parameters share fp32 or fp64, outside autocast, the threads are woken three times for
    all of it, delta is never stored, and the gate is applied once to the sum.

    Source: Vision Mamba (Zhu et al., 2024), algorithm 1; VideoMamba adds the two without halving.
    """
    if _is_native(xz, (*forward, *backward), backend):
        from stretchysnake.ops.bidirectional_scan_cpu import bidirectional_scan_cpu

        return bidirectional_scan_cpu(xz, forward, backward)
    ahead = _one_direction(xz, forward, reverse=False, backend=backend)
    return ahead + _one_direction(xz, backward, reverse=True, backend=backend)


def _is_native(xz: Tensor, parameters: tuple[Tensor, ...], backend: Backend) -> bool:
    chosen = choose_automatically(xz) if backend == "auto" else backend
    return (
        chosen == "cpu"
        and native_library.is_available()
        and xz.dtype in (torch.float32, torch.float64)
        and all(tensor.is_cpu and tensor.dtype == xz.dtype for tensor in (xz, *parameters))
        and not torch.is_autocast_enabled("cpu")
    )


def _one_direction(xz: Tensor, own: Direction, *, reverse: bool, backend: Backend) -> Tensor:
    x, z = xz.chunk(2, dim=-1)
    u = causal_conv_silu(x, own.conv_weight, own.conv_bias, reverse=reverse, backend=backend)
    rank, num_state = own.dt_proj.shape[1], own.A_log.shape[1]
    dt, B, C = F.linear(u, own.x_proj).split((rank, num_state, num_state), dim=-1)
    wide = torch.promote_types(own.A_log.dtype, torch.float32)
    return selective_scan(
        u,
        F.linear(dt, own.dt_proj).to(u.dtype),
        -torch.exp(own.A_log.to(wide)),
        B,
        C,
        D=own.D.to(wide),
        z=z,
        delta_bias=own.dt_bias.to(wide),
        delta_softplus=True,
        reverse=reverse,
        backend=backend,
    )
