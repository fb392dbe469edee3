"""FluxViT: a video transformer that reads as many tokens as it is given, or chooses them itself (Wang et al. 2025).

B batch, T frames, P patch size, h w tokens of a frame, C width, D width of the features.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from stretchysnake.flexibility import Scale, size_message
from stretchysnake.models.backbone import Tokens, check_sizes, depth_by_name
from stretchysnake.models.config import StoredSizes
from stretchysnake.models.drop_path import draws_by_block, growing_rates
from stretchysnake.models.flexible_embedding import ResizedWeights, token_grid
from stretchysnake.models.recompute import run_stage
from stretchysnake.models.transformers.layers.fluxvit_blocks import (
    AttentionPool,
    BudgetHeads,
    ChannelScale,
    FluxBlock,
    NormedPatches,
    kept_tokens,
    resize_positions,
)
from stretchysnake.models.weights.official.fluxvit import fitted, sizes_in
from stretchysnake.models.weights.published.pretrained import save_pretrained

NUM_HEADS = 3
"""Pairs of a projector and a head, one for each budget of training."""


@dataclass(frozen=True, kw_only=True)
class FluxViTConfig(StoredSizes):
    """The sizes of a FluxViT; the defaults are the base model of Kinetics-400."""

    pixel_mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    shaped: ClassVar[tuple[str, ...]] = (
        "embed_dim", "depth", "patch_size", "num_places", "mlp_width", "clip_dim", "num_classes",
    )  # fmt: skip

    architecture: str = "fluxvit"
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    patch_size: int = 14
    image_size: int = 280
    """With num_frames: what the table of positions is stored for. The published tests read 8 frames of 224 px."""
    num_frames: int = 32
    num_classes: int = 400
    """Outputs of each head; 0 leaves them out, so that logits are the features."""
    clip_dim: int = 768
    """Width of the features."""
    pool_heads: int = 16
    """Heads of the attention that pools the tokens."""
    token_budget: int | None = 2048
    """Tokens kept of a clip that has more; None keeps all."""
    output_head: int = 1
    """Which projector and head are used: 0, 1, 2 were trained with 3072, 2048 and 1024 tokens. (The official tests
    number them the other way round; where it matters, try both 0 and 2.)"""
    exact_gelu: bool = False
    """False: the tanh approximation, as published. True: what the official code computes without its fused MLP."""
    drop_path: float = 0.0
    """Rate of the last block; earlier ones grow linearly from 0."""

    def __post_init__(self):
        check_sizes(
            self, "embed_dim", "depth", "num_heads", "patch_size", "image_size", "num_frames", "clip_dim",
            "pool_heads", "mlp_width", *(() if self.token_budget is None else ("token_budget",)),
        )  # fmt: skip
        if self.image_size % self.patch_size:
            raise ValueError(size_message("image_size", self.image_size, self.patch_size))
        for name in ("num_heads", "pool_heads"):
            if self.embed_dim % getattr(self, name):
                raise ValueError(
                    f"embed_dim ({self.embed_dim}) must be a multiple of {name} ({getattr(self, name)})"
                )
        if self.output_head not in range(NUM_HEADS):
            raise ValueError(f"output_head ({self.output_head!r}) must be 0, 1 or 2")

    @property
    def mlp_width(self) -> int:
        return int(self.embed_dim * self.mlp_ratio + 1e-6)  # a ratio of shapes may be a hair short

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, h, w) of the stored table of positions."""
        side = self.image_size // self.patch_size
        return self.num_frames, side, side

    @property
    def num_places(self) -> int:
        return math.prod(self.shape)

    @property
    def feature_dim(self) -> int:
        return self.clip_dim


NAMED: dict[str, dict] = {
    "small": {"embed_dim": 384, "num_heads": 6, "num_frames": 24, "image_size": 252},
    "base": {},
}


