"""Whether shipped weights are what they were: the features of two made clips against those stored in the table.

Shapes: B clips, T frames, S pixels, P the patch size, C features.
"""

from pathlib import Path

import torch
from torch import Tensor

from stretchysnake.models.weights.from_file import model_of
from stretchysnake.models.weights.shipped.shipped import Shipped

PROBES = ((8, 32, 8), (4, 48, 12))
"""(T, S, P) of the clips whose features are stored: the native scale, and one that resizes kernel and positions."""
LIMIT = 1e-4
"""Largest difference from the stored features, relative to the largest of them: far above the rounding of another
processor or release of torch (1e-6), far below what other weights give."""


def probe_clip(num_frames: int, size: int) -> Tensor:
    """(1, 3, T, S, S) in [-1, 1]: whole numbers, so that every machine makes the same one."""
    count = 3 * num_frames * size * size
    return ((torch.arange(count) * 7919 % 251).float() / 125 - 1).view(1, 3, num_frames, size, size)


def probe_features(file: Path) -> list[list[float]]:
    """(C) features of each clip of PROBES, in fp32 on the CPU."""
    model, _ = model_of(file)
    with torch.inference_mode():
        return [
            model.features(probe_clip(num_frames, size), patch_size=patch)[0].tolist()
            for num_frames, size, patch in PROBES
        ]


def feature_error(model: Shipped) -> float:
    """Largest difference between the features computed here and those stored, relative to the largest stored one."""
    wanted = torch.tensor(model.features)
    found = torch.tensor(probe_features(model.file))
    return float((found - wanted).abs().max() / wanted.abs().max())
