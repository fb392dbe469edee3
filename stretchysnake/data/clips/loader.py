"""Clips in, batches out, one scale each; their order is in training_order.py, their sources in clip_source.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import tee

import torch

from stretchysnake.data.clips.augment import by_shape, partners_of
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.clip_source import (
    CachedClips,
    ClipRequest,
    Clips,
    DecodedClips,
    DecodingLimits,
)
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.clips.loading.batch import (
    Batch,
    MixedBatch,
    Mixing,
    UnfinishedVideo,
    groups_of,
    with_videos,
)
from stretchysnake.data.clips.loading.decoded_clip import UnfinishedClip, apart
from stretchysnake.data.clips.loading.device_copies import copied, lock_pages, taken
from stretchysnake.data.clips.loading.evaluation import (
    ClipsOfShape,
    clips_of_shapes,
    evaluation_batches,
    shaped_batches,
)
from stretchysnake.data.clips.loading.prefetch import Consumer, Gone, made_ahead
from stretchysnake.data.clips.open_clips import open_clips
from stretchysnake.data.clips.seeds import (
    AUGMENTATION,
    MIXTURE,
    REPLACEMENT,
    generator_of,
    seed_of,
)
from stretchysnake.data.clips.training_order import (
    TrainingStep,
    batch_size_at,
    shares_of,
    training_steps,
)
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.processes.shared_memory import ClipMemory, pages

__all__ = [
    "Augmentation",
    "Batch",
    "CachedClips",
    "Clips",
    "ClipsOfShape",
    "DecodedClips",
    "DecodingLimits",
    "FrameCache",
    "MixedBatch",
    "TrainingStep",
    "batch_size_at",
    "clips_of_shapes",
    "evaluation_batches",
    "groups_of",
    "open_clips",
    "shaped_batches",
    "training_batches",
    "training_steps",
]


LEAST_BYTES = 2**26
"""Of frames decoded ahead, however small the clips."""
MOST_AHEAD = 64
"""Batches made ahead, however small."""


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
    scales_per_step: int = 1,
    scale_draw: str = "dealt",
    num_sample: int = 1,
    device: torch.device | None = None,
    augment_on_device: bool | None = None,
) -> Iterator[Batch | MixedBatch]:
    """Yield one `Batch` per step from `start_step` on; augmentation depends on (seed, step, place in the batch) alone.

    So the batches from `start_step=k` are, bit for bit, those that a run from 0 gets from step k on, and the shares of
    several ranks together are the batch of one; no rank reads more than its share.
    A clip that cannot be decoded is replaced, left out or raised as `clips.bad.on_error` says, and told in the batch,
    at worst in a batch of none. The order follows from the number of clips, so these must be all that are listed.
    Where a step has several scales, its batch is a `MixedBatch` of one Batch for each, this rank's share of it
    (`shares_of`), which may be empty; where pictures keep their shape (`clips.fit`), of one Batch for each shape in it.
    `num_sample` clips side by side are draws of one video, decoded once; `batch_size` counts clips. A video that
    cannot be decoded is replaced or left out with all of them.
    `pixels` are the mean and std that the model's video is standardised by; None: ImageNet's.

    With a `device`, a batch's video is an UnfinishedVideo whose uint8 frames are there, one batch ahead; it is
    normalised and mixed by `.to(device)`, a few rows at a time. RandAugment, mirror and erasing are done there too
    (`augment_on_device`), but on a CPU, where the processes that decode do them at once. Without, videos are float32.
    `prefetch` batches are made ahead in a thread; 0 makes each when it is asked for. The thread also keeps these small
    operations on one core: spread over all cores, a batch was 20 times slower on a busy machine. Where processes
    decode and there is a `device`, bytes are counted and not batches: twice those of the largest so far, in memory they
    share, so that light steps lend time to heavy ones. A batch gives its bytes back when its video is gone; who keeps
    them all is served none the less, through a pipe.
    """
    augmentation = clips.augmentation
    if augment_on_device is None:
        augment_on_device = device is not None and device.type != "cpu"
    on_gpu = device is not None and device.type == "cuda"
    memory = ClipMemory(prepare=lock_pages if on_gpu else None) if clips.shares_memory else None
    consumer = Consumer()

    unit = num_sample * (2 if augmentation.mixes else 1)

    def shares() -> Iterator[tuple[TrainingStep, list[range]]]:
        """Each step, and the places in it of this rank's clips of every group."""
        for step in training_steps(
            len(clips),
            variant=variant,
            batch_size=batch_size,
            seed=seed,
            steps=steps,
            start_step=start_step,
            token_budget=token_budget,
            shuffle=shuffle,
            scales_per_step=scales_per_step,
            scale_draw=scale_draw,
            num_sample=num_sample,
            unit=unit,
        ):
            sizes = [len(indices) for _, indices in step.groups]
            yield step, shares_of(sizes, rank=rank, world_size=world_size, unit=unit)

    def request_of(step: TrainingStep, group: int, place: int) -> ClipRequest:
        """The clips of a video, whose first has this place."""
        draws = range(place, place + num_sample)
        first, *more = (seed_of(seed, AUGMENTATION, step.step, draw) for draw in draws)
        index, scale = step.indices[place], step.groups[group][0]
        return ClipRequest(index, scale, first, tuple(more), unfinished=augment_on_device)

    joined = start_step
    """The step whose batch is being put together."""

    def requests(ahead: Iterator) -> Iterator[ClipRequest | None]:
        """Those of this rank's clips; None while their memory is in use, unless it is by who waits for these."""
        for step, mine in ahead:
            asked = [
                request_of(step, g, place)
                for g, places in enumerate(mine)
                for place in places[::num_sample]
            ]
            if memory is None:
                yield from asked
                continue
            sizes = [pages(request.num_bytes) for request in asked]
            memory.hold(max(LEAST_BYTES, 2 * sum(sizes) + max(sizes, default=0)))
            for request in asked:
                if consumer.is_gone.is_set():
                    raise Gone
                while (slot := memory.take(request.num_bytes)) is None:
                    if consumer.is_gone.is_set():
                        raise Gone
                    if consumer.waits.is_set() and step.step == joined:
                        break
                    yield None
                yield request._replace(slot=slot)

    def batches() -> Iterator[Batch | MixedBatch]:
        nonlocal joined
        ahead, here = tee(shares())
        with closing(clips), closing(clips.draw(requests(ahead), memory=memory)) as drawn:
            for step, mine in here:
                joined = step.step
                before = len(clips.bad.events)
                groups = tuple(
                    part
                    for group, places in enumerate(mine)
                    for part in groups_of_shape(step, group, *loaded(step, group, places, drawn))
                )
                bad, news = tuple(clips.bad.events[before:]), clips.bad.take_news()
                if len(groups) == 1:
                    yield groups[0]._replace(bad=bad, news=news)
                else:
                    yield MixedBatch(step.step, groups, len(step.indices), bad, news)
                del groups  # its memory is needed for those ahead

    def loaded(
        step: TrainingStep, group: int, places: range, drawn: Iterator
    ) -> tuple[list[int], list[UnfinishedClip]]:
        """The places of a group that could be filled, and their clips."""
        filled, frames = [], []
        for place in places[::num_sample]:
            clip = next(drawn)
            if isinstance(clip, DecodeError):
                request = request_of(step, group, place)
                order = generator_of(seed, REPLACEMENT, step.step, place)
                clip = clips.bad.resolve(clips, request, clip, step=step.step, generator=order)
            if clip is not None:
                filled += range(place, place + num_sample)
                frames += apart(clip, num_sample)
        return filled, frames

    def groups_of_shape(
        step: TrainingStep, group: int, places: list[int], frames: list[UnfinishedClip]
    ) -> list[Batch]:
        parts = by_shape([clip.frames for clip in frames])
        if len(parts) < 2:
            return [group_of(step, group, places, frames)]
        return [
            group_of(step, group, [places[i] for i in part], [frames[i] for i in part])._replace(
                asked=None
            )
            for part in parts
        ]

    def group_of(
        step: TrainingStep, group: int, places: list[int], frames: list[UnfinishedClip]
    ) -> Batch:
        # a replacement has the same label
        scale, indices = step.groups[group]
        labels = clips.labels[[step.indices[place] for place in places]]
        video = UnfinishedVideo(scale=scale, clips=frames, pixels=pixels or {})
        whole = Batch(step.step, scale, video, labels, len(indices), places)
        if not augmentation.mixes or not places:
            return whole
        partners = partners_of(places, num_sample)
        mixture = (seed, MIXTURE, step.step, group) if group else (seed, MIXTURE, step.step)
        mixing = Mixing(partners, augmentation, mixture)
        video, share = replace(video, mixing=mixing), mixing.share(*video.shape[-2:])
        return whole._replace(video=video, others=labels[partners], share=share)

    def done() -> Iterator[Batch | MixedBatch]:
        for batch in batches():
            yield with_videos(batch, lambda video: video.to("cpu"))

    if memory is not None and prefetch and device is not None:
        prefetch = MOST_AHEAD  # the memory limits it, which finished videos have left
    if on_gpu:
        return taken(made_ahead(lambda: copied(batches(), device), prefetch, consumer=consumer))
    return made_ahead(done if device is None else batches, prefetch, consumer=consumer)
