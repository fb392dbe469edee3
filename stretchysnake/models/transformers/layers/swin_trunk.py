"""The trunk of Video Swin and Omnivore: stem, blocks in shifted windows, merging of patches (Liu et al. 2022).

B batch, T frames, H W pixels, P patch size, (t, h, w) token grid, C width, N tokens of a window, n windows.
config is a SwinSizes everywhere.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.models.drop_path import drop_path, growing_rates
from stretchysnake.models.flexible_embedding import ResizedWeights, check_clip
from stretchysnake.models.resample import resize_patch_kernel
from stretchysnake.models.transformers.layers.attention import Mlp
from stretchysnake.models.transformers.layers.windows import (
    WindowAttention,
    cut_windows,
    fitting_window,
    join_windows,
    padded_grid,
    relative_index,
    shift_mask,
)


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
        self.mlp = Mlp(width, hidden_width(width, config.mlp_ratio))

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
    """Stem, layers and final norm, under the official names.

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


def hidden_width(width: int, ratio: float) -> int:
    """Of an MLP; a ratio read from shapes (85 / 96) gives them again."""
    return int(width * ratio + 1e-6)
