"""Hiera, a hierarchical vision transformer without bells and whistles, for any T, frame size and patch size
(Ryali et al. 2023).

B batch, T frames, H W pixels, P patch size (the stem's stride), N = t·h·w tokens, C width. A mask unit is 8 x 8 tokens
of one time (2 to the number of stages less one, for others); H and W must fill whole ones.
"""

import math
import re
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.flexibility import Scale
from stretchysnake.models.backbone import Tokens, check_sizes, depth_by_name, run_stage
from stretchysnake.models.drop_path import drop_path, growing_rates
from stretchysnake.models.flexible_embedding import check_clip
from stretchysnake.models.transformers.attention import Mlp
from stretchysnake.models.transformers.separable_stem import (
    PatchEmbed,
    ProjectedHead,
    check_stem,
    embed,
    fit_stem,
    initialise,
    stem_sizes,
)


@dataclass(frozen=True, kw_only=True)
class HieraConfig:
    """The sizes of a Hiera; the defaults are hiera_base_16x224."""

    architecture: ClassVar[str] = "hiera"
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.45, 0.45, 0.45)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.225, 0.225, 0.225)
    shaped: ClassVar[tuple[str, ...]] = (
        "embed_dim", "depths", "mlp_ratio", "tubelet_size", "patch_size", "num_positions", "num_frames",
        "num_classes",
    )  # fmt: skip

    embed_dim: int = 96
    """Of the first stage; doubled, as num_heads, at the first block of each other."""
    num_heads: int = 1
    depths: tuple[int, ...] = (2, 3, 16, 3)
    """Blocks of each stage."""
    num_poolings: int = 3
    """Stages after the first that begin by pooling their queries 2 x 2."""
    mask_units: tuple[bool, ...] = (True, True, False, False)
    """For each stage whether attention stays inside mask units; the first block of a stage goes by the stage before."""
    mlp_ratio: int = 4
    tubelet_size: int = 2
    """Stride of the stem in time."""
    patch_size: int = 4
    image_size: int = 224
    image_width: int = 0
    """Where the stored positions are not square; 0 is image_size, which is else the height."""
    num_frames: int = 16
    num_classes: int = 400
    drop_path: float = 0.0
    """Rate of the last block; earlier ones grow linearly from 0."""
    head_dropout: float = 0.0
    patch_resize: str = "bicubic"

    def __post_init__(self):
        check_sizes(
            self, "embed_dim", "num_heads", "mlp_ratio", "tubelet_size", "patch_size", "image_size", "num_frames"
        )  # fmt: skip
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim ({self.embed_dim}) must be a multiple of num_heads ({self.num_heads})"
            )
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"depths ({self.depths}) must be a positive integer for each stage")
        if len(self.mask_units) != len(self.depths):
            raise ValueError(
                f"mask_units ({self.mask_units}) must say True or False for each of the {len(self.depths)} stages"
            )
        if not 0 <= self.num_poolings < len(self.depths):
            raise ValueError(
                f"num_poolings ({self.num_poolings}) must be from 0 to {len(self.depths) - 1}, the stages after the first"
            )
        check_stem(self, self.image_size, self.image_width)
        for name, tokens in zip(("image_size", "image_width"), self.table_grid, strict=True):
            check_units(name, tokens * self.patch_size, self.patch_size, self.unit_side)

    @property
    def feature_dim(self) -> int:
        return self.embed_dim * 2 ** (len(self.depths) - 1)

    @property
    def native(self) -> Scale:
        """image_size stands for both sides."""
        return Scale(self.num_frames, self.image_size, self.patch_size)

    @property
    def frame_multiple(self) -> int:
        return self.tubelet_size

    @property
    def table_grid(self) -> tuple[int, int]:
        width = self.image_width or self.image_size
        return self.image_size // self.patch_size, width // self.patch_size

    @property
    def num_positions(self) -> int:
        h, w = self.table_grid
        return h * w

    @property
    def unit_side(self) -> int:
        """Tokens per side of a mask unit before the first pooling."""
        return 2 ** (len(self.depths) - 1)


NAMED: dict[str, dict] = {
    "base": {},
    "large": {"embed_dim": 144, "num_heads": 2, "depths": (2, 6, 36, 4)},
}


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


class MaskUnitAttention(nn.Module):
    """Attention inside each of `units` groups of tokens, (B, N, C) -> (B, N / pool, out).

    A token's place inside its group is the outer index, the group the inner one; the `pool` outermost quarters (4)
    of the queries are max-pooled, or none (1).
    """

    def __init__(self, width: int, out: int, num_heads: int, pool: int):
        super().__init__()
        self.num_heads, self.pool = num_heads, pool
        self.qkv = nn.Linear(width, 3 * out)
        self.proj = nn.Linear(out, out)

    def forward(self, x: Tensor, units: int) -> Tensor:
        batch = x.shape[0]
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).unflatten(1, (-1, units))
        q, k, v = qkv.permute(3, 0, 2, 4, 1, 5, 6 - 0)[:] if False else _by_unit(qkv)
        if self.pool > 1:
            q = q.unflatten(2, (self.pool, -1)).amax(dim=2)
        x = F.scaled_dot_product_attention(q, k, v)  # (B·units, heads, places, d)
        x = x.unflatten(0, (batch, units)).permute(0, 3, 1, 2, 4)  # (B, places, units, heads, d)
        return self.proj(x.flatten(3).flatten(1, 2))
