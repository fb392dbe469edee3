"""Clips in, batches out: where a clip comes from, the order of training samples, one Scale per batch.

Two sources answer `clip(index, scale, generator=...)` alike: `CachedClips` (decoded once, see frame_cache.py) and
`DecodedClips` (decodes at every call). With a generator the clip is drawn for training (jittered frames, random
crop); with None it is the evaluation clip (segment centres, the whole picture), the same every time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from stretchysnake.data.clips import jittered_indices, uniform_indices
from stretchysnake.data.frame_cache import FrameCache
from stretchysnake.data.records import VideoRecord
from stretchysnake.data.transforms import (
    crop_resize,
    flip_frames,
    normalise,
    random_box,
    resize_frames,
)
from stretchysnake.data.video import read_frames
from stretchysnake.flexibility import Scale, scale_at

Item = TypeVar("Item")


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


class Batch(NamedTuple):
    """One training step's input."""

    step: int
    scale: Scale
    video: Tensor
    """float32 (B, 3, T, S, S), normalised."""
    labels: Tensor
    """int64 (B,)"""


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
        self.labels = torch.tensor([record.label for record in cache.records])

    def __len__(self) -> int:
        return len(self.records)

    def clip(self, index: int, scale: Scale, *, generator: torch.Generator | None = None) -> Tensor:
        """Return uint8 frames (T, S, S, 3)."""
        stored = self.cache.frames[self.cache.rows[index]]
        chosen = _indices(
            len(stored), scale=scale, augmentation=self.augmentation, generator=generator
        )
        return _crop(torch.from_numpy(stored[chosen]), scale, self.augmentation, generator)


class DecodedClips:
    """Clips decoded from their files at every call; raises DecodeError for a file that cannot be trusted."""

    def __init__(self, records: Sequence[VideoRecord], *, augmentation: Augmentation | None = None):
        self.augmentation = augmentation or Augmentation()
        self.records = list(records)
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


def _generator(seed: int, *place: int) -> torch.Generator:
    """A generator that depends on all of its numbers: 64-bit mixing (splitmix64), so neighbours share nothing."""
    state = seed & (2**64 - 1)
    for number in place:
        state = (state ^ (number + 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return torch.Generator().manual_seed(state)


def batch_size_at(scale: Scale, *, batch_size: int, token_budget: int | None = None) -> int:
    """Return the clips per batch: `batch_size`, or as many as `token_budget` patch tokens hold (at least one)."""
    if token_budget is None:
        return batch_size
    return max(1, token_budget // (scale.num_frames * (scale.size // scale.patch_size) ** 2))


class TrainingStep(NamedTuple):
    """What a step trains on: its Scale and its samples, before any pixel is read."""

    step: int
    scale: Scale
    indices: list[int]


def training_steps(
    num_clips: int,
    *,
    variant,
    batch_size: int,
    seed: int,
    steps: int,
    start: int = 0,
    token_budget: int | None = None,
) -> Iterator[TrainingStep]:
    """Yield steps `start` to `steps - 1`; every epoch is a permutation, and a batch may reach into the next one.

    A pure function of its arguments: with `start=k` it yields exactly what a run from 0 yields from step k on.
    """
    if num_clips < 1:
        raise ValueError("there is no clip to train on; check the list of videos.")
    order: dict[int, list[int]] = {}

    def sample(position: int) -> int:
        epoch, place = divmod(position, num_clips)
        if epoch not in order:
            for past in [e for e in order if e < epoch - 1]:
                del order[past]
            order[epoch] = torch.randperm(num_clips, generator=_generator(seed, 0, epoch)).tolist()
        return order[epoch][place]

    position = 0
    for step in range(steps):
        scale = scale_at(variant, seed=seed, step=step)
        size = batch_size_at(scale, batch_size=batch_size, token_budget=token_budget)
        if step >= start:
            yield TrainingStep(step, scale, [sample(position + i) for i in range(size)])
        position += size


def training_batches(
    clips: Clips,
    *,
    variant,
    batch_size: int,
    seed: int,
    steps: int,
    start: int = 0,
    token_budget: int | None = None,
    prefetch: int = 1,
) -> Iterator[Batch]:
    """Yield one `Batch` per step; augmentation depends on (seed, step, place in the batch) alone.

    `prefetch` batches are made ahead in a thread; 0 makes each when it is asked for. The thread also keeps these small
    operations on one core: spread over all cores, a batch was 20 times slower on a busy machine.
    """

    def batches() -> Iterator[Batch]:
        for step, scale, indices in training_steps(
            len(clips),
            variant=variant,
            batch_size=batch_size,
            seed=seed,
            steps=steps,
            start=start,
            token_budget=token_budget,
        ):
            drawn = [
                clips.clip(index, scale, generator=_generator(seed, 1, step, place))
                for place, index in enumerate(indices)
            ]
            yield Batch(step, scale, normalise(torch.stack(drawn)), clips.labels[indices])

    return _ahead(batches, prefetch)


def evaluation_batches(
    clips: Clips, scale: Scale, batch_size: int, *, prefetch: int = 1
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield (indices, video float32 (B, 3, T, S, S)) over all clips in order, without any randomness."""

    def batches() -> Iterator[tuple[list[int], Tensor]]:
        for first in range(0, len(clips), batch_size):
            indices = list(range(first, min(first + batch_size, len(clips))))
            yield indices, normalise(torch.stack([clips.clip(index, scale) for index in indices]))

    return _ahead(batches, prefetch)


def _ahead(items: Callable[[], Iterable[Item]], count: int) -> Iterator[Item]:
    """Yield the items, `count` of them made ahead by a thread that ends with the consumer; errors arrive in turn."""
    if count < 1:
        yield from items()
        return
    ready: queue.Queue = queue.Queue(maxsize=count)
    stop = threading.Event()

    def put(entry) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for item in items():
                if not put((item, None)):
                    return
            put((None, None))
        except BaseException as error:  # handed over, raised in the consumer's thread
            put((None, error))

    thread = threading.Thread(target=fill, name="clips-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stop.set()
        thread.join()
