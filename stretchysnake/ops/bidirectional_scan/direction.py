"""One direction of the mixer as values: its parameters, and what it carries from part to part of a long sequence.

Symbols: B batch, Di inner channels, K convolution width, N state size, R rank of delta.
"""

from typing import NamedTuple

from torch import Tensor


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


class Carry(NamedTuple):
    """What one direction takes from the tokens it has read to those it reads next."""

    state: Tensor
    """(B, Di, N) of the scan, at least fp32."""
    recent: Tensor
    """(B, K - 1, Di), the convolution's last inputs in sequence order."""
