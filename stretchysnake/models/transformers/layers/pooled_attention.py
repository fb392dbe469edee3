"""MViT's block: attention over pooled queries, keys and values (Fan et al. 2021).

B batch, t h w grid, N = t·h·w tokens beside [CLS], which comes first, C width, d = C / heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.models.drop_path import drop_path
from stretchysnake.models.transformers.layers.attention import Mlp, merge_heads, split_heads

Grid = tuple[int, int, int]


class PooledAttention(nn.Module):
    """Attention whose queries, keys and values are pooled over the grid, (B, 1 + N, C) -> (B, 1 + N', C).

    Pooling is a depthwise 3x3x3 convolution over each head's channels, the same for all heads, then LayerNorm(d).
    [CLS] is normed and not convolved.
    """

    def __init__(self, width: int, num_heads: int, strides: dict[str, int], eps: float):
        super().__init__()
        self.num_heads = num_heads
        self.strides = strides
        """Of q, k and v in space; who is not in here is not pooled."""
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        size = width // num_heads
        for part, stride in strides.items():
            conv = nn.Conv3d(
                size, size, 3, stride=(1, stride, stride), padding=1, groups=size, bias=False
            )
            self.add_module(f"pool_{part}", conv)
            self.add_module(f"norm_{part}", nn.LayerNorm(size, eps=eps))

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        q, k, v = split_heads(self.qkv(x), self.num_heads, parts=3)
        q, k, v = (self._pooled(part, x, grid) for part, x in zip("qkv", (q, k, v), strict=True))
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))

    def _pooled(self, part: str, x: Tensor, grid: Grid) -> Tensor:
        """x (B, heads, 1 + N, d) -> (B, heads, 1 + N', d)."""
        if part not in self.strides:
            return x
        batch, heads = x.shape[:2]
        volume = (
            x[:, :, 1:].transpose(2, 3).flatten(0, 1).unflatten(2, grid)
        )  # (B·heads, d, t, h, w)
        volume = self.get_submodule(f"pool_{part}")(volume)
        tokens = volume.flatten(2).transpose(1, 2).unflatten(0, (batch, heads))
        tokens = torch.cat([x[:, :, :1].to(tokens.dtype), tokens], dim=2)
        return self.get_submodule(f"norm_{part}")(tokens).to(x.dtype)


class Block(nn.Module):
    """x + attention, then + MLP: (B, 1 + N, C) and its grid -> (B, 1 + N', C') and its grid.

    Where queries are pooled the residual is max-pooled; where the width changes it is a projection of the normed x.
    """

    def __init__(
        self, width: int, out: int, num_heads: int, strides: dict[str, int], *, mlp_ratio: int,
        drop_path: float, pool_norm_eps: float,
    ):  # fmt: skip
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = PooledAttention(width, num_heads, strides, pool_norm_eps)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, mlp_ratio * width, out)
        self.proj = nn.Linear(width, out) if out != width else None

    def forward(self, x: Tensor, grid: Grid, draws: Tensor | None) -> tuple[Tensor, Grid]:
        """draws (B, 2): of the attention, then of the MLP."""
        first, second = (None, None) if draws is None else draws.unbind(1)
        attended = self.attn(self.norm1(x), grid)
        x, grid = self._shortcut(x, grid)
        x = x + drop_path(attended, self.drop_path, training=self.training, draws=first)
        normed = self.norm2(x)
        if self.proj is not None:
            x = self.proj(normed)
        branch = self.mlp(normed)
        return x + drop_path(branch, self.drop_path, training=self.training, draws=second), grid

    def _shortcut(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        if "q" not in self.attn.strides:
            return x, grid
        volume = x[:, 1:].transpose(1, 2).unflatten(2, grid)
        volume = F.max_pool3d(volume, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        tokens = volume.flatten(2).transpose(1, 2)
        return torch.cat([x[:, :1], tokens], dim=1), tuple(volume.shape[2:])
