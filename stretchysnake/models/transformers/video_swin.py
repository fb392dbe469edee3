"""Video Swin: attention in shifted 3-D windows, for any number of frames and frame size (Liu et al. 2022).

B batch, T frames, H W pixels, P patch size, (t, h, w) token grid, C width.
"""

import re
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import config_from_dict
from stretchysnake.models.backbone import Tokens, check_sizes, run_stage
from stretchysnake.models.transformers.layers.windows import SwinTrunk, bias_rows, mlp_width
from stretchysnake.models.weights.swin import fit_trunk, swin_sizes

SHAPED = (
    "embed_dim", "depths", "num_heads", "bias_rows", "patch_size", "tubelet_size", "hidden_width", "qkv_bias",
    "patch_norm",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VideoSwinConfig:
    """The published base model, trained on Kinetics-400; a Swin of the same form has these fields too."""

    architecture: str = "video_swin"
    pixel_mean: ClassVar[tuple[float, float, float]] = (123.675 / 255, 116.28 / 255, 103.53 / 255)
    pixel_std: ClassVar[tuple[float, float, float]] = (58.395 / 255, 57.12 / 255, 57.375 / 255)
    shaped: ClassVar[tuple[str, ...]] = SHAPED

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
        check_swin(self)

    @property
    def feature_dim(self) -> int:
        return self.embed_dim * 2 ** (len(self.depths) - 1)

    @property
    def native(self) -> Scale:
        """The scale of the published weights; none of them depends on T or S."""
        return Scale(self.num_frames, self.image_size, self.patch_size)

    @property
    def frame_multiple(self) -> int:
        return 1

    @property
    def bias_rows(self) -> int:
        """Rows of each table of biases: the offsets inside a window."""
        return bias_rows(self.window_size)

    @property
    def hidden_width(self) -> int:
        """Of the MLPs of the first stage."""
        return mlp_width(self.embed_dim, self.mlp_ratio)


NAMED: dict[str, dict] = {
    # drop path of the sizes: Liu et al. 2022, section 4.1
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path": 0.1},
    "small": {"embed_dim": 96, "num_heads": (3, 6, 12, 24), "drop_path": 0.2},
    "base": {},
}  # fmt: skip


def check_swin(config) -> None:
    """ValueError unless the fields of a Swin's config fit each other."""
    check_sizes(config, "embed_dim", "patch_size", "tubelet_size", "num_frames", "image_size")
    for name in ("depths", "num_heads", "window_size"):
        value = getattr(config, name)
        whole = isinstance(value, tuple) and value and all(type(v) is int and v > 0 for v in value)
        if not whole:
            raise ValueError(f"{name} ({value!r}) must be a tuple of positive integers")
    if len(config.window_size) != 3:
        raise ValueError(f"window_size ({config.window_size}) must be (time, rows, columns)")
    if len(config.num_heads) != len(config.depths):
        raise ValueError(
            f"num_heads ({config.num_heads}) must have one number for each stage of depths ({config.depths})"
        )
    for stage, heads in enumerate(config.num_heads):
        if config.embed_dim * 2**stage % heads:
            raise ValueError(
                f"num_heads ({heads}, stage {stage}) must divide its width ({config.embed_dim * 2**stage})"
            )
    if config.shrunk_window not in ("official", "geometric"):
        raise ValueError(
            f'shrunk_window ({config.shrunk_window!r}) must be "official" or "geometric"'
        )
    if not config.mlp_ratio * config.embed_dim >= 1 or not config.norm_eps > 0:
        raise ValueError(
            f"mlp_ratio ({config.mlp_ratio}) and norm_eps ({config.norm_eps}) must be positive"
        )
    if not 0.0 <= config.dropout < 1.0:
        raise ValueError(f"dropout ({config.dropout}) must be at least 0 and less than 1")


class DropoutLinear(nn.Linear):
    """A linear layer whose input is dropped out in training."""

    def __init__(self, width: int, outputs: int, dropout: float):
        super().__init__(width, outputs)
        self.dropout = dropout
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, self.dropout, self.training))


