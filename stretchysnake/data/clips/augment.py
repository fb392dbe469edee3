"""Doing to clips and batches what an `Augmentation` says; every draw comes from the generator given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.rand_augment import rand_augment
from stretchysnake.data.clips.transforms import (
    Box,
    MixedClips,
    crop_resize,
    cutmix,
    flip_frames,
    mixup,
    random_box,
    random_erase,
    resize_frames,
)
from stretchysnake.flexibility import Scale


def augmented(
    frames: Tensor,
    scale: Scale,
    augmentation: Augmentation,
    generator: torch.Generator | None,
    *,
    kept: tuple[int, int] | None = None,
) -> Tensor:
    """Return the clip (T, S, S, 3) of frames (T, H, W, 3): the whole picture without a generator, else one draw.

    Where the picture keeps its shape, `kept` is the (height, width) of the clip instead, and crop_ratio is of the
    shape of a crop to that of the frames.
    """
    if generator is None:
        return resize_frames(frames, kept or scale.size)
    height, width = frames.shape[1:3]
    ratio = augmentation.crop_ratio
    if kept is not None:
        # Paper does not say; a crop of the picture's shape is stretched as little as the whole picture.
        ratio = (ratio[0] * width / height, ratio[1] * width / height)
    box = random_box(height, width, generator, scale=augmentation.crop_scale, ratio=ratio)
    if not augmentation.crops:  # the four numbers are drawn all the same
        box = Box(0, 0, height, width)
    frames = crop_resize(frames, box, kept or scale.size)
    if augmentation.flip and torch.rand((), generator=generator) < 0.5:
        frames = flip_frames(frames)
    if augmentation.rand_augment is not None:
        num_ops, magnitude = augmentation.rand_augment
        frames = rand_augment(frames, generator, num_ops=num_ops, magnitude=magnitude)
    if augmentation.erase > 0:
        frames = random_erase(frames, generator, probability=augmentation.erase)
    return frames


def by_shape(clips: Sequence[Tensor]) -> list[list[int]]:
    """Positions of the clips of each shape, in the order in which a shape comes first."""
    positions: dict[tuple[int, ...], list[int]] = {}
    for position, clip in enumerate(clips):
        positions.setdefault(tuple(clip.shape), []).append(position)
    return list(positions.values())


def partners_of(places: list[int]) -> list[int]:
    """For each clip, by its place in the whole batch, the position in `places` of the clip it is mixed with.

    Clips 2i and 2i + 1 are mixed with each other; one whose partner is missing, or of another shape, with itself. Pairs
    do not depend on how a batch is cut into ranks, as long as no cut parts a pair.
    """
    position = {place: number for number, place in enumerate(places)}
    return [position.get(place ^ 1, number) for number, place in enumerate(places)]


def mixed(
    video: Tensor, partners: list[int], augmentation: Augmentation, generator: torch.Generator
) -> MixedClips:
    """Return the clips (B, 3, T, H, W) mixed with their partners by mixup or cutmix, and the share that stays."""
    kinds = [
        (mix, alpha)
        for mix, alpha in ((mixup, augmentation.mixup), (cutmix, augmentation.cutmix))
        if alpha > 0
    ]
    mix, alpha = kinds[int(torch.rand((), generator=generator) * len(kinds))]
    return mix(video, video[partners], generator=generator, alpha=alpha)
