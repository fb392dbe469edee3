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

import numpy as np
import torch
from torch import Tensor

from stretchysnake.data.augment import augmented
from stretchysnake.data.augmentation import Augmentation
from stretchysnake.data.bad_clips import BadClips
from stretchysnake.data.clips import Sampling, uniform_view_indices
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoder_pool import (
    MEMORY_GIB,
    TIMEOUT_SECONDS,
    DecoderPool,
    map_decoding,
)
from stretchysnake.data.frame_cache import FrameCache
from stretchysnake.data.records import VideoRecord
from stretchysnake.data.transforms import resize_frames, resize_short_side, three_crops
from stretchysnake.data.video import probe, read_frames
from stretchysnake.flexibility import Scale
from stretchysnake.shown import shown


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


def _indices(
    total: int,
    *,
    scale: Scale,
    augmentation: Augmentation,
    sampling: Sampling,
    generator: torch.Generator | None,
) -> list[int]:
    drawn = generator if augmentation.jitter else None
    return sampling.indices(total, scale.num_frames, generator=drawn)


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
        stored = self._stored(index, scale)
        options = {"augmentation": self.augmentation, "sampling": Sampling()}
        chosen = _indices(len(stored), scale=scale, generator=generator, **options)
        return augmented(torch.from_numpy(stored[chosen]), scale, self.augmentation, generator)

    def draw(self, requests: Iterable[ClipRequest]) -> Iterator[Tensor | DecodeError]:
        """Yield the clip of each request, in order."""
        for request in requests:
            yield self.clip(request.index, request.scale, generator=request.generator)

    def draw_views(
        self, indices: Iterable[int], scale: Scale, *, num_views: int, num_crops: int = 1
    ) -> Iterator[Tensor | DecodeError]:
        """Yield uint8 frames (num_views, T, S, S, 3) of each video, views of the cached frames; the picture whole."""
        if num_crops != 1:
            raise ValueError(
                f"num_crops ({num_crops}) needs the picture's own shape, and the frame cache holds squares; "
                "use 1, or leave the cache out"
            )
        for index in indices:
            stored, counts = self._stored(index, scale), {"num_views": num_views}
            views = [
                uniform_view_indices(len(stored), scale.num_frames, view=view, **counts)
                for view in range(num_views)
            ]
            yield resize_frames(torch.from_numpy(stored[views]), scale.size)

    def _stored(self, index: int, scale: Scale) -> np.ndarray:
        stored = self.cache.frames[self.cache.rows[index]]
        for name, asked, held in (
            ("num_frames", scale.num_frames, stored.shape[0]),
            ("size", scale.size, stored.shape[1]),
        ):
            if asked > held:
                raise ValueError(
                    f"{name} ({asked}) must not exceed what the frame cache holds ({held}); set "
                    f"cache_{name.removeprefix('num_')} to {asked}, or decode without a cache"
                )
        return stored

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
        sampling: Sampling | None = None,
        limits: DecodingLimits = IN_THIS_PROCESS,
        bad: BadClips | None = None,
    ):
        self.augmentation, self.limits = augmentation or Augmentation(), limits
        self.sampling = sampling or Sampling()
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
            partial(
                _indices,
                scale=scale,
                augmentation=self.augmentation,
                sampling=self.sampling,
                generator=generator,
            ),
            size=(scale.size, scale.size) if generator is None else None,
            start_seconds=record.start,
            end_seconds=record.end,
        )
        return augmented(torch.from_numpy(frames), scale, self.augmentation, generator)

    def views(self, index: int, scale: Scale, *, num_views: int, num_crops: int = 1) -> Tensor:
        """Return uint8 frames (num_views * num_crops, T, S, S, 3) of one video, decoded once: views in order, and of
        each 1 (middle) or 3 crops of the picture at a short side of S. Their predictions are averaged at test."""
        if num_crops not in (1, 3):
            raise ValueError(f"num_crops ({num_crops}) must be 1 or 3.")
        record, count = self.records[index], scale.num_frames

        def indices(total: int) -> list[int]:
            views = (
                self.sampling.indices(total, count, view=v, num_views=num_views)
                for v in range(num_views)
            )
            return [i for view in views for i in view]

        times = {"start_seconds": record.start, "end_seconds": record.end}
        frames = read_frames(record.path, indices, **times)
        frames = resize_short_side(torch.from_numpy(frames), scale.size)
        crops = three_crops(frames, scale.size)
        crops = crops if num_crops == 3 else crops[1:2]
        crops = crops.unflatten(1, (num_views, count))  # (crops, views, T, S, S, 3)
        return crops.transpose(0, 1).flatten(0, 1)

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

    def draw_views(
        self, indices: Iterable[int], scale: Scale, *, num_views: int, num_crops: int = 1
    ) -> Iterator[Tensor | DecodeError]:
        """Yield the `views` of each video, in order, or why there are none; decoded under `limits`."""
        indices = list(indices)
        look = partial(self._views, scale=scale, num_views=num_views, num_crops=num_crops)
        tasks = ((self.records[i].path, self.bad.quarantine.get(i) or i) for i in indices)
        answers = map_decoding(look, tasks, **asdict(self.limits))
        for index, answer in zip(indices, answers, strict=True):
            yield self._noted(ClipRequest(index, scale), answer)

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

    def _views(self, task: int | DecodeError, **options):
        if isinstance(task, DecodeError):
            raise task
        return self.views(task, **options).numpy()

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
    sampling: Sampling | None = None,
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
    if cache is not None and sampling not in (None, Sampling()):
        raise ValueError(
            f"sampling ({sampling.rule}) needs the whole video, and cache ({cache}) holds uniform frames; drop one."
        )
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
            readable,
            failures=failures,
            augmentation=augmentation,
            sampling=sampling,
            limits=limits,
            bad=bad,
        )
    for _, error in clips.failures:
        if on_error == "stop":
            raise error
        print(f"skipped {shown(error)}", file=sys.stderr)
    if not clips.records:
        raise ValueError(f"none of the {len(records)} videos could be read; see the reasons above")
    return clips