class FluxViT(nn.Module):
    """FluxViT for any number of frames, frame size and patch size; names are those of the official checkpoints.

    Projectors and heads that output_head leaves unused, and the decoders of a training loss, are kept and not trained.
    """

    marks = (("pos_embed", "gpe_proj.depthwise_conv.weight", "clip_projector.0.norm1_q.weight"),)
    classifier = "head.1"
    save_pretrained = save_pretrained

    def __init__(self, config: FluxViTConfig):
        super().__init__()
        self.config = config
        self.classifier = f"head.{config.output_head}"
        self.checkpoint_activations = False
        width, out = config.embed_dim, config.clip_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.num_places, width))
        self.gpe_proj = ChannelScale(width, scale=1.0)
        self.patch_embed = NormedPatches(width, config.patch_size)
        self.blocks = nn.ModuleList(
            FluxBlock(config, rate) for rate in growing_rates(config.drop_path, config.depth)
        )
        self.clip_projector = nn.ModuleList(
            AttentionPool(width, config.pool_heads, out) for _ in range(NUM_HEADS)
        )
        if config.num_classes:
            self.fc_norm = nn.LayerNorm(out)
            self.head = BudgetHeads(
                self.fc_norm, config.num_classes, count=NUM_HEADS, used=config.output_head
            )
        else:
            self.head = nn.Identity()
        self.final_clip_decoder_for_projs = nn.ModuleList(
            nn.ModuleDict({"head": nn.Linear(out, out), "norm": nn.LayerNorm(out)})
            for _ in range(NUM_HEADS - 1)
        )
        self._resized = ResizedWeights()
        self._initialise()
        self._freeze_unused()

    def forward(self, video: Tensor, patch_size: int | None = None, **how) -> Tensor:
        """Class logits (B, num_classes); arguments as in `features`."""
        return self.head(self.features(video, patch_size, **how))

    def features(
        self, video: Tensor, patch_size: int | None = None, *, grid="exact", drop_draws=None
    ) -> Tensor:
        """What the projector of output_head makes of all tokens, (B, D)."""
        x, _ = self._encode(video, patch_size, grid, drop_draws)
        return self.clip_projector[self.config.output_head](x)

    def tokens(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact"
    ) -> Tokens:
        """[CLS] and patch tokens after the last block, which no norm follows; ValueError if the budget drops any."""
        x, shape = self._encode(video, patch_size, grid)
        if x.shape[1] != 1 + math.prod(shape):
            raise ValueError(
                f"token_budget ({self.config.token_budget}) leaves {x.shape[1] - 1} of {math.prod(shape)} tokens, "
                "which form no grid; use a smaller clip, or a model with token_budget=None"
            )
        return Tokens(x[:, 0], x[:, 1:].unflatten(1, shape))

    def _encode(
        self, video: Tensor, patch_size: int | None, grid: str, drop_draws: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, int, int]]:
        """All kept tokens after the last block, [CLS] first, (B, 1 + kept, C), and (T, h, w)."""
        patch = self.config.patch_size if patch_size is None else patch_size
        shape = token_grid(video, patch, grid)
        x = self._embedded(video, patch, shape)
        if drop_draws is None and self.training and self.config.drop_path:
            drop_draws = torch.rand(len(x), 2 * len(self.blocks), device=x.device)
        draws = draws_by_block(drop_draws, len(x), len(self.blocks), 2)
        for block, drawn in zip(self.blocks, draws, strict=True):
            x = run_stage(self, block, x, drawn)
        return x, shape

    def _embedded(self, video: Tensor, patch: int, shape: tuple[int, int, int]) -> Tensor:
        resized = partial(self._resized, training=self.training)
        x = self.patch_embed(video, patch, shape[1:], resized).flatten(2, 3)  # (B, T, h·w, C)
        budget, kept = self.config.token_budget, None
        if budget is not None and budget < math.prod(shape):
            kept = kept_tokens(x, budget)  # by content alone: positions come after
        table = resized(
            ("places", *shape),
            self.pos_embed,
            lambda stored: resize_positions(stored, self.config.shape, shape),
        )
        x = x.flatten(1, 2) + self.gpe_proj(table[:, 1:])
        if kept is not None:
            x = x.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        cls = (self.cls_token + table[:, :1]).to(x.dtype).expand(len(x), -1, -1)
        return torch.cat([cls, x], dim=1)

    def num_drop_draws(self, scale: Scale) -> int:
        """Two for each block: attention, MLP."""
        return 2 * len(self.blocks)

    def stages(self) -> list[nn.Module]:
        return list(self.blocks)

    def depth_of(self, parameter: str) -> int:
        bottom = ("cls_token", "pos_embed", "gpe_proj.", "patch_embed.")
        return depth_by_name(self, parameter, bottom=bottom)

    def undecayed(self) -> tuple[str, ...]:
        return "cls_token", "pos_embed"

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> FluxViTConfig:
        return FluxViTConfig(**{**sizes_in(state), **changes})

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        return fitted(state, self)

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def _freeze_unused(self) -> None:
        """No gradient reaches these, and a training on several ranks waits for the gradient of every parameter."""
        used = self.config.output_head
        idle = [pool for i, pool in enumerate(self.clip_projector) if i != used]
        idle += [h for i, h in enumerate(self.head.children()) if i != used]
        for module in (*idle, self.final_clip_decoder_for_projs):
            module.requires_grad_(False)
