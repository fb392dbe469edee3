"""Hiera, a hierarchical vision transformer without bells and whistles, for any T, frame size and patch size
(Ryali et al. 2023).

B batch, T frames, H W pixels, P patch size (the stem's stride), N = t·h·w tokens, C width. A mask unit is 8 x 8 tokens
of one time (2 to the number of stages less one, for others); H and W must fill whole ones.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from stretchysnake.flexibility import Scale
from stretchysnake.models.backbone import Tokens, check_sizes, depth_by_name
from stretchysnake.models.config import StoredSizes
from stretchysnake.models.drop_path import growing_rates
from stretchysnake.models.flexible_embedding import check_clip, token_grid
from stretchysnake.models.recompute import run_stage
from stretchysnake.models.transformers.layers.mask_unit_attention import (
    Block,
    check_units,
    rerolled,
    unrolled,
)
from stretchysnake.models.transformers.layers.separable_stem import (
    PatchEmbed,
    ProjectedHead,
    check_stem,
    embed,
    initialise,
)
from stretchysnake.models.weights.official.hiera import fitted, sizes_of
from stretchysnake.models.weights.published.pretrained import save_pretrained


@dataclass(frozen=True, kw_only=True)
class HieraConfig(StoredSizes):
    """The sizes of a Hiera; the defaults are hiera_base_16x224."""

    architecture: str = "hiera"
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
    patch_resize: str = "bicubic"

    def __post_init__(self):
        check_sizes(
            self, "embed_dim", "num_heads", "mlp_ratio", "tubelet_size", "patch_size", "image_size", "num_frames"
        )  # fmt: skip
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"depths ({self.depths}) must be a positive integer for each stage")
        if len(self.mask_units) != len(self.depths):
            raise ValueError(
                f"mask_units ({self.mask_units}) must say True or False for each of the {len(self.depths)} stages"
            )
        if not 0 <= self.num_poolings < len(self.depths):
            raise ValueError(
                f"num_poolings ({self.num_poolings}) must be from 0 to {len(self.depths) - 1}, one less than the stages"
            )
        check_stem(self, self.image_size, self.image_width)
        for name, tokens in zip(("image_size", "image_width"), self.table_grid, strict=True):
            check_units(name, tokens * self.patch_size, self.patch_size, self.unit_side)

    @property
    def feature_dim(self) -> int:
        return self.embed_dim * 2 ** (len(self.depths) - 1)

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


class Hiera(nn.Module):
    """The backbone and its linear head; parameter names are the official ones. There is no [CLS]."""

    marks = (
        ("pos_embed_spatial", "pos_embed_temporal", "blocks.0.attn.qkv.weight"),
    )  # all of them MViT's too, whose marks are more
    classifier = "head.projection"
    save_pretrained = save_pretrained

    def __init__(self, config: HieraConfig):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        width, heads = config.embed_dim, config.num_heads
        self.patch_embed = PatchEmbed(width, config.tubelet_size, config.patch_size)
        self.pos_embed_spatial = nn.Parameter(torch.zeros(1, config.num_positions, width))
        self.pos_embed_temporal = nn.Parameter(
            torch.zeros(1, config.num_frames // config.tubelet_size, width)
        )
        rates = iter(growing_rates(config.drop_path, sum(config.depths)))
        self.blocks = nn.ModuleList()
        for stage, depth in enumerate(config.depths):
            for i in range(depth):
                first = stage > 0 and i == 0
                out, heads = (2 * width, 2 * heads) if first else (width, heads)
                block = Block(
                    width,
                    out,
                    heads,
                    pool=4 if first and stage <= config.num_poolings else 1,
                    # the official counter of stages moves after the first block of a stage has asked it
                    mask_units=config.mask_units[stage - 1 if first else stage],
                    mlp_ratio=config.mlp_ratio,
                    drop_path=next(rates),
                )
                self.blocks.append(block)
                width = out
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = (
            ProjectedHead(width, config.num_classes) if config.num_classes else nn.Identity()
        )
        initialise(self)

    def forward(self, video: Tensor, patch_size: int | None = None, **how) -> Tensor:
        """Class logits (B, num_classes); arguments as in `features`."""
        return self.head(self.features(video, patch_size, **how))

    def features(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact", drop_draws: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """The norm of the mean of all tokens, (B, C); drop_draws (B, 2·depth): each block's attention, then its MLP.

        T must be a multiple of the tubelet, H and W of whole mask units (8·P); `grid="floor"` leaves the rest of
        H and W unused.
        """
        x, _ = self._encode(video, patch_size, grid, drop_draws)
        return self.norm(x.mean(dim=1))

    def tokens(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact"
    ) -> Tokens:
        """The tokens of the last stage, each under the norm that `features` puts on their mean."""
        x, (t, rows, columns) = self._encode(video, patch_size, grid)
        levels = len(self.config.depths) - 1 - self.config.num_poolings
        return Tokens(None, rerolled(self.norm(x), (t, rows, columns), levels))

    def _encode(
        self, video: Tensor, patch_size: int | None, grid: str, drop_draws: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, int, int]]:
        """Tokens (B, N, C) before the final norm, and how many mask units there are in t, y and x."""
        config = self.config
        patch = config.patch_size if patch_size is None else patch_size
        check_clip(video, patch, grid)
        t, height, width = token_grid(video, 1, grid, tubelet=config.tubelet_size)
        unit = patch * config.unit_side
        if grid == "floor":
            height, width = (max(size // unit, 1) * unit for size in (height, width))
            video = video[..., :height, :width]
        for name, size in (("height", video.shape[3]), ("width", video.shape[4])):
            check_units(name, size, patch, config.unit_side)
        units = t, height // unit, width // unit
        x = unrolled(embed(self, video, patch), len(config.depths) - 1)
        for i, block in enumerate(self.blocks):
            draws = None if drop_draws is None else drop_draws[:, 2 * i : 2 * i + 2].to(x.device)
            x = run_stage(self, block, x, math.prod(units), draws)
        return x, units

    def num_drop_draws(self, scale: Scale) -> int:
        """Two for each block, whatever the scale."""
        return 2 * len(self.blocks)

    def stages(self) -> list[nn.Module]:
        return list(self.blocks)

    def depth_of(self, parameter: str) -> int:
        return depth_by_name(self, parameter, bottom=("patch_embed.", "pos_embed"))

    def undecayed(self) -> tuple[str, ...]:
        return "pos_embed_spatial", "pos_embed_temporal"

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> HieraConfig:
        return HieraConfig(**{**sizes_of(state), **changes})

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        return fitted(state, self)
