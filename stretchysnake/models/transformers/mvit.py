"""MViT v1, multiscale vision transformers, for any number of frames, frame size and patch size (Fan et al. 2021).

B batch, T frames, H W pixels, P patch size (the stem's stride), N = t·h·w tokens beside [CLS], C width, d = C / heads.
Rounding goes up everywhere (stem, pooling), so no pixel goes unused at any size.
"""

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
from stretchysnake.models.transformers.layers.pooled_attention import Block, Grid
from stretchysnake.models.transformers.layers.separable_stem import (
    PatchEmbed,
    ProjectedHead,
    check_stem,
    embed,
    initialise,
)
from stretchysnake.models.weights.official.mvit import fitted, sizes_of
from stretchysnake.models.weights.published.pretrained import save_pretrained


@dataclass(frozen=True, kw_only=True)
class MViTConfig(StoredSizes):
    """The sizes of an MViT; the defaults are MViT-B 16x4."""

    architecture: str = "mvit"
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.45, 0.45, 0.45)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.225, 0.225, 0.225)
    shaped: ClassVar[tuple[str, ...]] = (
        "embed_dim", "depth", "num_heads", "pool_blocks", "mlp_ratio", "tubelet_size", "patch_size", "image_size",
        "num_frames", "num_classes",
    )  # fmt: skip

    embed_dim: int = 96
    """Of the first block; the head's is this doubled for each of pool_blocks."""
    depth: int = 16
    num_heads: int = 1
    """Of the first block; doubled at each of pool_blocks."""
    pool_blocks: tuple[int, ...] = (1, 3, 14)
    """Blocks that halve the grid in space, counted from 0."""
    kv_stride: int = 8
    """Stride in space of the first block's keys and values, halved at each of pool_blocks."""
    pool_unstrided: bool = True
    """Keys and values are pooled (convolved and normed) where their stride is 1, too; not so in 2021."""
    pool_norm_eps: float = 1e-6
    """Of the norms after pooling; SlowFast had 1e-5 until 2022-06-21."""
    mlp_ratio: int = 4
    tubelet_size: int = 2
    """Stride of the stem in time."""
    patch_size: int = 4
    image_size: int = 224
    num_frames: int = 16
    num_classes: int = 400
    drop_path: float = 0.0
    """Rate of the last block; earlier ones grow linearly from 0."""
    head_dropout: float = 0.0
    """Of the features before the head, in training."""
    patch_resize: str = "bicubic"

    def __post_init__(self):
        check_sizes(
            self, "embed_dim", "depth", "num_heads", "kv_stride", "mlp_ratio", "tubelet_size", "patch_size",
            "image_size", "num_frames",
        )  # fmt: skip
        if list(self.pool_blocks) != sorted(set(self.pool_blocks) & set(range(1, self.depth))):
            raise ValueError(
                f"pool_blocks ({self.pool_blocks}) must be growing numbers from 1 to depth - 1 ({self.depth - 1})"
            )
        if self.kv_stride == 1 and not self.pool_unstrided:
            raise ValueError(
                "kv_stride (1) must be at least 2, or pool_unstrided True: the first block must pool its keys"
            )
        check_stem(self, self.image_size)
        if not 0.0 <= self.head_dropout < 1.0:
            raise ValueError(
                f"head_dropout ({self.head_dropout}) must be at least 0 and less than 1"
            )

    @property
    def feature_dim(self) -> int:
        return self.embed_dim * 2 ** len(self.pool_blocks)

    @property
    def table_grid(self) -> tuple[int, int]:
        side = self.image_size // self.patch_size
        return side, side


NAMED: dict[str, dict] = {
    "base": {},
    "base-2021": {"pool_unstrided": False, "pool_norm_eps": 1e-5},
    # A stem of stride 4 leaves 8x8 at 32 px, which halves twice to 2x2, and every size of the nano study is 8·P. Nano
    # VideoMamba has as many parameters (1.00 times) and features as wide.
    "nano": {
        "embed_dim": 16, "depth": 7, "pool_blocks": (1, 5), "kv_stride": 4, "image_size": 32, "num_frames": 8,
    },
}  # fmt: skip
"""base-2021 is SlowFast's file MVIT_B_16x4 of June 2021."""


