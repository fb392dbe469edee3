"""Pixels of a clip: resize, crop, flip, erase, normalise; clips mixed in a batch. One draw serves all frames of a clip.

Frames are uint8 tensors (T, H, W, 3), as decoders give them; models get float32 (3, T, H, W).
Nothing flips by default: in several data sets left and right are the label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
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


RESAMPLER = "bilinear, antialiased"
"""What `resize_frames` does, of training and test alike; it is written beside what was measured."""


def resize_frames(frames: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Return uint8 frames (..., H, W, 3) resized to `size` (one int: a square), bilinear with antialiasing."""
    height, width = (size, size) if isinstance(size, int) else size
    if frames.shape[-3:-1] == (height, width):
        return frames
    leading = frames.shape[:-3]
    # (N, 3, H, W), channels last in memory
    planes = frames.reshape(-1, *frames.shape[-3:]).permute(0, 3, 1, 2)
    planes = F.interpolate(
        planes, (height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return planes.permute(0, 2, 3, 1).reshape(*leading, height, width, 3)


def normalise(
    frames: Tensor, *, mean=IMAGENET_MEAN, std=IMAGENET_STD, out: Tensor | None = None
) -> Tensor:
    """Return float32 (..., 3, T, H, W) from uint8 (..., T, H, W, 3), scaled to [0, 1] and standardised per channel.

    `out`, on the device of the frames, is written where it is given.
    """
    num_leading = frames.ndim - 4
    order = (*range(num_leading), frames.ndim - 1, *range(num_leading, frames.ndim - 1))
    if out is None:
        shape = (frames.shape[i] for i in order)
        out = torch.empty(*shape, dtype=torch.float32, device=frames.device)
    video = out.copy_(frames.permute(order))
    scale = torch.tensor([1 / (255 * s) for s in std]).view(3, 1, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(3, 1, 1, 1)
    return video.mul_(scale.to(video.device)).add_(shift.to(video.device))


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
    numbers = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    return box_by(numbers, height, width, scale=scale, ratio=ratio)


def box_by(
    numbers: Sequence[float],
    height: int,
    width: int,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """The rectangle of `random_box` by its four numbers in [0, 1): area, ratio, top, left."""
    area, aspect, top, left = numbers
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


def short_side_size(height: int, width: int, *, size: int) -> tuple[int, int]:
    """The (height, width) with the shorter side at `size`, the longer in proportion (rounded down)."""
    if height <= width:
        return size, size * width // height
    return size * height // width, size


def center_crop(frames: Tensor, size: int) -> Tensor:
    """Return the middle size x size pixels of frames (..., H, W, 3)."""
    return three_crops(frames, size)[1]


def three_crops(frames: Tensor, size: int) -> Tensor:
    """Return crops (3, ..., size, size, 3): first, middle and last along the longer side, the middle of the other.

    Of frames resized to a short side of `size` they see the whole picture.
    """
    height, width = frames.shape[-3:-1]
    if min(height, width) < size:
        raise ValueError(
            f"size ({size}) must not exceed the frame ({height}x{width}); resize to short_side_size first."
        )
    down, right = (height - size) / 2, (width - size) / 2
    crops = []
    for share in (0, 1, 2):
        top = round(down * (share if height > width else 1))
        left = round(right * (share if width >= height else 1))
        crops.append(frames[..., top : top + size, left : left + size, :])
    return torch.stack(crops)


def random_erase(
    frames: Tensor,
    generator: torch.Generator,
    *,
    probability: float = 0.25,
    scale: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 10 / 3),
) -> Tensor:
    """Return the clip with, at this probability, one rectangle of all frames replaced by noise (arXiv:1708.04896).

    The noise is normal after `normalise`, new for every pixel and frame.
    """
    options = {"probability": probability, "scale": scale, "ratio": ratio}
    return erased(frames, drawn_erasure(frames, generator, **options))


class Erasure(NamedTuple):
    """Noise in the place of a rectangle."""

    box: Box
    noise: Tensor | np.ndarray
    """uint8 (T, height, width, 3)."""


def erased(frames: Tensor, erasure: Erasure | None) -> Tensor:
    """A copy of the frames with this noise in them; the frames themselves where there is none."""
    if erasure is None:
        return frames
    (top, left, height, width), noise = erasure
    frames = frames.clone()
    noise = torch.as_tensor(noise, device=frames.device)
    frames[..., top : top + height, left : left + width, :] = noise
    return frames


def drawn_erasure(
    frames: Tensor,
    generator: torch.Generator,
    *,
    probability: float = 0.25,
    scale: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 10 / 3),
) -> Erasure | None:
    """What `random_erase` puts into frames of this shape, at this probability."""
    draw = torch.rand((), generator=generator).item()
    box = random_box(*frames.shape[-3:-1], generator, scale=scale, ratio=ratio)
    if draw >= probability:
        return None
    _, _, height, width = box
    noise = torch.randn((*frames.shape[:-3], height, width, 3), generator=generator)
    noise = 255 * (noise * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN))
    return Erasure(box, noise.clamp_(0, 255).to(torch.uint8))


class MixedClips(NamedTuple):
    """A batch whose clips are mixtures with others, and how much of each clip is left in its mixture."""

    video: Tensor
    """(B, 3, T, H, W)"""
    share: float
    """Of the clip itself; 1 - share is the other's. The loss mixes the losses for both labels alike."""


def _share(alpha: float, generator: torch.Generator) -> float:
    """One draw of Beta(alpha, alpha)."""
    if alpha <= 0:
        raise ValueError(f"alpha ({alpha}) must be more than 0.")
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def mixup(
    video: Tensor, others: Tensor, *, generator: torch.Generator, alpha: float = 0.8
) -> MixedClips:
    """Mix each clip (B, 3, T, H, W) with the one beside it in `others`, by one share drawn from Beta(alpha, alpha)
    (arXiv:1710.09412)."""
    share = _share(alpha, generator)
    return MixedClips(video * share + others * (1 - share), share)


def cutmix(
    video: Tensor, others: Tensor, *, generator: torch.Generator, alpha: float = 1.0
) -> MixedClips:
    """Put one rectangle of the clips `others` into each clip, the same in all frames (arXiv:1905.04899); the share is
    that of the pixels really kept."""
    height, width = video.shape[-2:]
    side = math.sqrt(1 - _share(alpha, generator))
    y, x = (torch.rand(2, generator=generator) * torch.tensor([height, width])).tolist()
    top, bottom = (round(max(0, min(height, y + sign * side * height / 2))) for sign in (-1, 1))
    left, right = (round(max(0, min(width, x + sign * side * width / 2))) for sign in (-1, 1))
    video = video.clone()
    video[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return MixedClips(video, 1 - (bottom - top) * (right - left) / (height * width))


def flip_frames(frames: Tensor) -> Tensor:
    """Return frames (..., H, W, 3) mirrored left to right."""
    return frames.flip(-2)