def swin_head(config) -> nn.Module:
    """(B, C) to (B, num_classes); the identity for no classes."""
    if not config.num_classes:
        return nn.Identity()
    return DropoutLinear(config.feature_dim, config.num_classes, config.dropout)


class VideoSwin(nn.Module):
    """The backbone and its linear head; parameter names are those of the official files.

    video is (B, 3, T, H, W), floating point, standardised; any T, H, W ≥ 1 in both modes of `grid`: what does not fill
    a patch, a window or a pair of tokens is padded with zeros at the end, as the official code does.
    """

    marks = (
        ("backbone.patch_embed.proj.weight", "backbone.layers.0.blocks.0.attn.relative_position_bias_table"),
        ("patch_embed.proj.weight", "features.0.0.attn.relative_position_bias_table"),
    )  # fmt: skip
    classifier = "cls_head.fc_cls"

    def __init__(self, config: VideoSwinConfig):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        self.backbone = SwinTrunk(config)
        self.cls_head = nn.ModuleDict({"fc_cls": swin_head(config)})

    @property
    def head(self) -> nn.Module:
        return self.cls_head["fc_cls"]

    def forward(
        self,
        video: Tensor,
        patch_size: int | None = None,
        *,
        grid: str = "exact",
        drop_draws: Tensor | None = None,
    ) -> Tensor:
        """Class logits (B, num_classes); arguments as in `features`."""
        return self.head(self.features(video, patch_size, grid=grid, drop_draws=drop_draws))

    def features(
        self,
        video: Tensor,
        patch_size: int | None = None,
        *,
        grid: str = "exact",
        drop_draws: Tensor | None = None,
    ) -> Tensor:
        """The mean of the tokens after the final norm, (B, C).

        drop_draws (B, 2·blocks): attention and MLP of the first block, of the second, and so on.
        """
        run = partial(run_stage, self)
        x = self.backbone(video, patch_size, grid=grid, drop_draws=drop_draws, run=run)
        return x.mean((1, 2, 3))

    def tokens(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact"
    ) -> Tokens:
        """The tokens after the final norm, 8·P pixels a side in a model of four stages."""
        run = partial(run_stage, self)
        return Tokens(None, self.backbone(video, patch_size, grid=grid, drop_draws=None, run=run))

    def num_drop_draws(self, scale: Scale) -> int:
        """Two for each block, whatever the scale."""
        return 2 * len(self.stages())

    def stages(self) -> list[nn.Module]:
        return self.backbone.blocks()

    def depth_of(self, parameter: str) -> int:
        trunk, _, inside = parameter.partition(".")
        return self.backbone.depth_of(inside) if trunk == "backbone" else len(self.stages()) + 1

    def undecayed(self) -> tuple[str, ...]:
        return ("relative_position_bias_table",)

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> VideoSwinConfig:
        found = swin_sizes(_named(state), "backbone.", cls.classifier, changes)
        # what shapes do not say (drop path) is that of the published size of these shapes
        named = next(size for size in NAMED.values() if size.items() <= {**size, **found}.items())
        return config_from_dict({"architecture": "video_swin", **named, **found, **changes})

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        state = _named(state)
        return state, fit_trunk(state, "backbone.", self.config)


def _named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official names for those of torchvision, and for the official ones that lost their `backbone.`."""
    named = {_official(name): tensor for name, tensor in state.items()}
    if len(named) != len(state):
        raise ValueError(
            "weights hold one tensor under two names, official and torchvision's; give one of them"
        )
    return named


def _official(name: str) -> str:
    if match := re.fullmatch(r"features\.(\d+)\.(.+)", name):
        stage, odd = divmod(int(match[1]), 2)
        rest = re.sub(r"^(\d+)\.mlp\.3\.", r"\1.mlp.fc2.", match[2])
        rest = re.sub(r"^(\d+)\.mlp\.0\.", r"\1.mlp.fc1.", rest)
        return f"backbone.layers.{stage}.{'downsample' if odd else 'blocks'}.{rest}"
    if name.startswith(("patch_embed.", "layers.", "norm.")):
        return f"backbone.{name}"
    return re.sub(r"^head\.", "cls_head.fc_cls.", name)
