"""Attention of meta tensors as the one operation that it is on a device, so that it holds there what it holds here.

torch takes attention of meta tensors apart: products, a softmax, and all the scores between them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_OFFICIAL = F.scaled_dot_product_attention


@contextmanager
def fused_attention() -> Iterator[None]:
    """Within it `F.scaled_dot_product_attention` of meta tensors is fused where it would be on the CPU.

    The function is exchanged: a mode would not be seen by what the backward pass computes again. Other tensors get
    torch's own.
    """
    F.scaled_dot_product_attention = _attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = _OFFICIAL


def attention_flops(query, key, value, *rest, out_shape=None, **options) -> int:
    """Of FUSED on these shapes (..., N, C): its two products, as torch counts those of other kernels."""
    *batch, queries, channels = query
    return 2 * torch.Size(batch).numel() * queries * key[-2] * (channels + value[-1])


def _attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **options
) -> Tensor:
    if not _is_fused(query, key, value, attn_mask, dropout_p):
        given = {
            "attn_mask": attn_mask,
            "dropout_p": dropout_p,
            "is_causal": is_causal,
            "scale": scale,
        }
        return _OFFICIAL(query, key, value, **given, **options)
    return FUSED(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]


def _is_fused(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float
) -> bool:
    """torch's own conditions: a gradient due to the mask (a table of positions in training) needs the scores."""
    return (
        query.is_meta
        and query.dim() == 4
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and 0 not in (*query.shape, *key.shape)
        and dropout_p == 0.0
        and not (mask is not None and mask.requires_grad)
    )
