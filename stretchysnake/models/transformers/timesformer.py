"""TimeSformer with divided space-time attention, for any number of frames, frame size and patch size.

Bertasius et al. 2021. B batch, T frames, H W pixels, P patch size, h = H/P, w = W/P, N = h·w patches of a frame,
C width.
"""

import re
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.flexibility import Scale, size_message
from stretchysnake.models.architectures import config_from_dict
from stretchysnake.models.backbone import Tokens, check_sizes, depth_by_name
from stretchysnake.models.config import StoredSizes, check_patch_resize
from stretchysnake.models.drop_path import draws_by_block, growing_rates
from stretchysnake.models.flexible_embedding import (
    Flexed,
    ResizedWeights,
    fit_flexed,
    flexed_stem,
    token_grid,
)
from stretchysnake.models.recompute import run_stage
from stretchysnake.models.resample import native_grid, resize_table
from stretchysnake.models.transformers.layers.attention import initialise_linears
from stretchysnake.models.transformers.layers.divided_attention import DividedBlock
from stretchysnake.models.weights.published.pretrained import save_pretrained

STEM = "patch_embed.proj.weight"
TABLE_RESIZES = {"paper": ("bicubic", "linear"), "nearest": ("nearest", "nearest")}
"""How tables are resized in space and in time."""


@dataclass(frozen=True, kw_only=True)
class TimeSformerConfig(StoredSizes):
    """The sizes of a TimeSformer; the defaults are the published base model of Kinetics-400, 8 frames of 224 px."""

    architecture: str = "timesformer"
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.45, 0.45, 0.45)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.225, 0.225, 0.225)
    shaped: ClassVar[tuple[str, ...]] = (
        "embed_dim", "depth", "mlp_width", "qkv_bias", "patch_size", "image_size", "num_frames", "num_classes",
    )  # fmt: skip

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    patch_size: int = 16
    image_size: int = 224
    num_frames: int = 8
    num_classes: int = 400
    """Outputs of the head; 0 leaves the head out, so that logits are the features."""
    drop_path: float = 0.1
    """Rate of the last block; earlier ones grow linearly from 0. Locations and frames are dropped each for itself."""
    patch_resize: str = "bicubic"
    """How the patch kernel is resized: "bicubic" (paper), "area" or "pi"."""
    table_resize: str = "paper"
    """How the tables are resized: "paper" is bicubic in space and linear in time, "nearest" what the official code does
    (features then move by 20 to 30 % where the paper's rule would have moved them otherwise)."""

    def __post_init__(self):
        check_sizes(
            self, "embed_dim", "depth", "num_heads", "mlp_width", "patch_size", "image_size", "num_frames"
        )  # fmt: skip
        if self.embed_dim % self.num_heads:
            rule = f"must be a multiple of num_heads ({self.num_heads})"
            raise ValueError(f"embed_dim ({self.embed_dim}) {rule}")
        if self.image_size % self.patch_size:
            raise ValueError(size_message("image_size", self.image_size, self.patch_size))
        check_patch_resize(self)
        if (mode := self.table_resize) not in TABLE_RESIZES:
            raise ValueError(f"table_resize ({mode!r}) must be one of: {', '.join(TABLE_RESIZES)}")

    @property
    def mlp_width(self) -> int:
        """Hidden channels of the MLP; a ratio that was found as width / embed_dim gives that width again."""
        return int(self.embed_dim * self.mlp_ratio + 1e-6)

    @property
    def feature_dim(self) -> int:
        return self.embed_dim


NAMED: dict[str, dict] = {
    "base": {},
    "hr": {"num_frames": 16, "image_size": 448},
    "large": {"num_frames": 96},
    # Width, patch and drop path of nano VideoMamba.
    "nano": {
        "embed_dim": 64, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0, "patch_size": 8, "image_size": 32,
        "drop_path": 0.0,
    },
}  # fmt: skip


