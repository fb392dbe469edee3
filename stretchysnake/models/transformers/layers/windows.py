"""Attention inside shifted 3-D windows, and the trunk that Video Swin and Omnivore share (Liu et al. 2022).

B batch, T frames, H W pixels, P patch size, (t, h, w) token grid, C width, N tokens of a window, n windows.
A window or grid is a triple in the order time, row, column.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.models.drop_path import drop_path, growing_rates
from stretchysnake.models.flexible_embedding import ResizedWeights, check_clip
from stretchysnake.models.resample import resize_patch_kernel
from stretchysnake.models.transformers.layers.attention import Mlp, merge_heads, split_heads

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


class SwinBlock(nn.Module):
    """x + attention(norm1 x), then x + mlp(norm2 x); (B, t, h, w, C) -> the same."""

    def __init__(self, config, stage: int, *, shifted: bool, rate: float):
        super().__init__()
        width = config.embed_dim * 2**stage
        self.window, self.shifted, self.rate = config.window_size, shifted, rate
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.attn = WindowAttention(
            width, config.num_heads[stage], config.window_size, qkv_bias=config.qkv_bias
        )
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp = Mlp(width, mlp_width(width, config.mlp_ratio))

    def forward(
        self, x: Tensor, index: Tensor, mask: Tensor | None, draws: Tensor | None = None
    ) -> Tensor:
        """index and mask as in the attention; draws (B, 2) decide drop path of attention and MLP."""
        for_attention, for_mlp = (None, None) if draws is None else draws.unbind(1)
        drop = partial(drop_path, rate=self.rate, training=self.training)
        x = x + drop(self._attended(self.norm1(x), index, mask), draws=for_attention)
        return x + drop(self.mlp(self.norm2(x)), draws=for_mlp)

    def _attended(self, x: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
        t, h, w = grid = tuple(x.shape[1:4])
        window, shift = fitting_window(grid, self.window)
        padded = padded_grid(grid, window)
        # after the norm: the padding is zero, and as key and value what the bias of qkv makes of zero
        x = F.pad(x, (0, 0, 0, padded[2] - w, 0, padded[1] - h, 0, padded[0] - t))
        back = tuple(-s for s in shift)
        if self.shifted:
            x = x.roll(back, (1, 2, 3))
        x = self.attn(cut_windows(x, window), index, mask)
        x = join_windows(x, window, padded)
        if self.shifted:
            x = x.roll(shift, (1, 2, 3))
        return x[:, :t, :h, :w]


class PatchMerging(nn.Module):
    """2×2 tokens of a frame as one of twice the width: (B, t, h, w, C) -> (B, t, ⌈h/2⌉, ⌈w/2⌉, 2C)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=eps)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        # (row, column) of the four: 00, 10, 01, 11
        four = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(four, dim=-1)))


class Stem(nn.Module):
    """Patches without overlap, (B, 3, T, H, W) -> (B, t, h, w, C); the end of each axis is padded with zeros."""

    def __init__(self, config):
        super().__init__()
        kernel = (config.tubelet_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(3, config.embed_dim, kernel, stride=kernel)
        self.norm = (
            nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
            if config.patch_norm
            else nn.Identity()
        )
        self._resized = ResizedWeights()

    def forward(self, video: Tensor, patch: int) -> Tensor:
        weight = self._resized(
            ("patch", patch),
            self.proj.weight,
            lambda stored: resize_patch_kernel(stored, patch),
            training=self.training,
        )
        stride = tuple(weight.shape[2:])
        t, h, w = (-size % step for size, step in zip(video.shape[2:], stride, strict=True))
        video = F.pad(video.to(weight.dtype), (0, w, 0, h, 0, t))
        x = F.conv3d(video, weight, self.proj.bias, stride=stride)
        return self.norm(x.permute(0, 2, 3, 4, 1))


class SwinLayer(nn.Module):
    """The blocks of one width, and what merges their patches for the next."""

    def __init__(self, config, stage: int, rates: list[float]):
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(config, stage, shifted=bool(i % 2), rate=rate) for i, rate in enumerate(rates)
        )
        last = stage == len(config.depths) - 1
        self.downsample = (
            None if last else PatchMerging(config.embed_dim * 2**stage, config.norm_eps)
        )


class SwinTrunk(nn.Module):
    """Stem, layers and final norm, under the official names; config: a VideoSwinConfig or an OmnivoreConfig.

    Any T, H, W ≥ 1; only the patch kernel is resized, to other patch sizes.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        rates = iter(growing_rates(config.drop_path, sum(config.depths)))
        self.patch_embed = Stem(config)
        self.layers = nn.ModuleList(
            SwinLayer(config, stage, [next(rates) for _ in range(depth)])
            for stage, depth in enumerate(config.depths)
        )
        self.norm = nn.LayerNorm(config.feature_dim, eps=config.norm_eps)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, WindowAttention):
                nn.init.normal_(module.relative_position_bias_table, std=0.02)

    def forward(
        self,
        video: Tensor,
        patch_size: int | None,
        *,
        grid: str,
        drop_draws: Tensor | None,
        run: Callable,
    ) -> Tensor:
        """(B, t, h, w, C) after the final norm; `run` calls a block.

        drop_draws (B, 2·blocks): attention and MLP of the first block, of the second, and so on.
        """
        patch = self.config.patch_size if patch_size is None else patch_size
        check_clip(video, patch, grid)
        for name, size in zip(("num_frames", "height", "width"), video.shape[2:], strict=True):
            if size == 0:
                raise ValueError(f"{name} ({size}) must be positive; give a clip of at least 1")
        x = self.patch_embed(video, patch)
        blocks = sum(self.config.depths)
        drawn = iter(
            [None] * blocks
            if drop_draws is None
            else drop_draws.to(x.device).unflatten(1, (blocks, 2)).unbind(1)
        )
        for layer in self.layers:
            window, shift = fitting_window(tuple(x.shape[1:4]), self.config.window_size)
            whole = padded_grid(tuple(x.shape[1:4]), window)
            mask = shift_mask(whole, window, shift, x.device)
            index = relative_index(
                window, self.config.window_size, self.config.shrunk_window, x.device
            )
            for block in layer.blocks:
                x = run(block, x, index, mask if block.shifted else None, next(drawn))
            if layer.downsample is not None:
                x = layer.downsample(x)
        return self.norm(x)

    def blocks(self) -> list[nn.Module]:
        return [block for layer in self.layers for block in layer.blocks]

    def depth_of(self, parameter: str) -> int:
        """As a backbone's, of a name inside the trunk; patch merging belongs to the block before it."""
        first, *rest = parameter.split(".")
        if first == "layers":
            before = sum(self.config.depths[: int(rest[0])])
            inside = int(rest[2]) + 1 if rest[1] == "blocks" else self.config.depths[int(rest[0])]
            return before + inside
        return 0 if first == "patch_embed" else sum(self.config.depths) + 1


def bias_rows(window: Triple) -> int:
    """Offsets inside a window: rows of its table of biases."""
    return math.prod(2 * size - 1 for size in window)


def mlp_width(width: int, ratio: float) -> int:
    """Hidden width of an MLP; a ratio read from shapes (85 / 96) gives them again."""
    return int(width * ratio + 1e-6)
