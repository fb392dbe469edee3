"""Where clips come from: two sources that answer `clip(index, scale, generator=...)` alike.

`CachedClips` holds frames decoded once (see frame_cache.py), `DecodedClips` decodes at every call; `open_clips` picks.
With a generator the clip is drawn for training (jittered frames, random crop); with None it is the evaluation
clip (segment centres, the whole picture), the same every time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from stretchysnake.data.clips import jittered_indices, uniform_indices
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.frame_cache import FrameCache
from stretchysnake.data.records import VideoRecord
from stretchysnake.data.transforms import crop_resize, flip_frames, random_box, resize_frames
from stretchysnake.data.video import probe, read_frames
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
    """Mirror half of the clips; wrong wherever left and right are part of the label."""


def _indices(
    total: int, *, scale: Scale, augmentation: Augmentation, generator: torch.Generator | None
) -> list[int]:
    if generator is None or not augmentation.jitter:
        return uniform_indices(total, scale.num_frames)
    return jittered_indices(total, scale.num_frames, generator)


def _crop(
    frames: Tensor, scale: Scale, augmentation: Augmentation, generator: torch.Generator | None
) -> Tensor:
    if generator is None:
        return resize_frames(frames, scale.size)
    height, width = frames.shape[1:3]
    box = random_box(
        height, width, generator, scale=augmentation.crop_scale, ratio=augmentation.crop_ratio
    )
    frames = crop_resize(frames, box, scale.size)
    if augmentation.flip and torch.rand((), generator=generator) < 0.5:
        frames = flip_frames(frames)
    return frames


class CachedClips:
    """Clips of a `FrameCache`; T frames are chosen among the cached ones, S pixels resized from the cached size."""

    def __init__(self, cache: FrameCache, *, augmentation: Augmentation | None = None):
        self.cache = cache
        self.augmentation = augmentation or Augmentation()
        self.records: list[VideoRecord] = cache.records
        self.failures = cache.failures
        self.labels = torch.tensor([record.label for record in cache.records])

    def __len__(self) -> int:
        return len(self.records)

    def clip(self, index: int, scale: Scale, *, generator: torch.Generator | None = None) -> Tensor:
        """Return uint8 frames (T, S, S, 3); ValueError for more frames or pixels than the cache holds."""
        stored = self.cache.frames[self.cache.rows[index]]
        for name, asked, held in (
            ("num_frames", scale.num_frames, stored.shape[0]),
            ("size", scale.size, stored.shape[1]),
        ):
            if asked > held:
                raise ValueError(
                    f"{name} ({asked}) must not exceed what the frame cache holds ({held}); "
                    f"set cache_{name.removeprefix('num_')} to {asked}, or decode without a cache"
                )
        chosen = _indices(
            len(stored), scale=scale, augmentation=self.augmentation, generator=generator
        )
        return _crop(torch.from_numpy(stored[chosen]), scale, self.augmentation, generator)


class DecodedClips:
    """Clips decoded from their files at every call; raises DecodeError for a file that cannot be trusted."""

    def __init__(
        self,
        records: Sequence[VideoRecord],
        *,
        failures: Sequence[tuple[VideoRecord, DecodeError]] = (),
        augmentation: Augmentation | None = None,
    ):
        self.augmentation = augmentation or Augmentation()
        self.records, self.failures = list(records), list(failures)
        self.labels = torch.tensor([record.label for record in self.records])

    def __len__(self) -> int:
        return len(self.records)

    def clip(self, index: int, scale: Scale, *, generator: torch.Generator | None = None) -> Tensor:
        """Return uint8 frames (T, S, S, 3)."""
        record = self.records[index]
        frames = read_frames(
            record.path,
            partial(_indices, scale=scale, augmentation=self.augmentation, generator=generator),
            size=(scale.size, scale.size) if generator is None else None,
            start_seconds=record.start,
            end_seconds=record.end,
        )
        return _crop(torch.from_numpy(frames), scale, self.augmentation, generator)


Clips = CachedClips | DecodedClips


def open_clips(
    records: Sequence[VideoRecord],
    *,
    cache: str | os.PathLike | None,
    num_frames: int = 16,
    size: int = 64,
    progress: Callable[[str], None] | None = None,
) -> Clips:
    """The clips of these records: from the frame cache in the folder `cache`, or decoded at every call.

    Files that cannot be read are left out, said on stderr and kept in `.failures`, never replaced.
    Without a cache every file's index is read once, here. ValueError when no file can be read.
    """
    if cache is not None:
        clips = CachedClips(
            FrameCache.build(records, cache, num_frames=num_frames, size=size, progress=progress)
        )
    else:
        readable, failures = [], []
        for number, record in enumerate(records, 1):
            try:
                probe(record.path)
                readable.append(record)
            except DecodeError as error:
                failures.append((record, error))
            if progress:
                progress(f"checked {number} of {len(records)} videos")
        clips = DecodedClips(readable, failures=failures)
    for _, error in clips.failures:
        print(f"skipped {error}", file=sys.stderr)
    if not clips.records:
        raise ValueError(f"none of the {len(records)} videos could be read; see the reasons above")
    return clips