class MViT(nn.Module):
    """The backbone and its linear head; parameter names are SlowFast's. Tokens are [CLS], then t, y, x."""

    marks = (
        ("pos_embed_spatial", "pos_embed_temporal", "pos_embed_class", "blocks.0.attn.qkv.weight"),
        ("pos_embed_spatial", "pos_embed_temporal", "pos_embed_class", "blocks.0.attn.q.weight"),
        ("cls_positional_encoding.pos_embed_spatial", "patch_embed.patch_model.weight"),
        ("pos_encoding.spatial_pos", "pos_encoding.class_pos", "conv_proj.weight"),
    )
    classifier = "head.projection"
    save_pretrained = save_pretrained

    def __init__(self, config: MViTConfig):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        width, heads, stride = config.embed_dim, config.num_heads, config.kv_stride
        h, w = config.table_grid
        self.patch_embed = PatchEmbed(width, config.tubelet_size, config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed_class = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed_spatial = nn.Parameter(torch.zeros(1, h * w, width))
        self.pos_embed_temporal = nn.Parameter(
            torch.zeros(1, config.num_frames // config.tubelet_size, width)
        )
        self.blocks = nn.ModuleList()
        for i, rate in enumerate(growing_rates(config.drop_path, config.depth)):
            strides = {}
            if i in config.pool_blocks:
                heads, stride, strides["q"] = 2 * heads, max(1, stride // 2), 2
            if stride > 1 or config.pool_unstrided:
                strides |= {"k": stride, "v": stride}
            # the width doubles in the MLP of the block before that which pools
            out = 2 * width if i + 1 in config.pool_blocks else width
            self.blocks.append(
                Block(
                    width, out, heads, strides, mlp_ratio=config.mlp_ratio, drop_path=rate,
                    pool_norm_eps=config.pool_norm_eps,
                )
            )  # fmt: skip
            width = out
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = (
            ProjectedHead(width, config.num_classes, dropout=config.head_dropout)
            if config.num_classes
            else nn.Identity()
        )
        initialise(self)

    def forward(self, video: Tensor, patch_size: int | None = None, **how) -> Tensor:
        """Class logits (B, num_classes); arguments as in `features`."""
        return self.head(self.features(video, patch_size, **how))

    def features(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact", drop_draws: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """[CLS] after the final norm, (B, C); drop_draws (B, 2·depth): each block's attention, then its MLP."""
        x, _ = self._encode(video, patch_size, grid, drop_draws)
        return self.norm(x[:, 0])

    def tokens(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact"
    ) -> Tokens:
        """[CLS] and the tokens of the last stage after the final norm."""
        x, shape = self._encode(video, patch_size, grid)
        x = self.norm(x)
        return Tokens(x[:, 0], x[:, 1:].unflatten(1, shape))

    def _encode(
        self, video: Tensor, patch_size: int | None, grid: str, drop_draws: Tensor | None = None
    ) -> tuple[Tensor, Grid]:
        patch = self.config.patch_size if patch_size is None else patch_size
        check_clip(video, patch, grid)
        token_grid(video, 1, grid)  # at least one frame and one pixel
        x = embed(self, video, patch)
        shape = tuple(x.shape[1:4])
        cls = (self.cls_token + self.pos_embed_class).expand(x.shape[0], -1, -1)
        x = torch.cat([cls.to(x.dtype), x.flatten(1, 3)], dim=1)  # (B, 1 + N, C)
        for i, block in enumerate(self.blocks):
            draws = None if drop_draws is None else drop_draws[:, 2 * i : 2 * i + 2].to(x.device)
            x, shape = run_stage(self, block, x, shape, draws)
        return x, shape

    def num_drop_draws(self, scale: Scale) -> int:
        """Two for each block, whatever the scale."""
        return 2 * len(self.blocks)

    def stages(self) -> list[nn.Module]:
        return list(self.blocks)

    def depth_of(self, parameter: str) -> int:
        return depth_by_name(self, parameter, bottom=("patch_embed.", "cls_token", "pos_embed"))

    def undecayed(self) -> tuple[str, ...]:
        return "cls_token", "pos_embed_class", "pos_embed_spatial", "pos_embed_temporal"

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> MViTConfig:
        return MViTConfig(**{**sizes_of(state), **changes})

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        return fitted(state, self.config)
