"""Hiera's block, and the order of tokens that lets it pool and group them by reshaping (Ryali et al. 2023).

B batch, t h w grid, N tokens, C width. A mask unit is 2^levels tokens high and wide, of one time; there are
Y X of them in a column and a row.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.models.drop_path import drop_path
from stretchysnake.models.transformers.layers.attention import Mlp


def check_units(name: str, size: int, patch_size: int, side: int) -> None:
    """ValueError unless this many pixels are whole mask units."""
    unit = patch_size * side
    if size < unit or size % unit:
        below = size // unit * unit
        near = f"{below}, {below + unit}" if below else f"{unit}"
        raise ValueError(
            f"{name} ({size}) must be a multiple of {unit}, a mask unit of {side} patches at patch_size "
            f"({patch_size}); nearest: {near}"
        )


def unrolled(x: Tensor, levels: int) -> Tensor:
    """(B, t, h, w, C) -> (B, N, C), the place inside a mask unit as outer index, the unit (t, Y, X) as inner.

    Of the place the least significant bits of y and x are the outermost: the four quarters of the axis are then the
    four corners of every 2 x 2 square, and so on inside a quarter.
    """
    side, bits = 2**levels, [2] * levels
    batch, t, h, w, width = x.shape
    x = x.reshape(batch, t, h // side, *bits, w // side, *bits, width)
    places = [axis for k in range(levels) for axis in (2 + levels - k, 3 + 2 * levels - k)]
    return x.permute(0, *places, 1, 2, 3 + levels, 4 + 2 * levels).flatten(1, -2)


def rerolled(x: Tensor, units: tuple[int, int, int], levels: int) -> Tensor:
    """What `unrolled` undoes: (B, N, C) -> (B, t, h, w, C), of mask units 2^levels tokens high and wide."""
    t, rows, columns = units
    batch, _, width = x.shape
    x = x.reshape(batch, *[2] * (2 * levels), *units, width)
    low_last = list(reversed(range(levels)))
    first = 2 * levels + 1
    y, x_ = [1 + 2 * k for k in low_last], [2 + 2 * k for k in low_last]
    x = x.permute(0, first, first + 1, *y, first + 2, *x_, first + 3)
    return x.reshape(batch, t, rows * 2**levels, columns * 2**levels, width)


class MaskUnitAttention(nn.Module):
    """Attention among the tokens of each group, (B, N, C) -> (B, N / pool, out); tokens are in `unrolled` order.

    With pool 4, queries are max-pooled over 2 x 2 squares; keys and values never are.
    """

    def __init__(self, width: int, out: int, num_heads: int, pool: int):
        super().__init__()
        self.num_heads, self.pool = num_heads, pool
        self.qkv = nn.Linear(width, 3 * out)
        self.proj = nn.Linear(out, out)

    def forward(self, x: Tensor, groups: int) -> Tensor:
        batch = x.shape[0]
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).unflatten(1, (-1, groups))
        qkv = qkv.permute(3, 0, 2, 4, 1, 5)  # (3, B, groups, heads, places, d)
        q, k, v = qkv.flatten(1, 2).unbind(0)
        if self.pool > 1:
            q = q.unflatten(2, (self.pool, -1)).amax(dim=2)
        x = F.scaled_dot_product_attention(q, k, v).unflatten(0, (batch, groups))
        x = x.permute(0, 3, 1, 2, 4)  # (B, places, groups, heads, d)
        return self.proj(x.flatten(3).flatten(1, 2))


class Block(nn.Module):
    """x + attention, then + MLP: (B, N, C) -> (B, N / pool, out).

    Where the width changes the residual is a projection of the normed x, max-pooled as the queries are.
    """

    def __init__(
        self,
        width: int,
        out: int,
        num_heads: int,
        *,
        pool: int,
        mask_units: bool,
        mlp_ratio: int,
        drop_path: float,
    ):
        super().__init__()
        self.pool, self.mask_units, self.drop_path = pool, mask_units, drop_path
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = MaskUnitAttention(width, out, num_heads, pool)
        self.norm2 = nn.LayerNorm(out, eps=1e-6)
        self.mlp = Mlp(out, mlp_ratio * out)
        self.proj = nn.Linear(width, out) if out != width else None

    def forward(self, x: Tensor, units: int, draws: Tensor | None) -> Tensor:
        """units: of the whole clip; draws (B, 2): of the attention, then of the MLP."""
        first, second = (None, None) if draws is None else draws.unbind(1)
        normed = self.norm1(x)
        if self.proj is not None:
            x = self.proj(normed).unflatten(1, (self.pool, -1)).amax(dim=1)
        branch = self.attn(normed, units if self.mask_units else 1)
        x = x + drop_path(branch, self.drop_path, training=self.training, draws=first)
        branch = self.mlp(self.norm2(x))
        return x + drop_path(branch, self.drop_path, training=self.training, draws=second)
