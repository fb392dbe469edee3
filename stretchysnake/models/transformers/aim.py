"""AIM: CLIP's frozen image model made a video model by adapters, one attention used over time and space (Yang 2023).

B batch, T frames, P patch size, h w tokens of a frame, N = 1 + h·w, C width.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.flexibility import Scale
from stretchysnake.models.backbone import Tokens, depth_by_name
from stretchysnake.models.drop_path import drop_path, growing_rates
from stretchysnake.models.flexible_embedding import token_grid
from stretchysnake.models.recompute import run_stage
from stretchysnake.models.resample import resize_temporal_positions
from stretchysnake.models.transformers.layers.attention import ClipBlock
from stretchysnake.models.transformers.layers.clip.tower import ClipSizes, ClipTower, draws_of
from stretchysnake.models.weights.official.clip import (
    depth_in,
    fit_tower,
    heads_of,
    needed,
    square_grid,
    start_fresh,
    visual_tower,
)
from stretchysnake.models.weights.published.pretrained import save_pretrained


@dataclass(frozen=True, kw_only=True)
class AIMConfig(ClipSizes):
    """B/16 of Kinetics-400 with 8 frames; frozen trains adapters, temporal_embedding, ln_post and head."""

    architecture: str = "aim"
    pixel_mean: ClassVar[tuple[float, float, float]] = (122.769 / 255, 116.74 / 255, 104.04 / 255)
    pixel_std: ClassVar[tuple[float, float, float]] = (68.493 / 255, 66.63 / 255, 70.321 / 255)
    exports_any_size: ClassVar[bool] = True
    shaped: ClassVar[tuple[str, ...]] = (
        "embed_dim", "depth", "patch_size", "image_size", "num_frames", "num_temporal_adapters", "num_classes",
    )  # fmt: skip

    num_temporal_adapters: int = 1
    """2 (Something-Something) has a second adapter in front of the attention over time."""
    adapter_scale: float = 0.5
    """Weight of the adapter beside the MLP."""

    def __post_init__(self):
        super().__post_init__()
        if self.num_temporal_adapters not in (1, 2):
            raise ValueError(
                f"num_temporal_adapters ({self.num_temporal_adapters!r}) must be 1 or 2"
            )


NAMED: dict[str, dict] = {
    "base": {},
    "base-16": {"num_frames": 16},
    "base-32": {"num_frames": 32},
    "base-ssv2": {"num_temporal_adapters": 2, "adapter_scale": 1.0, "num_classes": 174},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 14, "num_frames": 32},
}


class Adapter(nn.Module):
    """D_fc2(GELU(D_fc1 x)) through a quarter of the width; starts as zero."""

    def __init__(self, width: int):
        super().__init__()
        self.D_fc1 = nn.Linear(width, int(width * 0.25))
        self.D_fc2 = nn.Linear(int(width * 0.25), width)
        nn.init.zeros_(self.D_fc2.weight)
        nn.init.zeros_(self.D_fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.D_fc2(F.gelu(self.D_fc1(x)))


class AdaptedBlock(ClipBlock):
    """Attention over time, then over space by the same weights, then the MLP: (B, T, N, C) -> (B, T, N, C).

    draws (B, 3) decide drop path of these three branches in this order.
    """

    def __init__(self, config: AIMConfig, rate: float):
        super().__init__(config.embed_dim, config.num_heads)
        self.rate, self.adapter_scale = rate, config.adapter_scale
        self.MLP_Adapter = Adapter(config.embed_dim)
        self.S_Adapter = Adapter(config.embed_dim)
        self.T_Adapter = Adapter(config.embed_dim)
        if config.num_temporal_adapters == 2:
            self.T_Adapter_in = Adapter(config.embed_dim)

    def forward(self, x: Tensor, draws: Tensor | None) -> Tensor:
        x = x + self._dropped(self._over_time(x), draws, 0)
        y = self.attn(self.ln_1(x).flatten(0, 1)).view_as(x)
        x = x + self._dropped(y + self.S_Adapter(y), draws, 1)
        y = self.ln_2(x)
        return x + self._dropped(self.mlp(y) + self.adapter_scale * self.MLP_Adapter(y), draws, 2)

    def _over_time(self, x: Tensor) -> Tensor:
        """Each place of a frame, that of [CLS] too, attends to itself in the T frames."""
        y = self.ln_1(x).transpose(1, 2)  # (B, N, T, C)
        places = y.shape[:2]
        if hasattr(self, "T_Adapter_in"):
            y = y + self.T_Adapter_in(y)
        y = self.T_Adapter(self.attn(y.flatten(0, 1)))
        return y.unflatten(0, places).transpose(1, 2)

    def _dropped(self, x: Tensor, draws: Tensor | None, branch: int) -> Tensor:
        if draws is None:
            return x
        return drop_path(x, self.rate, training=self.training, draws=draws[:, branch])


class AIM(nn.Module):
    """AIM for any number of frames, frame size and patch size; names are those of the official checkpoints.

    Positions and `temporal_embedding` are added before ln_pre, the latter to every token of its frame, [CLS] too.
    """

    marks = (
        ("backbone.temporal_embedding", "backbone.transformer.resblocks.0.S_Adapter.D_fc1.weight"),
    )
    classifier = "cls_head.fc_cls"
    save_pretrained = save_pretrained

    def __init__(self, config: AIMConfig):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        width, side = config.embed_dim, config.image_size // config.patch_size
        rates = growing_rates(config.drop_path, config.depth)
        self.backbone = ClipTower(
            width,
            (side, side),
            (config.patch_size, config.patch_size),
            (AdaptedBlock(config, rate) for rate in rates),
        )
        self.backbone.temporal_embedding = nn.Parameter(torch.zeros(1, config.num_frames, width))
        self.backbone.ln_post = nn.LayerNorm(width)
        head = nn.Linear(width, config.num_classes) if config.num_classes else nn.Identity()
        self.cls_head = nn.ModuleDict({"fc_cls": head})
        if config.frozen:
            for name, parameter in self.named_parameters():
                trained = "Adapter" in name or "temporal_embedding" in name or "ln_post" in name
                parameter.requires_grad_(trained or name.startswith("cls_head."))

    @property
    def head(self) -> nn.Module:
        return self.cls_head["fc_cls"]

    def forward(self, video: Tensor, patch_size: int | None = None, **how) -> Tensor:
        """Class logits (B, num_classes); arguments as in `features`."""
        return self.head(self.features(video, patch_size, **how))

    def features(
        self, video: Tensor, patch_size: int | None = None, *, grid="exact", drop_draws=None
    ) -> Tensor:
        """The mean over T of each frame's [CLS] after ln_post, (B, C)."""
        x, _ = self._encode(video, patch_size, grid, drop_draws)
        return self.backbone.ln_post(x[:, :, 0]).mean(dim=1)

    def tokens(self, video: Tensor, patch_size: int | None = None, *, grid="exact") -> Tokens:
        """The features, and the patch tokens of all frames after ln_post."""
        x, shape = self._encode(video, patch_size, grid)
        x = self.backbone.ln_post(x)
        return Tokens(x[:, :, 0].mean(dim=1), x[:, :, 1:].unflatten(2, shape[1:]))

    def _encode(
        self, video: Tensor, patch_size: int | None, grid: str, drop_draws: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, int, int]]:
        """All tokens before ln_post, (B, T, N, C), and (T, h, w)."""
        patch = self.config.patch_size if patch_size is None else patch_size
        shape = token_grid(video, patch, grid)
        tower = self.backbone
        frames = tower.resized(
            ("frames", shape[0]),
            tower.temporal_embedding,
            lambda table: resize_temporal_positions(table, shape[0]),
            training=self.training,
        )
        x = tower.ln_pre(tower.embedded(video, (patch, patch), shape) + frames.unsqueeze(2))
        draws = draws_of(
            drop_draws, video, 3 * len(tower.blocks), rate=self.config.drop_path, training=self.training
        )  # fmt: skip
        for i, block in enumerate(tower.blocks):
            x = run_stage(self, block, x, None if draws is None else draws[:, 3 * i : 3 * i + 3])
        return x, shape

    def num_drop_draws(self, scale: Scale) -> int:
        """Three for each block: time, space, MLP."""
        return 3 * len(self.backbone.blocks)

    def stages(self) -> list[nn.Module]:
        return list(self.backbone.blocks)

    def depth_of(self, parameter: str) -> int:
        bottom = (
            "conv1.",
            "class_embedding",
            "positional_embedding",
            "temporal_embedding",
            "ln_pre.",
        )
        return depth_by_name(self, parameter, bottom=tuple(f"backbone.{name}" for name in bottom))

    def undecayed(self) -> tuple[str, ...]:
        return "class_embedding", "positional_embedding", "temporal_embedding"

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> AIMConfig:
        """From an official or our own state dict, or from CLIP's visual tower alone (then without a head)."""
        if clip := None if "backbone.temporal_embedding" in state else visual_tower(state):
            state = {f"backbone.{name}": tensor for name, tensor in clip[0].items()}
        needed(
            state, "AIM", "backbone.conv1.weight", "backbone.positional_embedding",
            *([] if clip else ["backbone.temporal_embedding"]),
        )  # fmt: skip
        width, _, _, patch = state["backbone.conv1.weight"].shape
        sizes = {
            "embed_dim": width,
            "depth": depth_in(state, "backbone.transformer.resblocks."),
            "num_heads": heads_of(width),
            "patch_size": patch,
            "image_size": square_grid(state["backbone.positional_embedding"])[0] * patch,
            "num_classes": len(state.get("cls_head.fc_cls.weight", ())),
        }
        if not clip:
            sizes["num_frames"] = state["backbone.temporal_embedding"].shape[1]
        if any(".T_Adapter_in." in name for name in state):  # published so: Something-Something
            sizes |= {"num_temporal_adapters": 2, "adapter_scale": 1.0}
        return AIMConfig(**{**sizes, **changes})

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Of an official state dict, our own, or CLIP's visual tower alone: then the adapters start fresh."""
        state, notes = dict(state), []
        if clip := None if "backbone.temporal_embedding" in state else visual_tower(state):
            state = {f"backbone.{name}": tensor for name, tensor in clip[0].items()}
            notes += clip[1]
        fit_tower(state, "backbone.", self.backbone, notes)
        if clip:
            start_fresh(state, self, notes, what="adapters and temporal_embedding")
        name, wanted = "backbone.temporal_embedding", self.config.num_frames
        frames = state.get(name)
        if frames is not None and frames.dim() == 3 and frames.shape[1] != wanted:
            notes.append(f"temporal positions {frames.shape[1]} -> {wanted} (linear)")
            state[name] = resize_temporal_positions(frames, wanted)
        return state, notes
