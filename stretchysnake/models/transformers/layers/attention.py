"""Attention and MLPs that the transformers share, under the names their files use.

B rows, N tokens, M queries, C width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention, (B, N, C) -> (B, N, C); one Linear gives [q | k | v], heads contiguous in each."""

    def __init__(self, width: int, num_heads: int, *, bias: bool = True):
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width ({width}) must be a multiple of num_heads ({num_heads})")
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(x), self.num_heads, parts=3)
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))


class Mlp(nn.Module):
    """fc2(GELU(fc1 x)), the exact GELU; (B, N, C) -> (B, N, out)."""

    def __init__(self, width: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width if out is None else out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ClipAttention(nn.Module):
    """Attention under the names of torch's MultiheadAttention and CLIP: in_proj_weight [q | k | v], out_proj.

    query (B, M, C) attends to the keys and values projected from keys (B, N, C) and values (B, N, C).
    """

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width ({width}) must be a multiple of num_heads ({num_heads})")
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, keys: Tensor | None = None) -> Tensor:
        """keys None: self-attention; keys serve as values too."""
        return self.attended(*self.projected(query, query if keys is None else keys))

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What `projected` gave, attended and merged: (B, M, C)."""
        return self.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))

    def projected(self, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(q, k, v), each (B, heads, tokens, C / heads), with bias and not scaled."""
        if query is keys:
            qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias)
            return split_heads(qkv, self.num_heads, parts=3)
        width = query.shape[-1]
        (w_q, w_kv), (b_q, b_kv) = (
            stored.split((width, 2 * width)) for stored in (self.in_proj_weight, self.in_proj_bias)
        )
        (q,) = split_heads(F.linear(query, w_q, b_q), self.num_heads, parts=1)
        k, v = split_heads(F.linear(keys, w_kv, b_kv), self.num_heads, parts=2)
        return q, k, v


class ClipMlp(nn.Module):
    """c_proj(QuickGELU(c_fc x)), as CLIP's blocks have it."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(quick_gelu(self.c_fc(x)))


class ClipBlock(nn.Module):
    """A block of CLIP's visual tower: x + attn(ln_1 x), then x + mlp(ln_2 x); (B, N, C) -> (B, N, C)."""

    def __init__(self, width: int, num_heads: int, *, mlp_width: int | None = None):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = ClipAttention(width, num_heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = ClipMlp(width, 4 * width if mlp_width is None else mlp_width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


def quick_gelu(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), CLIP's approximation; any shape."""
    return x * torch.sigmoid(1.702 * x)


def split_heads(x: Tensor, num_heads: int, *, parts: int) -> tuple[Tensor, ...]:
    """(B, N, parts·C) as `parts` tensors (B, heads, N, C / heads): parts slowest, heads contiguous in each."""
    return x.unflatten(-1, (parts, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, N, d) -> (B, N, heads·d)."""
    return x.transpose(1, 2).flatten(2)


@torch.no_grad()
def initialise_linears(model: nn.Module) -> None:
    """Every Linear as most official code begins: a normal of 0.02, cut at 2, and no bias."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
