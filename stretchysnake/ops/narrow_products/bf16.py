"""Products of bf16 numbers on any CPU, with sums in fp32: as the processor has them, or else of rounded fp32 numbers.

Where a processor multiplies no bf16 (AVX2), torch's own product of it takes 7.5 times that of fp32 (docs/log.md). The
product of two bf16 numbers is exact in fp32, so the same numbers come out, but for the order of the sums, of an fp32
product of what was rounded; it takes as long as fp32.

Symbols: B clips, C channels, K inputs and N outputs of a linear layer.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stretchysnake.ops.operation import constant_when_compiled


@constant_when_compiled
def has_bf16_products() -> bool:
    """Whether this processor multiplies bf16: AVX-512 with bf16, AMX, or what torch asks of Arm."""
    has = torch.cpu.get_capabilities()
    if has.get("architecture", "").startswith(("x86", "amd64")):
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def bf16_weight(weight: Tensor) -> Tensor:
    """A weight of any shape as `bf16_linear` and `bf16_conv` take it: bf16, or rounded to it and held as fp32."""
    narrow = weight.detach().to(torch.bfloat16)
    return narrow if has_bf16_products() else narrow.float()


def bf16_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., K) times weight (N, K) of `bf16_weight`, and bias (N,), in bf16: (..., N)."""
    return F.linear(_like(weight, x), weight, _like(weight, bias)).to(torch.bfloat16)


def bf16_conv(convolve, x: Tensor, weight: Tensor, bias: Tensor | None, *how, **named) -> Tensor:
    """torch's convolution `convolve` of x (B, C, ...) with a weight of `bf16_weight`, in bf16."""
    return convolve(_like(weight, x), weight, _like(weight, bias), *how, **named).to(torch.bfloat16)


def _like(weight: Tensor, tensor: Tensor | None) -> Tensor | None:
    """The tensor rounded to bf16 and held as the weight is."""
    return None if tensor is None else tensor.to(torch.bfloat16).to(weight.dtype)
