"""Omnivore's path for video: Video Swin's trunk with a longer window, and its head for video (Girdhar et al. 2022).

B batch, T frames, H W pixels, P patch size, (t, h, w) token grid, C width.

Of the published file the stem for depth and the heads for images and RGB-D are left out: no video reaches them, so
that their parameters would never see a gradient.
"""

import re
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from stretchysnake.models.architectures import config_from_dict
from stretchysnake.models.transformers.layers.swin import SwinBackbone, SwinSizes, swin_head
from stretchysnake.models.weights.official.swin import fit_trunk, swin_sizes
from stretchysnake.models.weights.published.pretrained import save_pretrained


@dataclass(frozen=True, kw_only=True)
class OmnivoreConfig(SwinSizes):
    """The published base model; num_classes are those of the head for video."""

    architecture: str = "omnivore"
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)

    window_size: tuple[int, int, int] = (16, 7, 7)
    """32 frames are one window in time: attention is global in time."""
    drop_path: float = 0.0


NAMED: dict[str, dict] = {"base": {}}


class Omnivore(SwinBackbone):
    """The trunk and the head for video; parameter names are those of the official files. An image is one frame."""

    marks = (
        ("trunk.patch_embed.proj.weight", "trunk.layers.0.blocks.0.attn.relative_position_bias_table"),
    )  # fmt: skip
    classifier = "heads.video.1"
    save_pretrained = save_pretrained
    trunk_name = "trunk"

    def __init__(self, config: OmnivoreConfig):
        super().__init__(config)
        # the official head is a dropout (0) and a linear layer (1)
        self.heads = nn.ModuleDict({"video": nn.Sequential(nn.Identity(), swin_head(config))})

    @property
    def head(self) -> nn.Module:
        return self.heads["video"][1]

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> OmnivoreConfig:
        sizes = swin_sizes(_named(state), "trunk.", cls.classifier, changes)
        return config_from_dict({"architecture": "omnivore", **sizes, **changes})

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
