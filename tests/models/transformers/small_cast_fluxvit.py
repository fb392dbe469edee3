"""A small CAST and a small FluxViT in which nothing is zero: what several test files begin with."""

import torch

from stretchysnake.models.architectures import build_model
from stretchysnake.models.transformers.cast import CASTConfig
from stretchysnake.models.transformers.fluxvit import FluxViTConfig

CAST_SMALL = CASTConfig(
    embed_dim=32, depth=2, num_heads=4, patch_size=4, image_size=12, num_frames=4, num_classes=5
)
FLUXVIT_SMALL = FluxViTConfig(
    embed_dim=32, depth=2, num_heads=2, pool_heads=4, clip_dim=24, patch_size=4, image_size=16, num_frames=6,
    num_classes=5, token_budget=None,
)  # fmt: skip


def randomised(config, *, spread: float = 0.2, seed: int = 0):
    """A model in eval mode, its fresh values moved by normal ones of this spread."""
    torch.manual_seed(seed)
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model.eval()
