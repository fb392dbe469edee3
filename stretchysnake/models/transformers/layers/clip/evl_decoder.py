"""EVL's decoder: queries that gather frames, and what a frame takes from its neighbours.

B batch, T frames, h w tokens of a frame, N tokens attended to, C width, n heads, d head width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.models.drop_path import drop_path, growing_rates
from stretchysnake.models.flexible_embedding import ResizedWeights
from stretchysnake.models.resample import resize_table, resize_temporal_positions
from stretchysnake.models.transformers.layers.attention import (
    Mlp,
    merge_heads,
    quick_gelu,
    split_heads,
)


class CrossFrames(nn.Module):
    """What each cell gathers by its likeness to the cells of the frame before (w1) and after (w2).

    Rows of the tables are offsets of two cells in the grid, (2h - 1)(2w - 1); both start as zero.
    """

    def __init__(self, grid: tuple[int, int], width: int):
        super().__init__()
        self.w1 = nn.Parameter(torch.zeros(math.prod(offsets_of(grid)), width))
        self.w2 = nn.Parameter(torch.zeros(math.prod(offsets_of(grid)), width))

    def forward(
        self, q: Tensor, k: Tensor, tables: tuple[Tensor, Tensor], grid: tuple[int, int]
    ) -> Tensor:
        """q, k (B, T, n, h·w, d) of the patches and both tables at this grid -> (B, T, h·w, C)."""
        before = self._gathered(q[:, 1:], k[:, :-1], tables[0], grid)
        after = self._gathered(q[:, :-1], k[:, 1:], tables[1], grid)
        return F.pad(before, (0, 0, 0, 0, 1, 0)) + F.pad(after, (0, 0, 0, 0, 0, 1))

    def _gathered(self, q: Tensor, k: Tensor, table: Tensor, grid: tuple[int, int]) -> Tensor:
        likeness = (
            (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).mean(2)
        )  # (B, T - 1, cells a, cells b)
        clips = likeness.shape[:2]
        likeness = likeness.flatten(0, 1).transpose(0, 1)  # (cells a, rows, cells b)
        # one row of the grid at a time: the table spread over all pairs of cells would not fit at large grids
        rows = zip(likeness.split(grid[1]), offset_index(grid, q.device), strict=True)
        return (
            torch.cat([some @ table[index] for some, index in rows])
            .transpose(0, 1)
            .unflatten(0, clips)
        )


class DecoderAttention(nn.Module):
    """query (B, 1, C) attends to keys (B, tokens, C)."""

    def __init__(self, width: int, inner: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        q, k, v = (
            split_heads(layer(x), self.num_heads, parts=1)[0]
            for layer, x in ((self.q_proj, query), (self.k_proj, keys), (self.v_proj, keys))
        )
        return self.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))


class QuickMlp(Mlp):
    """fc2(QuickGELU(fc1 x))."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(quick_gelu(self.fc1(x)))


class DecoderLayer(nn.Module):
    """x + attn(norm1 x; norm3 frames), then x + mlp(norm2 x); draws (B, 2) decide drop path of the two."""

    def __init__(self, config, rate: float):
        super().__init__()
        width = config.embed_dim
        self.rate = rate
        self.attn = DecoderAttention(width, config.decoder_width, config.decoder_heads)
        self.mlp = QuickMlp(width, config.decoder_mlp_width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, frames: Tensor, draws: Tensor | None) -> Tensor:
        first, second = (None, None) if draws is None else draws.unbind(1)
        x = x + self._dropped(self.attn(self.norm1(x), self.norm3(frames)), first)
        return x + self._dropped(self.mlp(self.norm2(x)), second)

    def _dropped(self, x: Tensor, draws: Tensor | None) -> Tensor:
        return x if draws is None else drop_path(x, self.rate, training=self.training, draws=draws)


class Decoder(nn.Module):
    """The trained part under its official names; cls_token and all tables start as zero."""

    def __init__(self, config):
        super().__init__()
        width, count = config.embed_dim, config.decoder_depth
        self.cls_token = nn.Parameter(torch.zeros(width))
        self.decoder_layers = nn.ModuleList(
            DecoderLayer(config, rate) for rate in growing_rates(config.drop_path, count)
        )
        self.temporal_conv = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=1, groups=width) for _ in range(count)
        )
        self.temporal_pos_embed = nn.ParameterList(
            torch.zeros(config.num_frames, width) for _ in range(count)
        )
        self.cross_attention = nn.ModuleList(CrossFrames(config.grid, width) for _ in range(count))
        self.grid = config.grid
        self.resized = ResizedWeights()

    def gathered(self, i: int, x: Tensor, q: Tensor, k: Tensor, grid: tuple[int, int]) -> Tensor:
        """x (B, T, N, C) of a block and what layer i adds to it from its neighbours in time, from x, q and k alone."""
        conv = self.temporal_conv[i](x.permute(0, 2, 3, 1).flatten(0, 1))  # (B·N, C, T)
        conv = conv.unflatten(0, (x.shape[0], -1)).permute(0, 3, 1, 2)
        frames, *tables = self._tables(i, x.shape[1], grid)
        patches = self.cross_attention[i](q[..., 1:, :], k[..., 1:, :], tables, grid)
        return x + conv + frames.unsqueeze(1) + F.pad(patches, (0, 0, 1, 0))

    def _tables(self, i: int, num_frames: int, grid: tuple[int, int]) -> tuple[Tensor, ...]:
        """Positions in time (T, C), w1 and w2 at this scale."""
        before, after = offsets_of(self.grid), offsets_of(grid)
        frames = self.resized(
            ("frames", i, num_frames),
            self.temporal_pos_embed[i],
            lambda table: resize_frames(table, num_frames),
            training=self.training,
        )
        return frames, *(
            self.resized(
                (name, i, after),
                getattr(self.cross_attention[i], name),
                lambda table: resize_table(table, before, after),
                training=self.training,
            )
            for name in ("w1", "w2")
        )


def resize_frames(table: Tensor, num_frames: int) -> Tensor:
    """A table (T0, C) for another number of frames, linear; the very table where equal."""
    if table.shape[0] == num_frames:
        return table
    return resize_temporal_positions(table[None], num_frames)[0]


def offsets_of(grid: tuple[int, int]) -> tuple[int, int]:
    """How many offsets two cells can have, in height and width."""
    return 2 * grid[0] - 1, 2 * grid[1] - 1


def offset_index(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Row of the tables for cells a and b, query minus key: (h, w of a; h·w of b)."""
    high, wide = grid
    y, x = torch.arange(high, device=device), torch.arange(wide, device=device)
    rows = (y[:, None] - y + high - 1) * (2 * wide - 1)  # (h a, h b)
    columns = x[:, None] - x + wide - 1  # (w a, w b)
    return (rows[:, None, :, None] + columns[None, :, None, :]).flatten(2)
