"""UniFormerV2: CLIP's tower per frame, local blocks inside it, global blocks that gather all frames (Li et al. 2022).

B batch, T frames, P patch size, t h w tokens, N = 1 + h·w, C width. No weight depends on T.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from stretchysnake.flexibility import Scale
from stretchysnake.models.backbone import Tokens, check_sizes, depth_by_name
from stretchysnake.models.drop_path import growing_rates
from stretchysnake.models.flexible_embedding import token_grid
from stretchysnake.models.recompute import run_stage
from stretchysnake.models.transformers.layers.clip.tower import (
    ClipSizes,
    ClipTower,
    draws_of,
    head_of,
)
from stretchysnake.models.transformers.layers.clip.uniformer_v2_blocks import (
    GlobalBlock,
    LocalBlock,
    on_patches,
)
from stretchysnake.models.weights.official.uniformer_v2 import fitted, sizes_in
from stretchysnake.models.weights.published.pretrained import save_pretrained


@dataclass(frozen=True, kw_only=True)
class UniFormerV2Config(ClipSizes):
    """The sizes of a UniFormerV2; the defaults are B/16 of Kinetics-400.

    No weight depends on num_frames. drop_path concerns CLIP's blocks; frozen trains the global blocks and the head.
    """

    architecture: str = "uniformer_v2"
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.45, 0.45, 0.45)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.225, 0.225, 0.225)
    shaped: ClassVar[tuple[str, ...]] = (
        "embed_dim", "depth", "patch_size", "image_size", "tubelet_size", "local_parts", "local_width",
        "num_global_layers", "global_mlp_width", "mixed", "num_classes",
    )  # fmt: skip

    tubelet_size: int = 1
    """1, or 2 (Something-Something): the stem then sees three frames around every second one."""
    local_parts: int = 0
    """Convolutions over time in each block of CLIP: 0, 1 before the attention, 2 before the MLP too."""
    local_reduction: float = 1.5
    """Their width is C // local_reduction."""
    global_layers: tuple[int, ...] = (8, 9, 10, 11)
    """After which blocks of CLIP, counted from 0, there is a global block."""
    global_heads: int = 12
    global_mlp_factor: float = 4.0
    mixed: bool = True
    """Whether features mix [CLS] of the frames with the query of the global blocks by `balance`."""
    dropout: float = 0.5
    """In the head, in front of the linear layer."""

    def __post_init__(self):
        super().__post_init__()
        check_sizes(self, "global_heads")
        self.check_multiple("global_heads")
        self.check_dropout()
        for name, allowed in (("tubelet_size", (1, 2)), ("local_parts", (0, 1, 2))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} ({getattr(self, name)!r}) must be one of: {allowed}")
        if self.num_frames % self.tubelet_size:
            raise ValueError(
                f"num_frames ({self.num_frames}) must be a multiple of tubelet_size ({self.tubelet_size})"
            )
        layers = list(self.global_layers)
        if not layers or layers != sorted(set(layers) & set(range(self.depth))):
            raise ValueError(
                f"global_layers ({self.global_layers}) must name blocks from 0 to {self.depth - 1}, "
                "each once, in their order, and at least one"
            )
        for name in ("local_reduction", "global_mlp_factor"):
            if not 0 < getattr(self, name) <= self.embed_dim:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must be above 0 and at most embed_dim ({self.embed_dim})"
                )

    @property
    def frame_multiple(self) -> int:
        return self.tubelet_size

    @property
    def local_width(self) -> int:
        return int(self.embed_dim // self.local_reduction) if self.local_parts else 0

    @property
    def num_global_layers(self) -> int:
        return len(self.global_layers)

    @property
    def global_mlp_width(self) -> int:
        return round(self.global_mlp_factor * self.embed_dim)


_LARGE = {
    "embed_dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 14, "global_layers": (20, 21, 22, 23),
    "global_heads": 16,
}  # fmt: skip
_FROZEN = {"mixed": False, "frozen": True}
NAMED: dict[str, dict] = {
    "base": {},
    "base-16": {"num_frames": 16},
    "base-ssv2": {
        "num_frames": 16, "tubelet_size": 2, "local_parts": 2, "num_classes": 174,
        "global_layers": (4, 5, 6, 7, 8, 9, 10, 11),
    },
    "base-frozen": _FROZEN,
    "large": _LARGE,
    "large-336": {**_LARGE, "image_size": 336, "num_frames": 32},
    "large-frozen": {**_LARGE, **_FROZEN},
    "large-336-frozen": {**_LARGE, **_FROZEN, "image_size": 336},
}  # fmt: skip


class UniFormerV2(ClipTower):
    """UniFormerV2 for any frame size and patch size and any T (even T where tubelet_size is 2).

    Names are those of the official checkpoints without their common "backbone.".
    """

    marks = (("transformer.temporal_cls_token", "transformer.dpe.0.weight"),)
    classifier = "transformer.proj.2"
    save_pretrained = save_pretrained

    def __init__(self, config: UniFormerV2Config):
        width, side, patch = (
            config.embed_dim,
            config.image_size // config.patch_size,
            config.patch_size,
        )
        rates = growing_rates(config.drop_path, config.depth)
        kernel = (2 * config.tubelet_size - 1, patch, patch)
        super().__init__(width, (side, side), kernel, (LocalBlock(config, rate) for rate in rates))
        self.config = config
        self.checkpoint_activations = False
        self.transformer.temporal_cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.mixed:
            self.transformer.balance = nn.Parameter(torch.zeros(width))
        self.transformer["dpe"] = nn.ModuleList(
            nn.Conv3d(width, width, 3, padding=1, groups=width) for _ in config.global_layers
        )
        for position in self.transformer["dpe"]:
            nn.init.zeros_(position.bias)
        self.transformer["dec"] = nn.ModuleList(GlobalBlock(config) for _ in config.global_layers)
        self.transformer["proj"] = head_of(config)
        if config.frozen:
            trained = (
                "transformer.dpe.",
                "transformer.dec.",
                "transformer.proj.",
                "transformer.temporal_cls",
            )
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(name.startswith((*trained, "transformer.balance")))

    @property
    def head(self) -> nn.Module:
        return self.transformer["proj"]

    def forward(self, video: Tensor, patch_size: int | None = None, **how) -> Tensor:
        """Class logits (B, num_classes); arguments as in `features`."""
        return self.head(self.features(video, patch_size, **how))

    def features(
        self, video: Tensor, patch_size: int | None = None, *, grid="exact", drop_draws=None
    ) -> Tensor:
        """The query after the last global block, mixed with the mean [CLS] of the frames, (B, C); before the head."""
        return self._encode(video, patch_size, grid, drop_draws)[0]

    def tokens(self, video: Tensor, patch_size: int | None = None, *, grid="exact") -> Tokens:
        """The features, and the patch tokens after CLIP's last block (no norm follows it)."""
        features, x, shape = self._encode(video, patch_size, grid)
        return Tokens(features, x[:, :, 1:].unflatten(2, shape[1:]))

    def _encode(
        self, video: Tensor, patch_size: int | None, grid: str, drop_draws: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
        """(features, tokens of the frames (B, t, N, C), (t, h, w))."""
        patch = self.config.patch_size if patch_size is None else patch_size
        shape = token_grid(video, patch, grid, tubelet=self.config.tubelet_size)
        x = self.ln_pre(self.embedded(video, (patch, patch), shape))
        # not expand: a view of a parameter breaks the counting of FLOPs by module without gradients
        query = self.transformer.temporal_cls_token.repeat(x.shape[0], 1, 1)
        each = 2 + self.config.local_parts
        draws = draws_of(
            drop_draws, video, each * len(self.blocks), rate=self.config.drop_path, training=self.training
        )  # fmt: skip
        places = {layer: j for j, layer in enumerate(self.config.global_layers)}
        for i, block in enumerate(self.blocks):
            part = None if draws is None else draws[:, each * i : each * (i + 1)]
            x = run_stage(self, block, x, shape[1:], part)
            if (j := places.get(i)) is not None:
                keys = on_patches(x, shape[1:], self.transformer["dpe"][j])  # x itself stays
                query = run_stage(self, self.transformer["dec"][j], query, keys.flatten(1, 2))
        features = query[:, 0]
        if self.config.mixed:
            weight = self.transformer.balance.sigmoid()
            features = (1 - weight) * features + weight * x[:, :, 0].mean(dim=1)
        return features, x, shape

    def num_drop_draws(self, scale: Scale) -> int:
        """For each block of CLIP: [local part], attention, [local part], MLP; the global blocks drop nothing."""
        return (2 + self.config.local_parts) * len(self.blocks)

    def stages(self) -> list[nn.Module]:
        """CLIP's blocks, then the global ones, which read the last of these."""
        return [*self.blocks, *self.transformer["dec"]]

    def depth_of(self, parameter: str) -> int:
        """dpe with its global block, temporal_cls_token with the first of them."""
        parameter = parameter.replace("transformer.dpe.", "transformer.dec.")
        parameter = parameter.replace("temporal_cls_token", "dec.0.temporal_cls_token")
        bottom = ("conv1.", "class_embedding", "positional_embedding", "ln_pre.")
        return depth_by_name(self, parameter, bottom=bottom)

    def undecayed(self) -> tuple[str, ...]:
        return "class_embedding", "positional_embedding", "temporal_cls_token", "balance"

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> UniFormerV2Config:
        return UniFormerV2Config(**{**sizes_in(state), **changes})

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        return fitted(state, self)
