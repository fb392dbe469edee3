"""The clips of an evaluation in batches: in order, without any randomness, by shape where there are several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.data.clips.augment import by_shape
from stretchysnake.data.clips.clip_source import Clips
from stretchysnake.data.clips.loading.decoded_clip import ClipRequest
from stretchysnake.data.clips.loading.prefetch import made_ahead
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.flexibility import Scale


class ClipsOfShape(NamedTuple):
    """Clips of a batch that have one shape."""

    positions: list[int]
    """In the batch."""
    video: Tensor
    """float32 (n, 3, T, H, W), normalised."""


def evaluation_batches(
    clips: Clips, scale: Scale, batch_size: int, **options
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield (indices, video float32 (B, 3, T, S, S)) over all clips, or those asked for, without any randomness.

    Where pictures keep their shape, a batch comes as one (n, 3, T, H, W) for each shape. Options and what is absent: as
    in `shaped_batches`.
    """
    for indices, parts in shaped_batches(clips, scale, batch_size, **options):
        for part in parts:
            yield [indices[position] for position in part.positions], part.video


def shaped_batches(
    clips: Clips,
    scale: Scale,
    batch_size: int,
    *,
    indices: Sequence[int] | None = None,
    prefetch: int = 1,
    pixels: dict | None = None,
    num_views: int = 1,
) -> Iterator[tuple[list[int], list[ClipsOfShape]]]:
    """Yield (indices, their clips by shape) over all clips, or those asked for, without any randomness.

    With several views a batch holds those of each index one after the other, at most batch_size together (at least
    one index's).

    There is one shape, but where pictures keep theirs. A clip that cannot be decoded is absent, its index too, and
    stays in `clips.bad.quarantine`; nothing replaces it. `pixels` as in `training_batches`.
    """

    def batches() -> Iterator[tuple[list[int], list[ClipsOfShape]]]:
        batch_indices, batch_clips = [], []
        requested = range(len(clips)) if indices is None else indices
        at_once = max(1, batch_size // num_views)
        if num_views == 1:
            requests = (ClipRequest(index, scale) for index in requested)
            source = clips.draw(requests, num_kept=at_once)
        else:
            source = clips.draw_views(requested, scale, num_views=num_views, num_kept=at_once)
        with closing(source) as drawn:
            for place, (index, clip) in enumerate(zip(requested, drawn, strict=True), 1):
                if not isinstance(clip, DecodeError):
                    batch_indices.append(index)
                    batch_clips += [clip] if num_views == 1 else list(torch.as_tensor(clip))
                del clip  # its memory is needed for those ahead
                if batch_clips and (len(batch_indices) == at_once or place == len(requested)):
                    parts = clips_of_shapes(batch_clips, pixels)
                    batch_clips.clear()
                    yield batch_indices, parts
                    batch_indices = []

    return made_ahead(batches, prefetch)


def clips_of_shapes(frames: Sequence[Tensor], pixels: dict | None = None) -> list[ClipsOfShape]:
    """Clips (T, H, W, 3) uint8 of any shapes, normalised by shape, in the order of the first of each."""
    parts = by_shape(frames)
    return [ClipsOfShape(part, normalised([frames[i] for i in part], pixels)) for part in parts]


def normalised(clips: Sequence[Tensor], pixels: dict | None = None) -> Tensor:
    """float32 (n, 3, T, H, W) of clips (T, H, W, 3) uint8 of one shape, none of which is copied before."""
    count, height, width, _ = clips[0].shape
    video = torch.empty(len(clips), 3, count, height, width)
    for clip, out in zip(clips, video, strict=True):
        normalise(clip, **(pixels or {}), out=out)
    return video
