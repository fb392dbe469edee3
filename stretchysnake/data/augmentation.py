"""What training may do to the pixels of a clip, and doing it: one draw per clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stretchysnake.data.rand_augment import rand_augment
from stretchysnake.data.transforms import (
    crop_resize,
    flip_frames,
    random_box,
    random_erase,
    resize_frames,
)
from stretchysnake.flexibility import Scale


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training may do to a clip, drawn once per clip."""

    jitter: bool = True
    """One random frame of each segment instead of its centre."""
    crop_scale: tuple[float, float] = (0.6, 1.0)
    """Share of the picture's area that a random crop keeps; (1, 1) keeps it all."""
    crop_ratio: tuple[float, float] = (0.8, 1.25)
    flip: bool = False
    """Mirror half of the clips; wrong wherever left and right are part of the label (SSV2, MotionDigits fine)."""
    rand_augment: tuple[int, int] | None = None
    """(operations, magnitude 0..30) of RandAugment; None leaves it out. (2, 9) is common."""
    erase: float = 0.0
    """Probability of noise in a random rectangle; 0.25 is common."""


def augmented(
    frames: Tensor, scale: Scale, augmentation: Augmentation, generator: torch.Generator | None
) -> Tensor:
    """Return the clip (T, S, S, 3) of frames (T, H, W, 3): the whole picture without a generator, else one draw."""
    if generator is None:
        return resize_frames(frames, scale.size)
    height, width = frames.shape[1:3]
    box = random_box(
        height, width, generator, scale=augmentation.crop_scale, ratio=augmentation.crop_ratio
    )
    frames = crop_resize(frames, box, scale.size)
    if augmentation.flip and torch.rand((), generator=generator) < 0.5:
        frames = flip_frames(frames)
    if augmentation.rand_augment is not None:
        num_ops, magnitude = augmentation.rand_augment
        frames = rand_augment(frames, generator, num_ops=num_ops, magnitude=magnitude)
    if augmentation.erase > 0:
        frames = random_erase(frames, generator, probability=augmentation.erase)
    return frames
