"""Small AIM, EVL and UniFormerV2 (both forms), with nothing in them zero."""

import pytest
import torch

from stretchysnake.models.architectures import build_model
from stretchysnake.models.transformers.aim import AIMConfig
from stretchysnake.models.transformers.evl import EVLConfig
from stretchysnake.models.transformers.uniformer_v2 import UniFormerV2Config

TOWER = {"embed_dim": 64, "depth": 3, "num_heads": 1, "patch_size": 4, "image_size": 12}
SMALL = {
    "aim": AIMConfig(**TOWER, num_frames=4, num_classes=5),
    "evl": EVLConfig(
        **TOWER, num_frames=4, num_classes=5, decoder_depth=2, decoder_width=64, decoder_heads=1, dropout=0.0,
    ),
    "uniformer_v2": UniFormerV2Config(
        **TOWER, num_classes=5, global_layers=(1, 2), global_heads=1, dropout=0.0,
    ),
    "uniformer_v2 local": UniFormerV2Config(
        **TOWER, num_frames=16, tubelet_size=2, local_parts=2, num_classes=5, global_layers=(1, 2), global_heads=1,
        dropout=0.0,
    ),
}  # fmt: skip
each = pytest.mark.parametrize("name", SMALL)


def randomised(config, seed=0):
    """A model in which nothing is zero."""
    torch.manual_seed(seed)
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm3d):
                layer.running_mean.normal_(std=0.1)
                layer.running_var.uniform_(0.5, 2.0)
    return model.eval()


def clip_of(name: str) -> str:
    """What stands before the names of CLIP's tower."""
    return {"aim": "backbone.", "evl": "clip.visual."}.get(name, "")
