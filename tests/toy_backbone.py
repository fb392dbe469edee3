"""The smallest backbone there can be: the mean of all patches, a layer, a head. `install` makes it one of the table."""

import sys
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import nn

from stretchysnake.flexibility import Scale
from stretchysnake.models import architectures
from stretchysnake.models.backbone import check_sizes, depth_by_name
from stretchysnake.models.flexible_embedding import token_grid
from stretchysnake.models.recompute import run_stage
from stretchysnake.models.resample import resize_patch_kernel
from stretchysnake.models.weights.published.pretrained import save_pretrained

NAMED = {"small": {"width": 8}}


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    architecture: str = "toy"
    pixel_mean: ClassVar = (0.5, 0.4, 0.3)
    pixel_std: ClassVar = (0.2, 0.25, 0.3)
    shaped: ClassVar = ("width", "patch_size", "num_classes")
    width: int = 8
    num_frames: int = 4
    image_size: int = 16
    patch_size: int = 8
    num_classes: int = 0
    drop_path: float = 0.0

    def __post_init__(self):
        check_sizes(self, "width", "num_frames", "image_size", "patch_size")

    @property
    def feature_dim(self):
        return self.width

    @property
    def native(self):
        return Scale(self.num_frames, self.image_size, self.patch_size)

    frame_multiple = 1


class Toy(nn.Module):
    marks = (("pixels.weight", "layer.weight"),)
    classifier = "head"
    save_pretrained = save_pretrained

    def __init__(self, config):
        super().__init__()
        self.config, self.checkpoint_activations = config, False
        self.pixels = nn.Conv2d(3, config.width, config.patch_size)
        self.layer = nn.Linear(config.width, config.width)
        self.head = (
            nn.Linear(config.width, config.num_classes) if config.num_classes else nn.Identity()
        )

    def forward(self, video, patch_size=None, **options):
        return self.head(self.features(video, patch_size, **options))

    def features(self, video, patch_size=None, *, grid="exact", drop_draws=None):
        patch = patch_size or self.config.patch_size
        token_grid(video, patch, grid)
        kernel = resize_patch_kernel(self.pixels.weight.unsqueeze(2), patch).squeeze(2)
        frames = video.to(kernel.dtype).transpose(1, 2).flatten(0, 1)  # (B·T, 3, H, W)
        tokens = F.conv2d(frames, kernel, self.pixels.bias, stride=patch).mean((2, 3))
        return run_stage(self, self.layer, tokens.unflatten(0, (len(video), -1)).mean(1).tanh())

    def num_drop_draws(self, scale):
        return 0

    def stages(self):
        return [self.layer]

    def depth_of(self, parameter):
        return depth_by_name(self, parameter, bottom=("pixels.",))

    def undecayed(self):
        return ()

    @classmethod
    def config_of(cls, state, **changes):
        width, _, patch, _ = state["pixels.weight"].shape
        classes = len(state["head.weight"]) if "head.weight" in state else 0
        return ToyConfig(**{"width": width, "patch_size": patch, "num_classes": classes, **changes})

    def fitted(self, state):
        return dict(state), []


def install(monkeypatch):
    """Add the toy to the table of architectures for one test."""
    monkeypatch.setitem(sys.modules, "stretchysnake.models.toy", sys.modules[__name__])
    monkeypatch.setitem(architectures.ARCHITECTURES, "toy", ("toy", "toy", "Toy"))
