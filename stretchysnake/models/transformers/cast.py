"""CAST: CLIP's image model and VideoMAE's video model side by side, meeting in every block (Lee et al. 2023).

B batch, T frames, P patch size, t = T / 2, h w tokens of a frame, N = h·w, C width.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from stretchysnake.flexibility import Scale, size_message
from stretchysnake.models.backbone import Tokens, check_sizes, depth_by_name
from stretchysnake.models.config import StoredSizes
from stretchysnake.models.drop_path import draws_by_block, growing_rates
from stretchysnake.models.flexible_embedding import ResizedWeights, token_grid
from stretchysnake.models.recompute import run_stage
from stretchysnake.models.resample import resize_volume
from stretchysnake.models.transformers.layers.cast_blocks import (
    BRANCHES,
    VMAE_EPS,
    Adapter,
    CASTBlock,
    NounVerbHead,
)
from stretchysnake.models.transformers.layers.cast_stems import TUBELET, embedded, sine_table
from stretchysnake.models.weights.official.cast import fitted, sizes_in, stored_shape
from stretchysnake.models.weights.published.pretrained import save_pretrained

TRAINED = ("Adapter", "cross", "clip_ln_post", "vmae_fc_norm", "head")
"""Parts of the names of what the official training leaves free."""


@dataclass(frozen=True, kw_only=True)
class CASTConfig(StoredSizes):
    """The sizes of a CAST; the defaults are B/16 of Kinetics-400."""

    pixel_mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    shaped: ClassVar[tuple[str, ...]] = (
        "embed_dim", "depth", "patch_size", "image_size", "num_frames", "cross_width", "mlp_width", "qkv_bias",
        "composition", "outputs",
    )  # fmt: skip

    architecture: str = "cast"
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    """Of the attention in each path and between the paths."""
    mlp_ratio: float = 4.0
    """Of VideoMAE's MLPs; CLIP's are always four times the width."""
    down_ratio: int = 2
    """Width of a path over the width in which the paths meet."""
    qkv_bias: bool = True
    """Whether queries and values of VideoMAE's path have a bias."""
    patch_size: int = 16
    image_size: int = 224
    num_frames: int = 16
    num_classes: int = 400
    """Outputs of the head, or of both heads; 0 leaves them out, so that logits are the features."""
    sine_shape: tuple[int, int, int] | None = None
    """(t, h, w) that the fixed table of VideoMAE's path is computed for and then interpolated from; None: the config's
    own. A file that is loaded at another size sets it."""
    composition: bool = False
    """True: nouns are told from CLIP's path, verbs from VideoMAE's (EPIC-Kitchens). Features are both vectors, one
    after the other, (B, 2C); logits are those of the nouns, then those of the verbs."""
    num_verbs: int = 97
    """With composition: how many of the num_classes, the last ones, are verbs."""
    drop_path: float = 0.0
    """Rate of the last block; earlier ones grow linearly from 0."""
    frozen: bool = False
    """True trains only what was added to CLIP and VideoMAE, the last norms and the head."""

    def __post_init__(self):
        check_sizes(
            self, "embed_dim", "depth", "num_heads", "down_ratio", "patch_size", "image_size", "num_frames",
            "num_verbs", "mlp_width",
        )  # fmt: skip
        if self.image_size % self.patch_size:
            raise ValueError(size_message("image_size", self.image_size, self.patch_size))
        if self.num_frames % TUBELET:
            near = f"{max(self.num_frames - 1, 2)}, {self.num_frames + 1}"
            raise ValueError(f"num_frames ({self.num_frames}) must be even; nearest: {near}")
        if self.embed_dim % 4:
            raise ValueError(f"embed_dim ({self.embed_dim}) must be a multiple of 4 (adapters)")
        if self.embed_dim % (self.down_ratio * self.num_heads):
            raise ValueError(
                f"embed_dim ({self.embed_dim}) must be a multiple of down_ratio · num_heads "
                f"({self.down_ratio} · {self.num_heads})"
            )
        if self.composition and 0 < self.num_classes <= self.num_verbs:
            raise ValueError(
                f"num_classes ({self.num_classes}) must be more than num_verbs ({self.num_verbs}): nouns, then verbs"
            )

    @property
    def cross_width(self) -> int:
        return self.embed_dim // self.down_ratio

    @property
    def mlp_width(self) -> int:
        return int(self.embed_dim * self.mlp_ratio + 1e-6)  # a ratio of shapes may be a hair short

    @property
    def outputs(self) -> tuple[int, ...]:
        """Of each head: (nouns, verbs) with composition, else (classes,); () for none."""
        if self.num_classes == 0:
            return ()
        if self.composition:
            return self.num_classes - self.num_verbs, self.num_verbs
        return (self.num_classes,)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(t, h, w) of the stored tables."""
        side = self.image_size // self.patch_size
        return self.num_frames // TUBELET, side, side

    @property
    def feature_dim(self) -> int:
        return self.embed_dim * (2 if self.composition else 1)

    @property
    def frame_multiple(self) -> int:
        return TUBELET


NAMED: dict[str, dict] = {
    "base": {},
    "base-ek100": {"composition": True, "num_classes": 300 + 97},
}


class CAST(nn.Module):
    """CAST for any even number of frames, frame size and patch size; names are those of the official checkpoints."""

    marks = (
        ("clip_class_embedding", "blocks.0.t2s_cross.clip_time_pos"),
        ("blocks.0.attn.q_bias", "blocks.0.norm1.weight", "patch_embed.proj.weight"),  # VideoMAE's
    )
    classifier = "head"
    save_pretrained = save_pretrained

    def __init__(self, config: CASTConfig):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        width, patch, (_, h, w) = config.embed_dim, config.patch_size, config.shape
        self.clip_class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.clip_positional_embedding = nn.Parameter(torch.randn(1 + h * w, width) * width**-0.5)
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv3d(3, width, (TUBELET, patch, patch), stride=(TUBELET, patch, patch))}
        )
        self.clip_conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.clip_ln_pre = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            CASTBlock(config, rate) for rate in growing_rates(config.drop_path, config.depth)
        )
        self.clip_ln_post = nn.LayerNorm(width)
        self.vmae_fc_norm = nn.LayerNorm(width, eps=VMAE_EPS)
        if config.composition and config.outputs:
            nouns, verbs = config.outputs
            self.head_noun, self.head_verb = nn.Linear(width, nouns), nn.Linear(width, verbs)
            # not registered: its layers have names of their own
            self.__dict__["head"] = NounVerbHead(self.head_noun, self.head_verb)
        else:
            self.head = nn.Linear(width, *config.outputs) if config.outputs else nn.Identity()
        if not config.composition:
            self.noun_last_Adapter = Adapter(width, zero=False)
            self.verb_last_Adapter = Adapter(width, zero=False)
        # not in files: it has no parameters
        stored = config.sine_shape or config.shape
        places = resize_volume(sine_table(math.prod(stored), width), stored, config.shape)
        self.register_buffer("frame_places", places, persistent=False)
        self.resized = ResizedWeights()
        if config.frozen:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(any(part in name for part in TRAINED))

    def forward(self, video: Tensor, patch_size: int | None = None, **how) -> Tensor:
        """Class logits (B, num_classes); arguments as in `features`."""
        return self.head(self.features(video, patch_size, **how))

    def features(
        self, video: Tensor, patch_size: int | None = None, *, grid="exact", drop_draws=None
    ) -> Tensor:
        """The sum of both paths' vectors behind their last adapters, (B, C); with composition both vectors, (B, 2C)."""
        s, v = self.both(video, patch_size, grid=grid, drop_draws=drop_draws)
        if self.config.composition:
            return torch.cat([s, v], dim=-1)
        return self.noun_last_Adapter(s) + self.verb_last_Adapter(v)

    def both(
        self, video: Tensor, patch_size: int | None = None, *, grid="exact", drop_draws=None
    ) -> tuple[Tensor, Tensor]:
        """CLIP's vector and VideoMAE's, each (B, C): the mean of [CLS] over t, and of all tokens, then normed."""
        s, v = self._encode(video, patch_size, grid, drop_draws)
        return self.clip_ln_post(s[:, :, 0].mean(1)), self.vmae_fc_norm(v.flatten(1, 2).mean(1))

    def tokens(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact"
    ) -> Tokens:
        """CLIP's vector, and the patch tokens of its path after clip_ln_post."""
        s, _ = self._encode(video, patch_size, grid, None)
        h, w = (size // (patch_size or self.config.patch_size) for size in video.shape[-2:])
        patches = self.clip_ln_post(s[:, :, 1:]).unflatten(2, (h, w))
        return Tokens(self.clip_ln_post(s[:, :, 0].mean(1)), patches)

    def _encode(
        self, video: Tensor, patch_size: int | None, grid: str, drop_draws: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both paths after the last block: (B, t, 1 + N, C) and (B, t, N, C)."""
        patch = self.config.patch_size if patch_size is None else patch_size
        shape = token_grid(video, patch, grid, tubelet=TUBELET)
        s, v = embedded(self, video, patch, shape)
        if drop_draws is None and self.training and self.config.drop_path:
            drop_draws = torch.rand(len(video), BRANCHES * len(self.blocks), device=video.device)
        draws = draws_by_block(drop_draws, len(video), len(self.blocks), BRANCHES)
        for block, drawn in zip(self.blocks, draws, strict=True):
            s, v = run_stage(self, block, s, v, shape, drawn)
        return s, v

    def num_drop_draws(self, scale: Scale) -> int:
        """Six for each block (CASTBlock), whatever the scale."""
        return BRANCHES * len(self.blocks)

    def stages(self) -> list[nn.Module]:
        return list(self.blocks)

    def depth_of(self, parameter: str) -> int:
        bottom = (
            "clip_class_embedding", "clip_positional_embedding", "clip_conv1.", "clip_ln_pre.", "patch_embed.",
        )  # fmt: skip
        return depth_by_name(self, parameter, bottom=bottom)

    def undecayed(self) -> tuple[str, ...]:
        tables = ("clip_time_pos", "vmae_time_pos", "clip_space_pos", "vmae_space_pos")
        return "clip_class_embedding", "clip_positional_embedding", *tables

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> CASTConfig:
        config, stored = CASTConfig(**{**sizes_in(state), **changes}), stored_shape(state)
        if stored in (None, config.shape) or "sine_shape" in changes:
            return config
        return replace(config, sine_shape=stored)

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        return fitted(state, self)