class TimeSformer(nn.Module):
    """The backbone and its linear head; parameter names are those of the official files behind their `model.`.

    `pos_embed` is added per frame ([CLS] takes row 0), then `time_embed` to every patch of its frame. H and W must be
    multiples of the patch, or `grid="floor"` leaves the rest unused; T is any. video is cast to the weights' dtype.
    """

    marks = (("blocks.0.temporal_attn.qkv.weight", "blocks.0.temporal_fc.weight", "time_embed"),)
    classifier = "head"
    save_pretrained = save_pretrained

    def __init__(self, config: TimeSformerConfig):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        width, grid = config.embed_dim, config.native.grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        self.time_embed = nn.Parameter(torch.zeros(1, config.num_frames, width))
        stem = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size)
        self.patch_embed = nn.ModuleDict({"proj": stem})
        self.blocks = nn.ModuleList(
            DividedBlock(config, rate) for rate in growing_rates(config.drop_path, config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.head = nn.Linear(width, config.num_classes) if config.num_classes else nn.Identity()
        self._resized = ResizedWeights()
        for table in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)
        initialise_linears(self)
        for block in self.blocks:  # zero in all of them: at the start a frame is seen for itself
            nn.init.zeros_(block.temporal_fc.weight)

    def forward(self, video: Tensor, patch_size: int | None = None, **how) -> Tensor:
        """Class logits (B, num_classes); arguments as in `features`."""
        return self.head(self.features(video, patch_size, **how))

    def features(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact", drop_draws: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """The [CLS] token after the final norm, (B, C).

        drop_draws (B, depth · (N + T + 1)), block after block, each in the order of `DividedBlock`.
        """
        cls, _, _ = self._encode(video, patch_size, grid, drop_draws)
        return self.norm(cls[:, 0])

    def tokens(self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact") -> Tokens:  # fmt: skip
        """[CLS] and patch tokens after the final norm; arguments as in `features`."""
        cls, patches, (_, h, w) = self._encode(video, patch_size, grid)
        return Tokens(self.norm(cls[:, 0]), self.norm(patches).unflatten(2, (h, w)))

    def _encode(
        self, video: Tensor, patch_size: int | None, grid: str, drop_draws: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
        """[CLS] (B, 1, C) and patches (B, T, N, C) before the final norm, and (T, h, w)."""
        patch = self.config.patch_size if patch_size is None else patch_size
        shape = token_grid(video, patch, grid)
        kernel = self._weight(STEM, self.patch_embed["proj"].weight.unsqueeze(2), patch, patch)
        video, bias = video.to(kernel.dtype), self.patch_embed["proj"].bias
        x = F.conv3d(video, kernel, bias, stride=(1, patch, patch))  # (B, C, T, h, w)
        positions = self._weight("pos_embed", self.pos_embed, *shape[1:])
        frames = self._weight("time_embed", self.time_embed, shape[0])
        patches = x.flatten(3).permute(0, 2, 3, 1)  # (B, T, N, C)
        patches = patches + positions[:, 1:].unsqueeze(1) + frames.unsqueeze(2)
        cls = (self.cls_token + positions[:, :1]).expand(x.shape[0], -1, -1)
        each = shape[0] + shape[1] * shape[2] + 1
        # drawn for a square of as many places or more
        if drop_draws is not None and shape[1] != shape[2]:
            drop_draws = drop_draws[:, : each * len(self.blocks)]
        drawn = draws_by_block(drop_draws, len(patches), len(self.blocks), each)
        for block, draws in zip(self.blocks, drawn, strict=True):
            cls, patches = run_stage(self, block, cls, patches, draws)
        return cls, patches, shape

    def _weight(self, name: str, stored: Tensor, *size: int) -> Tensor:
        """The stored weight at this size, remembered while no gradient can flow."""
        resize = partial(_flexed(self.config)[name].resize, size=size)
        return self._resized((name, *size), stored, resize, training=self.training)

    def num_drop_draws(self, scale: Scale) -> int:
        return len(self.blocks) * (scale.grid**2 + scale.num_frames + 1)

    def stages(self) -> list[nn.Module]:
        return list(self.blocks)

    def depth_of(self, parameter: str) -> int:
        bottom = ("patch_embed.", "cls_token", "pos_embed", "time_embed")
        return depth_by_name(self, parameter, bottom=bottom)

    def undecayed(self) -> tuple[str, ...]:
        return "cls_token", "pos_embed", "time_embed"

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> TimeSformerConfig:
        """Of official names behind their `model.`; the number of heads is not in the shapes: C / 64, as published."""
        needed = (
            STEM,
            "pos_embed",
            "time_embed",
            "blocks.0.temporal_fc.weight",
            "blocks.0.mlp.fc1.weight",
        )
        missing = [name for name in needed if name not in state]
        if missing:
            raise ValueError(f"these are not TimeSformer weights: {', '.join(missing)} missing")
        width, patch = state[STEM].shape[0], state[STEM].shape[-1]
        numbers = [int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))]
        heads = next(n for n in range(max(1, width // 64), 0, -1) if width % n == 0)
        mlp, classes = state["blocks.0.mlp.fc1.weight"].shape[0], state.get("head.weight", ())
        sizes = {
            "embed_dim": width, "depth": 1 + max(numbers), "num_heads": heads, "mlp_ratio": mlp / width,
            "qkv_bias": "blocks.0.attn.qkv.bias" in state, "patch_size": patch, "num_classes": len(classes),
            "image_size": native_grid(state["pos_embed"]) * patch, "num_frames": state["time_embed"].shape[1],
        }  # fmt: skip
        return config_from_dict({"architecture": "timesformer", **sizes, **changes})

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Stem and tables resized to the config's sizes."""
        state = dict(state)
        return state, fit_flexed(state, self.state_dict(), _flexed(self.config))


def _flexed(config: TimeSformerConfig) -> dict[str, Flexed]:
    """What follows the input: the stem, E_pos over a grid (h, w) with [CLS]'s row 0, E_temp over (T,) frames."""
    space, time = TABLE_RESIZES[config.table_resize]

    def positions(table: Tensor, size: tuple[int, ...]) -> Tensor:
        if (native := (native_grid(table),) * 2) == size:
            return table
        rows = resize_table(table[:, 1:], native, size, mode=space)
        return torch.cat([table[:, :1], rows], dim=1)

    def frames(table: Tensor, size: tuple[int, ...]) -> Tensor:
        mode = "bilinear" if time == "linear" else time  # over one column
        return resize_table(table, (table.shape[1], 1), (*size, 1), mode=mode)

    return {
        STEM: flexed_stem(config.patch_resize),
        "pos_embed": Flexed("spatial positions", space, lambda table: (native_grid(table),) * 2, positions),
        "time_embed": Flexed("temporal positions", time, lambda table: table.shape[1:2], frames),
    }  # fmt: skip
