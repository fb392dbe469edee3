"""Clips in, batches out: the order of training samples and one Scale per batch; sources are in clip_source.py."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from stretchysnake.data.clip_source import (
    Augmentation,
    CachedClips,
    ClipRequest,
    Clips,
    DecodedClips,
    DecodingLimits,
    open_clips,
)
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.frame_cache import FrameCache
from stretchysnake.data.transforms import normalise
from stretchysnake.flexibility import Scale, scale_at

__all__ = [
    "Augmentation",
    "Batch",
    "CachedClips",
    "Clips",
    "DecodedClips",
    "DecodingLimits",
    "FrameCache",
    "TimedBatches",
    "TrainingStep",
    "batch_size_at",
    "evaluation_batches",
    "open_clips",
    "training_batches",
    "training_steps",
]

Item = TypeVar("Item")


class Batch(NamedTuple):
    """One training step's input."""

    step: int
    scale: Scale
    video: Tensor
    """float32 (B, 3, T, S, S), normalised."""
    labels: Tensor
    """int64 (B,)"""


def _seed(seed: int, *place: int) -> int:
    """A seed that depends on all of its numbers: 64-bit mixing (splitmix64), so neighbours share nothing."""
    state = seed & (2**64 - 1)
    for number in place:
        state = (state ^ (number + 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state


def _generator(seed: int, *place: int) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(seed, *place))


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
    start_step: int = 0,
    token_budget: int | None = None,
) -> Iterator[TrainingStep]:
    """Yield steps `start_step` to `steps - 1`; every epoch is a permutation, a batch may reach into the next one.

    A pure function of its arguments: with `start_step=k` it yields exactly what a run from 0 yields from step k on.
    ValueError when `start_step` is not one of the steps (or just past them: nothing is left to do).
    """
    if not 0 <= start_step <= steps:
        raise ValueError(f"start_step ({start_step}) must be between 0 and steps ({steps}).")
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
        if step >= start_step:
            yield TrainingStep(step, scale, [sample(position + i) for i in range(size)])
        position += size


def training_batches(
    clips: Clips,
    *,
    variant,
    batch_size: int,
    seed: int,
    steps: int,
    start_step: int = 0,
    token_budget: int | None = None,
    prefetch: int = 1,
) -> Iterator[Batch]:
    """Yield one `Batch` per step from `start_step` on; augmentation depends on (seed, step, place in the batch) alone.

    So the batches from `start_step=k` are, bit for bit, those that a run from 0 gets from step k on.
    A clip that cannot be decoded is replaced, left out or raised as `clips.bad.on_error` says, and listed there.
    `prefetch` batches are made ahead in a thread; 0 makes each when it is asked for. The thread also keeps these small
    operations on one core: spread over all cores, a batch was 20 times slower on a busy machine.
    """

    def batches() -> Iterator[Batch]:
        upcoming: deque[TrainingStep] = deque()

        def requests() -> Iterator[ClipRequest]:
            for step in training_steps(
                len(clips),
                variant=variant,
                batch_size=batch_size,
                seed=seed,
                steps=steps,
                start_step=start_step,
                token_budget=token_budget,
            ):
                upcoming.append(step)
                for place, index in enumerate(step.indices):
                    yield ClipRequest(index, step.scale, _seed(seed, 1, step.step, place))

        kept, labels, place = [], [], 0
        with closing(clips), closing(clips.draw(requests())) as drawn:
            for clip in drawn:
                step, scale, indices = upcoming[0]
                index = indices[place]
                if isinstance(clip, DecodeError):
                    request = ClipRequest(index, scale, _seed(seed, 1, step, place))
                    order = _generator(seed, 2, step, place)
                    clip = clips.bad.resolve(clips, request, clip, step=step, generator=order)
                if clip is not None:
                    kept.append(clip)
                    labels.append(index)  # a replacement has the same label
                place += 1
                if place == len(indices):
                    if kept:
                        yield Batch(step, scale, normalise(torch.stack(kept)), clips.labels[labels])
                    upcoming.popleft()
                    kept, labels, place = [], [], 0

    return _ahead(batches, prefetch)


def evaluation_batches(
    clips: Clips,
    scale: Scale,
    batch_size: int,
    *,
    indices: Sequence[int] | None = None,
    prefetch: int = 1,
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield (indices, video float32 (B, 3, T, S, S)) over all clips, or those asked for, without any randomness.

    A clip that cannot be decoded is absent, its index too, and stays in `clips.bad.quarantine`; nothing replaces it.
    """

    def batches() -> Iterator[tuple[list[int], Tensor]]:
        found, kept = [], []
        asked = range(len(clips)) if indices is None else indices
        with closing(clips.draw(ClipRequest(index, scale) for index in asked)) as drawn:
            for place, (index, clip) in enumerate(zip(asked, drawn, strict=True), 1):
                if not isinstance(clip, DecodeError):
                    found.append(index)
                    kept.append(clip)
                if kept and (len(kept) == batch_size or place == len(asked)):
                    yield found, normalise(torch.stack(kept))
                    found, kept = [], []

    return _ahead(batches, prefetch)


class TimedBatches:
    """Batches, and the share of the time that their consumer spent waiting for them."""

    def __init__(self, batches: Iterable):
        self._batches = iter(batches)
        self._started: float | None = None
        self.seconds_waited = 0.0

    def __iter__(self) -> TimedBatches:
        return self

    def __next__(self):
        asked = time.perf_counter()
        if self._started is None:
            self._started = asked
        try:
            return next(self._batches)
        finally:
            self.seconds_waited += time.perf_counter() - asked

    @property
    def wait_share(self) -> float:
        """Seconds waited over seconds since the first batch was asked for; 0 before that."""
        if self._started is None:
            return 0.0
        return self.seconds_waited / max(1e-9, time.perf_counter() - self._started)


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
