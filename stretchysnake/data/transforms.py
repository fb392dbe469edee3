"""Pixels of a clip: resize, crop, flip, normalise. One draw serves all frames of a clip.

Frames are uint8 tensors (T, H, W, 3), as decoders give them; models get float32 (3, T, H, W).
Nothing flips by default: in several data sets left and right are the label.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Box(NamedTuple):
    """A rectangle of a frame in pixels."""

    top: int
    left: int
    height: int
    width: int


def resize_frames(frames: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Return uint8 frames (..., H, W, 3) resized to `size` (one int: a square), bilinear with antialiasing."""
    height, width = (size, size) if isinstance(size, int) else size
    if frames.shape[-3:-1] == (height, width):
        return frames
    leading = frames.shape[:-3]
    planes = frames.reshape(-1, *frames.shape[-3:]).permute(
        0, 3, 1, 2
    )  # (N, 3, H, W), channels last in memory
    planes = F.interpolate(
        planes, (height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return planes.permute(0, 2, 3, 1).reshape(*leading, height, width, 3)


def normalise(frames: Tensor, *, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> Tensor:
    """Return float32 (..., 3, T, H, W) from uint8 (..., T, H, W, 3), scaled to [0, 1] and standardised per channel."""
    num_leading = frames.ndim - 4
    order = (*range(num_leading), frames.ndim - 1, *range(num_leading, frames.ndim - 1))
    video = frames.permute(order).to(torch.float32, memory_format=torch.contiguous_format)
    scale = torch.tensor([1 / (255 * s) for s in std]).view(3, 1, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(3, 1, 1, 1)
    return video.mul_(scale).add_(shift)


def random_box(
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.6, 1.0),
    ratio: tuple[float, float] = (0.8, 1.25),
) -> Box:
    """Draw a rectangle covering a `scale` share of the area with a width/height ratio log-uniform in `ratio`.

    A draw that does not fit is clamped to the frame, so exactly four random numbers are used, always.
    """
    area, aspect, top, left = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    pixels = height * width * (scale[0] + area * (scale[1] - scale[0]))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = math.exp(low + aspect * (high - low))
    box_height = min(height, max(1, round(math.sqrt(pixels / aspect))))
    box_width = min(width, max(1, round(math.sqrt(pixels * aspect))))
    return Box(
        int(top * (height - box_height + 1)),
        int(left * (width - box_width + 1)),
        box_height,
        box_width,
    )


def crop_resize(frames: Tensor, box: Box, size: int | tuple[int, int]) -> Tensor:
    """Return the same rectangle of every frame (T, H, W, 3), resized to `size`."""
    top, left, height, width = box
    return resize_frames(frames[..., top : top + height, left : left + width, :], size)


def flip_frames(frames: Tensor) -> Tensor:
    """Return frames (..., H, W, 3) mirrored left to right."""
    return frames.flip(-2)
