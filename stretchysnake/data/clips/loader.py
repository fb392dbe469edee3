"""Clips in, batches out: the order of training samples and one Scale per batch; sources are in clip_source.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import tee
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.data.clips.augment import mixed, partners_of
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.bad_clips import BadDraw, BadFile
from stretchysnake.data.clips.clip_source import (
    CachedClips,
    ClipRequest,
    Clips,
    DecodedClips,
    DecodingLimits,
)
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.clips.open_clips import open_clips
from stretchysnake.data.clips.prefetch import made_ahead
from stretchysnake.data.clips.seeds import (
    AUGMENTATION,
    MIXTURE,
    ORDER,
    REPLACEMENT,
    generator_of,
    seed_of,
)
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.flexibility import Scale, scale_at

__all__ = [
    "Augmentation",
    "Batch",
    "CachedClips",
    "Clips",
    "DecodedClips",
    "DecodingLimits",
    "FrameCache",
    "TrainingStep",
    "batch_size_at",
    "evaluation_batches",
    "open_clips",
    "training_batches",
    "training_steps",
]


class Batch(NamedTuple):
    """One training step's input, or one rank's share of it."""

    step: int
    scale: Scale
    video: Tensor
    """float32 (B, 3, T, S, S), normalised."""
    labels: Tensor
    """int64 (B,)"""
    asked: int | None = None
    """Clips asked for in the whole step, over all ranks; None: those here."""
    places: list[int] | None = None
    """Of each clip here, its place in the whole step; None: 0..B-1."""
    others: Tensor | None = None
    """int64 (B,): labels of the clips mixed in, where clips are mixed."""
    share: float = 1.0
    """What each clip has of its mixture."""
    bad: tuple[BadDraw, ...] = ()
    """Clips asked for here that could not be had."""
    news: tuple[BadFile, ...] = ()
    """What is new about files since the batch before."""


def batch_size_at(scale: Scale, *, batch_size: int, token_budget: int | None = None) -> int:
    """Return the clips per batch: `batch_size`, or as many as `token_budget` patch tokens hold (at least one)."""
    if token_budget is None:
        return batch_size
    return max(1, token_budget // (scale.num_frames * (scale.size // scale.patch_size) ** 2))


def share_of(num_clips: int, *, rank: int, world_size: int, unit: int = 1) -> range:
    """The places of a step's clips that a rank loads and computes: contiguous, no `unit` of neighbours parted,
    sizes differing by at most one unit."""
    units = -(-num_clips // unit)
    first, last = (units * r // world_size * unit for r in (rank, rank + 1))
    return range(min(first, num_clips), min(last, num_clips))


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
    shuffle: bool = True,
) -> Iterator[TrainingStep]:
    """Yield steps `start_step` to `steps - 1`; every epoch is a permutation, a batch may reach into the next one.

    Without `shuffle` every epoch goes through the clips in their order.
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
        if not shuffle:
            return place
        if epoch not in order:
            for past in [e for e in order if e < epoch - 1]:
                del order[past]
            order[epoch] = torch.randperm(
                num_clips, generator=generator_of(seed, ORDER, epoch)
            ).tolist()
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
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
    prefetch: int = 1,
    pixels: dict | None = None,
) -> Iterator[Batch]:
    """Yield one `Batch` per step from `start_step` on; augmentation depends on (seed, step, place in the batch) alone.

    So the batches from `start_step=k` are, bit for bit, those that a run from 0 gets from step k on, and the shares of
    several ranks together are the batch of one; no rank reads more than its share.
    A clip that cannot be decoded is replaced, left out or raised as `clips.bad.on_error` says, and told in the batch,
    at worst in a batch of none. The order follows from the number of clips, so these must be all that are listed.
    `pixels` are the mean and std that the model's video is standardised by; None: ImageNet's.
    `prefetch` batches are made ahead in a thread; 0 makes each when it is asked for. The thread also keeps these small
    operations on one core: spread over all cores, a batch was 20 times slower on a busy machine.
    """
    augmentation = clips.augmentation

    def shares() -> Iterator[tuple[TrainingStep, range]]:
        for step in training_steps(
            len(clips),
            variant=variant,
            batch_size=batch_size,
            seed=seed,
            steps=steps,
            start_step=start_step,
            token_budget=token_budget,
            shuffle=shuffle,
        ):
            unit = 2 if augmentation.mixes else 1
            yield (
                step,
                share_of(len(step.indices), rank=rank, world_size=world_size, unit=unit),
            )

    def request_of(step: TrainingStep, place: int) -> ClipRequest:
        return ClipRequest(
            step.indices[place], step.scale, seed_of(seed, AUGMENTATION, step.step, place)
        )

    def batches() -> Iterator[Batch]:
        ahead, here = tee(shares())
        requests = (request_of(step, place) for step, places in ahead for place in places)
        with closing(clips), closing(clips.draw(requests)) as drawn:
            for step, places in here:
                filled, loaded, before = [], [], len(clips.bad.events)
                for place in places:
                    clip = next(drawn)
                    if isinstance(clip, DecodeError):
                        order = generator_of(seed, REPLACEMENT, step.step, place)
                        request = request_of(step, place)
                        clip = clips.bad.resolve(
                            clips, request, clip, step=step.step, generator=order
                        )
                    if clip is not None:
                        filled.append(place)
                        loaded.append(clip)
                bad, news = tuple(clips.bad.events[before:]), clips.bad.take_news()
                yield batch_of(step, filled, loaded)._replace(bad=bad, news=news)

    def batch_of(step: TrainingStep, places: list[int], loaded: list[Tensor]) -> Batch:
        # a replacement has the same label
        labels = clips.labels[[step.indices[place] for place in places]]
        side = step.scale.size
        empty = torch.empty(0, 3, step.scale.num_frames, side, side)
        video = normalise(torch.stack(loaded), **(pixels or {})) if loaded else empty
        whole = Batch(step.step, step.scale, video, labels, len(step.indices), places)
        if not augmentation.mixes or not places:
            return whole
        partners = partners_of(places)
        video, share = mixed(video, partners, augmentation, generator_of(seed, MIXTURE, step.step))
        return whole._replace(video=video, others=labels[partners], share=share)

    return made_ahead(batches, prefetch)


def evaluation_batches(
    clips: Clips,
    scale: Scale,
    batch_size: int,
    *,
    indices: Sequence[int] | None = None,
    prefetch: int = 1,
    pixels: dict | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield (indices, video float32 (B, 3, T, S, S)) over all clips, or those asked for, without any randomness.

    A clip that cannot be decoded is absent, its index too, and stays in `clips.bad.quarantine`; nothing replaces it.
    `pixels` as in `training_batches`.
    """

    def batches() -> Iterator[tuple[list[int], Tensor]]:
        batch_indices, batch_clips = [], []
        requested = range(len(clips)) if indices is None else indices
        with closing(clips.draw(ClipRequest(index, scale) for index in requested)) as drawn:
            for place, (index, clip) in enumerate(zip(requested, drawn, strict=True), 1):
                if not isinstance(clip, DecodeError):
                    batch_indices.append(index)
                    batch_clips.append(clip)
                if batch_clips and (len(batch_clips) == batch_size or place == len(requested)):
                    yield batch_indices, normalise(torch.stack(batch_clips), **(pixels or {}))
                    batch_indices, batch_clips = [], []

    return made_ahead(batches, prefetch)
