"""Omnivore's path for video: Video Swin's trunk with a longer window, and its head for video (Girdhar et al. 2022).

B batch, T frames, H W pixels, P patch size, (t, h, w) token grid, C width.

Of the published file the stem for depth and the heads for images and RGB-D are left out: no video reaches them, so
that their parameters would never see a gradient.
"""

import re
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import config_from_dict
from stretchysnake.models.backbone import Tokens, run_stage
from stretchysnake.models.transformers.layers.windows import SwinTrunk, bias_rows, mlp_width
from stretchysnake.models.transformers.video_swin import SHAPED, check_swin, swin_head
from stretchysnake.models.weights.swin import fit_trunk, swin_sizes


@dataclass(frozen=True, kw_only=True)
class OmnivoreConfig:
    """The published base model; fields as in VideoSwinConfig."""

    architecture: str = "omnivore"
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    shaped: ClassVar[tuple[str, ...]] = SHAPED

    embed_dim: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    window_size: tuple[int, int, int] = (16, 7, 7)
    """32 frames are one window in time: attention is global in time."""
    shrunk_window: str = "official"
    patch_size: int = 4
    tubelet_size: int = 2
    num_frames: int = 32
    image_size: int = 224
    num_classes: int = 400
    """Of the head for video."""
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    patch_norm: bool = True
    norm_eps: float = 1e-5
    dropout: float = 0.5
    drop_path: float = 0.0

    def __post_init__(self):
        check_swin(self)

    @property
    def feature_dim(self) -> int:
        return self.embed_dim * 2 ** (len(self.depths) - 1)

    @property
    def native(self) -> Scale:
        return Scale(self.num_frames, self.image_size, self.patch_size)

    @property
    def frame_multiple(self) -> int:
        return 1

    @property
    def bias_rows(self) -> int:
        return bias_rows(self.window_size)

    @property
    def hidden_width(self) -> int:
        return mlp_width(self.embed_dim, self.mlp_ratio)


NAMED: dict[str, dict] = {"base": {}}


class Omnivore(nn.Module):
    """The trunk and the head for video; parameter names are those of the official files.

    video is (B, 3, T, H, W), floating point, standardised, of any T, H, W ≥ 1 in both modes of `grid`, as in Video
    Swin; an image is one frame.
    """

    marks = (
        ("trunk.patch_embed.proj.weight", "trunk.layers.0.blocks.0.attn.relative_position_bias_table"),
    )  # fmt: skip
    classifier = "heads.video.1"

    def __init__(self, config: OmnivoreConfig):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        self.trunk = SwinTrunk(config)
        # the official head is a dropout (0) and a linear layer (1)
        self.heads = nn.ModuleDict({"video": nn.Sequential(nn.Identity(), swin_head(config))})

    @property
    def head(self) -> nn.Module:
        return self.heads["video"][1]

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
        x = self.trunk(video, patch_size, grid=grid, drop_draws=drop_draws, run=run)
        return x.mean((1, 2, 3))

    def tokens(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact"
    ) -> Tokens:
        """The tokens after the final norm."""
        run = partial(run_stage, self)
        return Tokens(None, self.trunk(video, patch_size, grid=grid, drop_draws=None, run=run))

    def num_drop_draws(self, scale: Scale) -> int:
        """Two for each block, whatever the scale."""
        return 2 * len(self.stages())

    def stages(self) -> list[nn.Module]:
        return self.trunk.blocks()

    def depth_of(self, parameter: str) -> int:
        trunk, _, inside = parameter.partition(".")
        return self.trunk.depth_of(inside) if trunk == "trunk" else len(self.stages()) + 1

    def undecayed(self) -> tuple[str, ...]:
        return ("relative_position_bias_table",)

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> OmnivoreConfig:
        found = swin_sizes(_named(state), "trunk.", cls.classifier, changes)
        return config_from_dict({"architecture": "omnivore", **found, **changes})

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        state, notes = _named(state), []
        for beginning, what in (
            ("trunk.depth_patch_embed.", "stem for depth"),
            ("heads.image.", "head for images"),
            ("heads.rgbd.", "head for RGB-D"),
        ):
            names = [name for name in state if name.startswith(beginning)]
            for name in names:
                del state[name]
            if names:
                notes.append(f"{what} left out: it takes no part in video")
        return state, [*notes, *fit_trunk(state, "trunk.", self.config)]


def _named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The only head of the EPIC-Kitchens file, heads.1, under the name of the head for video."""
    if any(name.startswith("heads.video.") for name in state):
        return dict(state)
    return {re.sub(r"^heads\.1\.", "heads.video.1.", name): part for name, part in state.items()}
