"""Products of int8 numbers on a CPU, by torch's oneDNN: a scale for each output of the weight, one for each row of x.

Symbols: K inputs, N outputs. Weights have 8 bits and rows of x 7: a processor without VNNI adds two products in 16
bits, which 8 and 8 bits overflow. So sums are exact on every processor, and all give the same numbers.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_MOST_WEIGHT, _MOST_INPUT, _ZERO = 127, 63, 64
"""Largest magnitudes, and what stands for 0 in the unsigned bytes of x."""


class Int8Weight(NamedTuple):
    """A weight (N, K) as oneDNN multiplies it."""

    packed: Tensor
    scales: Tensor
    """(N,): what one step of an output is worth."""
    zeros: Tensor
    """(N,), all 0."""


def why_no_int8() -> str | None:
    """Why torch has no int8 products here, or None where it has."""
    if "onednn" not in torch.backends.quantized.supported_engines:
        return "torch was built without its oneDNN products of int8 for this processor; use fp32"
    return None


def int8_weight(weight: Tensor) -> Int8Weight:
    """The weight (N, K), fp32, rounded to 8 bits with a scale for each output."""
    weight = weight.detach().float()
    scales = _scale(weight, _MOST_WEIGHT)
    steps = (weight / scales).round().to(torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(steps, None)
    return Int8Weight(packed, scales.flatten(), torch.zeros(len(weight), dtype=torch.int64))


def int8_linear(x: Tensor, weight: Int8Weight, bias: Tensor | None) -> Tensor:
    """x (..., K) fp32 times weight, and bias (N,): (..., N) fp32. A row's result depends on that row alone."""
    rows = x.reshape(-1, x.shape[-1])
    scales = _scale(rows, _MOST_INPUT)
    # half a step more, then cut: to the nearest, as all are positive
    steps = torch.addcmul(rows.new_tensor(_ZERO + 0.5), rows, scales.reciprocal())
    y = torch.ops.onednn.qlinear_pointwise(
        steps.to(torch.uint8), 1.0, _ZERO, *weight, None, 1.0, 0, torch.float32, "none", [], ""
    ).mul_(scales)
    if bias is not None:
        y += bias
    return y.view(*x.shape[:-1], -1)


def _scale(rows: Tensor, steps: int) -> Tensor:
    """(rows, 1): the worth of a step with which the largest number of a row is `steps` of them. NaN rows stay NaN."""
    # a tenth of the time of torch.linalg.vector_norm(rows, inf, dim=1)
    largest = torch.maximum(rows.amax(1, keepdim=True), -rows.amin(1, keepdim=True))
    return (largest / steps).clamp_min_(torch.finfo(torch.float32).tiny)
