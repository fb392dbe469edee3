"""Attention inside shifted 3-D windows (Liu et al. 2022).

B batch, (t, h, w) token grid, C width, N tokens of a window, n windows.
A window or grid is a triple in the order time, row, column.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.models.transformers.layers.attention import merge_heads, split_heads

Triple = tuple[int, int, int]


def fitting_window(grid: Triple, window: Triple) -> tuple[Triple, Triple]:
    """(window, shift) for a grid: an axis no longer than the window is one window, and is not shifted."""
    pairs = list(zip(grid, window, strict=True))
    return tuple(min(pair) for pair in pairs), tuple(0 if g <= w else w // 2 for g, w in pairs)


def padded_grid(grid: Triple, window: Triple) -> Triple:
    """The grid with each axis rounded up to whole windows."""
    return tuple(-(-g // w) * w for g, w in zip(grid, window, strict=True))


def cut_windows(x: Tensor, window: Triple) -> Tensor:
    """(B, t, h, w, C), whole windows on each axis -> (B·n, N, C): windows and their tokens time first, column last."""
    batch, *grid, width = x.shape
    (a, b, c), (t, h, w) = window, grid
    x = x.reshape(batch, t // a, a, h // b, b, w // c, c, width)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, a * b * c, width)


def join_windows(x: Tensor, window: Triple, grid: Triple) -> Tensor:
    """(B·n, N, C) -> (B, t, h, w, C); undoes `cut_windows`."""
    (a, b, c), (t, h, w) = window, grid
    x = x.reshape(-1, t // a, h // b, w // c, a, b, c, x.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, t, h, w, x.shape[-1])


def shift_mask(grid: Triple, window: Triple, shift: Triple, device: torch.device) -> Tensor | None:
    """(n, N, N): -100 for pairs that the shift alone brought into one window, else 0; None without a shift.

    The grid is padded to whole windows and rolled by minus the shift. Tokens of the padding are not masked.
    """
    if not any(shift):
        return None
    regions = torch.zeros(1, 1, 1, device=device, dtype=torch.int64)
    for axis, (size, s) in enumerate(zip(grid, shift, strict=True)):
        # Only the last window of an axis holds what came round its end; an axis without a shift is one region.
        part = (torch.arange(size, device=device) >= size - s).long()
        regions = regions * 2 + part.view([-1 if axis == i else 1 for i in range(3)])
    regions = cut_windows(regions[None, ..., None], window)  # (n, N, 1)
    return (regions != regions.transpose(1, 2)) * -100.0


def relative_index(window: Triple, stored: Triple, shrunk: str, device: torch.device) -> Tensor:
    """(N, N): the row of a bias table of the `stored` window that query and key (query - key) of `window` read.

    Where the window is smaller than the stored one, "geometric" takes the true offsets. "official" takes the first N
    rows and columns of the stored window's index, as the published code does: true offsets only where time alone is
    shorter; else token n counts as the n-th of the stored window.
    """
    _, b, c = stored if shrunk == "official" else window
    count = torch.arange(window[0] * window[1] * window[2], device=device)
    rows = torch.zeros(1, 1, device=device, dtype=torch.int64)
    places = (count // (b * c), count // c % b, count % c)
    for place, size in zip(places, stored, strict=True):
        rows = rows * (2 * size - 1) + place[:, None] - place[None, :] + size - 1
    return rows


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows, (B·n, N, C) -> the same, with a learned bias for each offset."""

    def __init__(self, width: int, num_heads: int, window: Triple, *, qkv_bias: bool):
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros(bias_rows(window), num_heads))
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, index: Tensor, mask: Tensor | None = None) -> Tensor:
        """index (N, N), rows of the table; mask (n, N, N), added to the logits of each clip's windows."""
        q, k, v = split_heads(self.qkv(x), self.num_heads, parts=3)
        bias = self.relative_position_bias_table.T[:, index][None]  # (1, heads, N, N)
        if mask is not None:
            bias = bias + mask[:, None].to(bias.dtype)  # (n, heads, N, N)
            clips = x.shape[0] // mask.shape[0]
            bias = bias.expand(clips, *bias.shape).flatten(0, 1)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.proj(merge_heads(x))


def bias_rows(window: Triple) -> int:
    """Offsets inside a window: rows of its table of biases."""
    return math.prod(2 * size - 1 for size in window)
