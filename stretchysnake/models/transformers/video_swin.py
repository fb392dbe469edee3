"""Video Swin: attention in shifted 3-D windows, for any number of frames and frame size (Liu et al. 2022).

B batch, T frames, H W pixels, P patch size, (t, h, w) token grid, C width.
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
class VideoSwinConfig(SwinSizes):
    """The published base model, trained on Kinetics-400; a Swin of the same form has these fields too."""

    architecture: str = "video_swin"
    pixel_mean: ClassVar[tuple[float, float, float]] = (123.675 / 255, 116.28 / 255, 103.53 / 255)
    pixel_std: ClassVar[tuple[float, float, float]] = (58.395 / 255, 57.12 / 255, 57.375 / 255)


NAMED: dict[str, dict] = {
    # drop path of the sizes: Liu et al. 2022, section 4.1
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path": 0.1},
    "small": {"embed_dim": 96, "num_heads": (3, 6, 12, 24), "drop_path": 0.2},
    "base": {},
}  # fmt: skip


class VideoSwin(SwinBackbone):
    """The backbone and its linear head; parameter names are those of the official files."""

    marks = (
        ("backbone.patch_embed.proj.weight", "backbone.layers.0.blocks.0.attn.relative_position_bias_table"),
        ("patch_embed.proj.weight", "features.0.0.attn.relative_position_bias_table"),
    )  # fmt: skip
    classifier = "cls_head.fc_cls"
    save_pretrained = save_pretrained
    trunk_name = "backbone"

    def __init__(self, config: VideoSwinConfig):
        super().__init__(config)
        self.cls_head = nn.ModuleDict({"fc_cls": swin_head(config)})

    @property
    def head(self) -> nn.Module:
        return self.cls_head["fc_cls"]

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> VideoSwinConfig:
        sizes = swin_sizes(_named(state), "backbone.", cls.classifier, changes)
        # what shapes do not say (drop path) is that of the published size of these shapes
        named = next(size for size in NAMED.values() if size.items() <= {**size, **sizes}.items())
        return config_from_dict({"architecture": "video_swin", **named, **sizes, **changes})

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
