"""Where clips come from: two sources that answer `clip(index, scale, generator=...)` and `draw(requests)` alike.

`CachedClips` holds frames decoded once (see frame_cache.py), `DecodedClips` decodes at every call; `open_clips` picks.
With a generator the clip is drawn for training (jittered frames, random crop); with None it is the evaluation
clip (segment centres, the whole picture), the same every time. What a training does about a file that turns out bad
on the way is in bad_clips.py; an evaluation never puts another in its place.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.data.bad_clips import BadClips
from stretchysnake.data.clips import jittered_indices, uniform_indices
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoder_pool import (
    MEMORY_GIB,
    TIMEOUT_SECONDS,
    DecoderPool,
    map_decoding,
)
from stretchysnake.data.frame_cache import FrameCache
from stretchysnake.data.rand_augment import rand_augment
from stretchysnake.data.records import VideoRecord
from stretchysnake.data.transforms import (
    crop_resize,
    flip_frames,
    random_box,
    random_erase,
    resize_frames,
)
from stretchysnake.data.video import probe, read_frames
from stretchysnake.flexibility import Scale


class ClipRequest(NamedTuple):
    """One clip asked for: which record, at which scale, and the seed of its draw (None: the evaluation clip)."""

    index: int
    scale: Scale
    seed: int | None = None

    @property
    def generator(self) -> torch.Generator | None:
        return None if self.seed is None else torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """How decoding is done and contained."""

    num_workers: int = 2
    """Processes that decode, one thread each; 0 decodes in this process, without the limits below."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Wall-clock time for one clip; a file that takes longer is left out as `timeout`."""
    memory_gib: float = MEMORY_GIB
    """Memory that decoding one clip may take; a file that needs more is left out."""


IN_THIS_PROCESS = DecodingLimits(num_workers=0)


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
    if augmentation.rand_augment is not None:
        num_ops, magnitude = augmentation.rand_augment
        frames = rand_augment(frames, generator, num_ops=num_ops, magnitude=magnitude)
    if augmentation.erase > 0:
        frames = random_erase(frames, generator, probability=augmentation.erase)
    return frames


class CachedClips:
    """Clips of a `FrameCache`; T frames are chosen among the cached ones, S pixels resized from the cached size."""

    def __init__(
        self,
        cache: FrameCache,
        *,
        augmentation: Augmentation | None = None,
        bad: BadClips | None = None,
    ):
        self.cache = cache
        self.augmentation = augmentation or Augmentation()
        self.records: list[VideoRecord] = cache.records
        self.failures = cache.failures
        self.labels = torch.tensor([record.label for record in cache.records])
        self.bad = bad or BadClips()

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

    def draw(self, requests: Iterable[ClipRequest]) -> Iterator[Tensor | DecodeError]:
        """Yield the clip of each request, in order."""
        for request in requests:
            yield self.clip(request.index, request.scale, generator=request.generator)

    def close(self) -> None:
        """Nothing to end: no process works for a cache."""


class DecodedClips:
    """Clips decoded from their files at every call.

    `clip` decodes in this process and raises DecodeError for a file that cannot be trusted; `draw` decodes under
    `limits`, and remembers bad files, so that each is tried once.
    """

    def __init__(
        self,
        records: Sequence[VideoRecord],
        *,
        failures: Sequence[tuple[VideoRecord, DecodeError]] = (),
        augmentation: Augmentation | None = None,
        limits: DecodingLimits = IN_THIS_PROCESS,
        bad: BadClips | None = None,
    ):
        self.augmentation, self.limits = augmentation or Augmentation(), limits
        self.records, self.failures = list(records), list(failures)
        self.labels = torch.tensor([record.label for record in self.records])
        self.bad = bad or BadClips()
        self._spare: DecoderPool | None = None

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

    def draw(self, requests: Iterable[ClipRequest]) -> Iterator[Tensor | DecodeError]:
        """Yield for each request, in order, its clip or why there is none; a few are decoded ahead."""
        given: list[ClipRequest] = []

        def tasks():
            for request in requests:
                given.append(request)
                known = self.bad.quarantine.get(request.index)  # a bad file is not tried again
                yield self.records[request.index].path, known or request

        for answer in map_decoding(self._frames, tasks(), **asdict(self.limits)):
            yield self._noted(given.pop(0), answer)

    def draw_one(self, request: ClipRequest) -> Tensor | DecodeError:
        """The clip of one request between those of `draw`, from a process of its own."""
        if self.limits.num_workers and self._spare is None:
            self._spare = DecoderPool(self._frames, **{**asdict(self.limits), "num_workers": 1})
        task = (self.records[request.index].path, request)
        if self._spare is None:
            (answer,) = map_decoding(self._frames, [task], num_workers=0)
        else:
            (answer,) = self._spare.map([task])
        return self._noted(request, answer)

    def close(self) -> None:
        """End the process of `draw_one`; it starts again when needed."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _noted(self, request: ClipRequest, answer) -> Tensor | DecodeError:
        if isinstance(answer, DecodeError):
            self.bad.quarantine.setdefault(request.index, answer)
            return answer
        return torch.from_numpy(answer)

    def _frames(self, task: ClipRequest | DecodeError):
        if isinstance(task, DecodeError):
            raise task
        return self.clip(task.index, task.scale, generator=task.generator).numpy()


Clips = CachedClips | DecodedClips


def open_clips(
    records: Sequence[VideoRecord],
    *,
    cache: str | os.PathLike | None,
    num_frames: int = 16,
    size: int = 64,
    augmentation: Augmentation | None = None,
    on_error: str = "replace",
    limits: DecodingLimits | None = None,
    progress: Callable[[str], None] | None = None,
) -> Clips:
    """The clips of these records: from the frame cache in the folder `cache`, or decoded at every call.

    Files that cannot be read are left out, said on stderr and kept in `.failures`, never replaced; with
    `on_error="stop"` the first one is raised. Without a cache every file's index is read once, here. What is found bad
    later, while training, is handled as `on_error` says (bad_clips.py). ValueError when no file can be read.
    """
    limits, bad = limits or DecodingLimits(), BadClips(on_error)
    settings = asdict(limits)
    if cache is not None:
        held = FrameCache.build(
            records, cache, num_frames=num_frames, size=size, progress=progress, **settings
        )
        clips = CachedClips(held, augmentation=augmentation, bad=bad)
    else:
        readable, failures = [], []
        answers = map_decoding(probe, ((r.path, r.path) for r in records), **settings)
        for record, answer in zip(records, answers, strict=True):
            if isinstance(answer, DecodeError):
                failures.append((record, answer))
            else:
                readable.append(record)
            if progress:
                found = len(readable) + len(failures)
                progress(f"checked {found} of {len(records)} videos, {len(failures)} bad")
        clips = DecodedClips(
            readable, failures=failures, augmentation=augmentation, limits=limits, bad=bad
        )
    for _, error in clips.failures:
        if on_error == "stop":
            raise error
        print(f"skipped {error}", file=sys.stderr)
    if not clips.records:
        raise ValueError(f"none of the {len(records)} videos could be read; see the reasons above")
    return clips
