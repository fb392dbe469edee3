"""What Video Swin and Omnivore share beside their trunk: fields, head, and the model around them (Liu et al. 2022).

B batch, T frames, H W pixels, P patch size, (t, h, w) token grid, C width.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.flexibility import Scale
from stretchysnake.models.backbone import Tokens, check_sizes
from stretchysnake.models.config import StoredSizes
from stretchysnake.models.recompute import run_stage
from stretchysnake.models.transformers.layers.swin_trunk import SwinTrunk, hidden_width
from stretchysnake.models.transformers.layers.windows import bias_rows


@dataclass(frozen=True, kw_only=True)
class SwinSizes(StoredSizes):
    """The fields of a Swin for video; the defaults are the published base model's, which depend on neither T nor S."""

    shaped: ClassVar[tuple[str, ...]] = (
        "embed_dim", "depths", "num_heads", "bias_rows", "patch_size", "tubelet_size", "hidden_width", "qkv_bias",
        "patch_norm",
    )  # fmt: skip

    embed_dim: int = 128
    """Width of the first stage; each merging of patches doubles it."""
    depths: tuple[int, ...] = (2, 2, 18, 2)
    """Blocks of each stage."""
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    window_size: tuple[int, int, int] = (8, 7, 7)
    """In tokens: time, rows, columns."""
    shrunk_window: str = "official"
    """Offsets of windows that a small grid shrinks: "official", as the published weights were trained and tested, or
    "geometric", the true ones. They differ where a stage's grid has fewer rows or columns than the window (the last
    stage below 224 px, at P = 4)."""
    patch_size: int = 4
    """Stride of the stem."""
    tubelet_size: int = 2
    """Frames per temporal token; clips are padded with a zero frame to a multiple."""
    num_frames: int = 32
    image_size: int = 224
    num_classes: int = 400
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    patch_norm: bool = True
    norm_eps: float = 1e-5
    dropout: float = 0.5
    """Of the features, before the head, in training."""
    drop_path: float = 0.3
    """Rate of the last block; earlier ones grow linearly from 0."""

    def __post_init__(self):
        check_sizes(self, "embed_dim", "patch_size", "tubelet_size", "num_frames", "image_size")
        for name in ("depths", "num_heads", "window_size"):
            value = getattr(self, name)
            whole = (
                isinstance(value, tuple) and value and all(type(v) is int and v > 0 for v in value)
            )
            if not whole:
                raise ValueError(f"{name} ({value!r}) must be a tuple of positive integers")
        if len(self.window_size) != 3:
            raise ValueError(f"window_size ({self.window_size}) must be (time, rows, columns)")
        if len(self.num_heads) != len(self.depths):
            raise ValueError(
                f"num_heads ({self.num_heads}) must have one number for each stage of depths ({self.depths})"
            )
        for stage, heads in enumerate(self.num_heads):
            if self.embed_dim * 2**stage % heads:
                raise ValueError(
                    f"num_heads ({heads}, stage {stage}) must divide its width ({self.embed_dim * 2**stage})"
                )
        if self.shrunk_window not in ("official", "geometric"):
            raise ValueError(
                f'shrunk_window ({self.shrunk_window!r}) must be "official" or "geometric"'
            )
        if not self.mlp_ratio * self.embed_dim >= 1 or not self.norm_eps > 0:
            raise ValueError(
                f"mlp_ratio ({self.mlp_ratio}) and norm_eps ({self.norm_eps}) must be positive"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout ({self.dropout}) must be at least 0 and less than 1")

    @property
    def feature_dim(self) -> int:
        return self.embed_dim * 2 ** (len(self.depths) - 1)

    @property
    def bias_rows(self) -> int:
        """Rows of each table of biases: the offsets inside a window."""
        return bias_rows(self.window_size)

    @property
    def hidden_width(self) -> int:
        """Of the MLPs of the first stage."""
        return hidden_width(self.embed_dim, self.mlp_ratio)


class DropoutLinear(nn.Linear):
    """A linear layer whose input is dropped out in training."""

    def __init__(self, width: int, outputs: int, dropout: float):
        super().__init__(width, outputs)
        self.dropout = dropout
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, self.dropout, self.training))


def swin_head(config: SwinSizes) -> nn.Module:
    """(B, C) to (B, num_classes); the identity for no classes."""
    if not config.num_classes:
        return nn.Identity()
    return DropoutLinear(config.feature_dim, config.num_classes, config.dropout)


class SwinBackbone(nn.Module):
    """Trunk and head under the names that an architecture's files give them.

    video is (B, 3, T, H, W), floating point, standardised; any T, H, W ≥ 1 in both modes of `grid`: what does not fill
    a patch, a window or a pair of tokens is padded with zeros at the end, as the official code does.
    """

    trunk_name: ClassVar[str]

    def __init__(self, config: SwinSizes):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        self.add_module(self.trunk_name, SwinTrunk(config))

    def forward(self, video: Tensor, patch_size: int | None = None, **how) -> Tensor:
        """Class logits (B, num_classes); arguments as in `features`."""
        return self.head(self.features(video, patch_size, **how))

    def features(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact", drop_draws: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """The mean of the tokens after the final norm, (B, C).

        drop_draws (B, 2·blocks): attention and MLP of the first block, of the second, and so on.
        """
        run = partial(run_stage, self)
        x = self._trunk(video, patch_size, grid=grid, drop_draws=drop_draws, run=run)
        return x.mean((1, 2, 3))

    def tokens(self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact") -> Tokens:  # fmt: skip
        """The tokens after the final norm, 8·P pixels a side in a model of four stages."""
        run = partial(run_stage, self)
        return Tokens(None, self._trunk(video, patch_size, grid=grid, drop_draws=None, run=run))

    @property
    def _trunk(self) -> SwinTrunk:
        return getattr(self, self.trunk_name)

    def num_drop_draws(self, scale: Scale) -> int:
        """Two for each block, whatever the scale."""
        return 2 * len(self.stages())

    def stages(self) -> list[nn.Module]:
        return self._trunk.blocks()

    def depth_of(self, parameter: str) -> int:
        first, _, inside = parameter.partition(".")
        return self._trunk.depth_of(inside) if first == self.trunk_name else len(self.stages()) + 1

    def undecayed(self) -> tuple[str, ...]:
        return ("relative_position_bias_table",)
