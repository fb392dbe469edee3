"""Doing to clips and batches what an `Augmentation` says; every draw comes from the generator given.

What is drawn and what is done to pixels are apart: a decoder crops and resizes, `ClipDraws` say the rest, and whoever
has the frames, on whatever device, `finished`es them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.rand_augment import drawn_operations, operated
from stretchysnake.data.clips.transforms import (
    Box,
    Erasure,
    MixedClips,
    box_by,
    crop_resize,
    cutmix,
    drawn_erasure,
    erased,
    flip_frames,
    mixup,
    resize_frames,
)
from stretchysnake.flexibility import Scale


class ClipDraws(NamedTuple):
    """What is still to be done to a clip (T, S, S, 3), in this order; nothing by default."""

    mirrored: bool = False
    operations: tuple[tuple[str, float], ...] = ()
    """(name, strength) of RandAugment's."""
    erasure: Erasure | None = None


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
    return finished(*cropped(frames, scale, augmentation, generator, kept=kept))


def cropped(
    frames: Tensor,
    scale: Scale,
    augmentation: Augmentation,
    generator: torch.Generator | None,
    *,
    kept: tuple[int, int] | None,
) -> tuple[Tensor, ClipDraws]:
    """The clip of `augmented`, cropped and resized, and what is still to be done to it."""
    size = kept or scale.size
    if generator is None:
        return resize_frames(frames, size), ClipDraws()
    fit = "square" if kept is None else "keep"
    box = DrawnBox(augmentation, generator, fit=fit)(*frames.shape[1:3])
    frames = crop_resize(frames, box, size)
    return frames, drawn_for(frames, augmentation, generator)


class DrawnBox:
    """The part of a picture of any (height, width) that one draw keeps; its four numbers are drawn here.

    Of a picture whose middle is taken (`fit` crop), a part of that.
    """

    def __init__(
        self, augmentation: Augmentation, generator: torch.Generator, *, fit: str = "square"
    ):
        self.augmentation, self.fit = augmentation, fit
        self.numbers = torch.rand(4, generator=generator, dtype=torch.float64).tolist()

    def __call__(self, height: int, width: int) -> Box:
        if self.fit == "crop" and height != width:
            side = min(height, width)
            top, left, *size = self(side, side)
            return Box(top + round((height - side) / 2), left + round((width - side) / 2), *size)
        augmentation, ratio = self.augmentation, self.augmentation.crop_ratio
        if not augmentation.crops:  # the four numbers are drawn all the same
            return Box(0, 0, height, width)
        if self.fit == "keep":
            # Paper does not say; a crop of the picture's shape is stretched as little as the whole picture.
            ratio = (ratio[0] * width / height, ratio[1] * width / height)
        return box_by(self.numbers, height, width, scale=augmentation.crop_scale, ratio=ratio)


def drawn_for(frames: Tensor, augmentation: Augmentation, generator: torch.Generator) -> ClipDraws:
    """Draw, behind its box, what is done to a clip of the shape of `frames` (T, H, W, 3)."""
    mirrored, operations, erasure = False, (), None
    if augmentation.flip and torch.rand((), generator=generator) < 0.5:
        mirrored = True
    if augmentation.rand_augment is not None:
        num_ops, magnitude = augmentation.rand_augment
        height, width = frames.shape[1:3]
        operations = drawn_operations(
            height, width, generator, num_ops=num_ops, magnitude=magnitude
        )
    if augmentation.erase > 0:
        erasure = drawn_erasure(frames, generator, probability=augmentation.erase)
    return ClipDraws(mirrored, operations, erasure)


def finished(frames: Tensor, draws: ClipDraws) -> Tensor:
    """The clip (T, S, S, 3) with these done to it, on its device."""
    if draws.mirrored:
        frames = flip_frames(frames)
    frames = operated(frames, draws.operations)
    return erased(frames, draws.erasure)


def by_shape(clips: Sequence[Tensor]) -> list[list[int]]:
    """Positions of the clips of each shape, in the order in which a shape comes first."""
    positions: dict[tuple[int, ...], list[int]] = {}
    for position, clip in enumerate(clips):
        positions.setdefault(tuple(clip.shape), []).append(position)
    return list(positions.values())


def partners_of(places: list[int], num_sample: int = 1) -> list[int]:
    """For each clip, by its place in the whole batch, the position in `places` of the clip it is mixed with.

    Clips 2i and 2i + 1 are mixed with each other; one whose partner is missing, or of another shape, with itself. Of
    `num_sample` clips a video, the k-th of video 2i with the k-th of video 2i + 1, never two of one video. Pairs
    do not depend on how a batch is cut into ranks, as long as no cut parts a pair.
    """
    position = {place: number for number, place in enumerate(places)}

    def partner(place: int) -> int:
        video, draw = divmod(place, num_sample)
        return (video ^ 1) * num_sample + draw

    return [position.get(partner(place), number) for number, place in enumerate(places)]


def mixed(
    video: Tensor, others: Tensor, augmentation: Augmentation, generator: torch.Generator
) -> MixedClips:
    """Return the clips (B, 3, T, H, W), each mixed with the one beside it in `others` by mixup or cutmix, and the share
    that stays. What is drawn does not depend on the pixels or on how many clips there are."""
    kinds = [
        (mix, alpha)
        for mix, alpha in ((mixup, augmentation.mixup), (cutmix, augmentation.cutmix))
        if alpha > 0
    ]
    mix, alpha = kinds[int(torch.rand((), generator=generator) * len(kinds))]
    return mix(video, others, generator=generator, alpha=alpha)
