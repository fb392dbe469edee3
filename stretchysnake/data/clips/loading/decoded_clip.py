"""Clips out of one file: what is asked for, what comes back, and the decoding between, in whatever process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.data.clips.augment import ClipDraws, DrawnBox, drawn_for, finished
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.frame_choice import Sampling
from stretchysnake.data.clips.seen_picture import fitted, read_size, seen_crops
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.fit import fitted_size
from stretchysnake.data.decoding.picture import Part
from stretchysnake.data.decoding.video import read_draws
from stretchysnake.data.processes.shared_memory import Slot, slot_array
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale


class ClipRequest(NamedTuple):
    """A clip asked for: which record, at which scale, and the seed of its draw (None: the evaluation clip)."""

    index: int
    scale: Scale
    seed: int | None = None
    more_seeds: tuple[int, ...] = ()
    """Those of further clips of the same file, decoded with it: the answer is then a RepeatedClip."""
    unfinished: bool = False
    """Whether augmentation behind crop and resize is only drawn; else the answer is the finished frames."""
    num_clips: int = 1
    """Of views, so many clips of the file are asked for."""
    slot: Slot | None = None
    """Of shared memory, where a process writes the frames; None: they come with its answer."""

    @property
    def generators(self) -> list[torch.Generator | None]:
        """One for each clip."""
        if self.seed is None:
            return [None]
        return [torch.Generator().manual_seed(seed) for seed in (self.seed, *self.more_seeds)]

    @property
    def num_bytes(self) -> int:
        """Of the frames at most: a picture that keeps its shape has no more pixels than S x S."""
        num_clips = self.num_clips + len(self.more_seeds)
        return num_clips * self.scale.num_frames * self.scale.size**2 * 3


class UnfinishedClip(NamedTuple):
    """A clip cropped and resized, and what else was drawn for it."""

    frames: Tensor
    """uint8 (T, S, S, 3), or (T, H, W, 3) where pictures keep their shape."""
    draws: ClipDraws = ClipDraws()

    @property
    def finished(self) -> Tensor:
        """The frames with all of it done."""
        return finished(self.frames, self.draws)


class RepeatedClip(NamedTuple):
    """Several clips of one file, drawn one by one and decoded together."""

    frames: Tensor
    """uint8 (n, T, S, S, 3), or (n, T, H, W, 3) where pictures keep their shape."""
    draws: tuple[ClipDraws, ...]

    @property
    def clips(self) -> list[UnfinishedClip]:
        return [UnfinishedClip(*clip) for clip in zip(self.frames, self.draws, strict=True)]

    @property
    def finished(self) -> Tensor:
        """The frames of all with all of it done."""
        return torch.stack([clip.finished for clip in self.clips])


Answer = Tensor | UnfinishedClip | RepeatedClip | DecodeError
"""To a ClipRequest: finished frames, of several clips (n, T, S, S, 3); or with draws left to do; or why it has none."""


def together(
    clips: Sequence[UnfinishedClip], request: ClipRequest
) -> UnfinishedClip | RepeatedClip:
    """What answers a request by these clips."""
    if not request.more_seeds:
        (clip,) = clips
        return clip
    frames, draws = zip(*clips, strict=True)
    return RepeatedClip(torch.stack(frames), draws)


def apart(answer: UnfinishedClip | RepeatedClip | Tensor, num_clips: int) -> list[UnfinishedClip]:
    """The clips of an answer to a request of so many."""
    if isinstance(answer, Tensor):
        return [UnfinishedClip(frames) for frames in (answer if num_clips > 1 else [answer])]
    return answer.clips if isinstance(answer, RepeatedClip) else [answer]


def chosen_frames(
    total: int,
    fps: float | None = None,
    *,
    scale: Scale,
    augmentation: Augmentation,
    sampling: Sampling,
    generator: torch.Generator | None,
) -> list[int]:
    """The indices of a clip's frames, of `total`."""
    drawn = generator if augmentation.jitter else None
    return sampling.indices(total, scale.num_frames, generator=drawn, fps=fps)


@dataclass(frozen=True, kw_only=True)
class ClipDecoder:
    """How clips are decoded from their files; small, so that it can be sent to a process."""

    augmentation: Augmentation
    sampling: Sampling
    picture: str | None
    decoder: str
    fit: str = "square"

    def clip(
        self, record: VideoRecord, scale: Scale, *, generator: torch.Generator | None
    ) -> UnfinishedClip:
        """The clip of one draw, or without a generator the evaluation clip."""
        if generator is not None:
            return self.drawn(record, scale, [generator])[0]
        indices = self._indices(scale, None)
        seen = {"picture": self.picture or "whole", "decoder": self.decoder, "fit": self.fit}
        return UnfinishedClip(seen_crops(record, indices, scale, **seen)[0])

    def drawn(
        self, record: VideoRecord, scale: Scale, generators: Sequence[torch.Generator]
    ) -> list[UnfinishedClip]:
        """The clip of each draw, as it is alone, bit for bit; the file is decoded once."""
        crops, size = self.augmentation.crops, partial(fitted_size, scale=scale, fit=self.fit)
        boxes = [self._box(generator) for generator in generators]
        draws = [
            (self._indices(scale, generator), box if crops else None)
            for generator, box in zip(generators, boxes, strict=True)
        ]
        read = read_draws(
            record.path,
            draws,
            size=size if crops else read_size(scale, self.fit),
            start_seconds=record.start,
            end_seconds=record.end,
            decoder=self.decoder,
            with_fps=True,
        )
        clips = []
        for frames, box, generator in zip(
            map(torch.from_numpy, read), boxes, generators, strict=True
        ):
            box(*frames.shape[1:3])  # its numbers are drawn all the same
            kept = frames if crops else fitted(frames, scale, self.fit)
            clips.append(UnfinishedClip(kept, drawn_for(kept, self.augmentation, generator)))
        return clips

    def _indices(self, scale: Scale, generator: torch.Generator | None) -> Callable:
        options = {"augmentation": self.augmentation, "sampling": self.sampling}
        return partial(chosen_frames, scale=scale, generator=generator, **options)

    def _box(self, generator: torch.Generator) -> Part:
        drawn: list[DrawnBox] = []

        def box(height: int, width: int):  # behind the indices, which need the length of the video
            if not drawn:
                drawn.append(DrawnBox(self.augmentation, generator, fit=self.fit))
            return drawn[0](height, width)

        return box

    def views(self, record: VideoRecord, scale: Scale, *, num_views: int, num_crops: int) -> Tensor:
        """uint8 frames (num_views * num_crops, T, H, W, 3) of one video, decoded once."""
        count = scale.num_frames

        def indices(total: int, fps: float) -> list[int]:
            views = (
                self.sampling.indices(total, count, view=v, num_views=num_views, fps=fps)
                for v in range(num_views)
            )
            return [i for view in views for i in view]

        seen = {"picture": self.picture or "centre", "decoder": self.decoder, "fit": self.fit}
        crops = seen_crops(record, indices, scale, num_crops=num_crops, **seen)
        crops = crops.unflatten(1, (num_views, count))  # (crops, views, T, S, S, 3)
        return crops.transpose(0, 1).flatten(0, 1)

    def answer_views(
        self, task: tuple[VideoRecord, ClipRequest] | DecodeError, **counts: int
    ) -> UnfinishedClip:
        """`views`, as a decoding process answers."""
        if isinstance(task, DecodeError):
            raise task
        record, request = task
        return _in_slot(UnfinishedClip(self.views(record, request.scale, **counts)), request)

    def answer(
        self, task: tuple[VideoRecord, ClipRequest] | DecodeError
    ) -> UnfinishedClip | RepeatedClip:
        """What a decoding process answers; of frames that it wrote into the slot of the request, the shape."""
        if isinstance(task, DecodeError):
            raise task
        record, request = task
        if request.more_seeds:
            clip = together(self.drawn(record, request.scale, request.generators), request)
        else:
            clip = self.clip(record, request.scale, generator=request.generators[0])
        if not request.unfinished:
            clip = UnfinishedClip(clip.finished)  # of all clips
        return _in_slot(clip, request)


def _in_slot(
    clip: UnfinishedClip | RepeatedClip, request: ClipRequest
) -> UnfinishedClip | RepeatedClip:
    """As a process sends it: with the shape of its frames where they lie in a slot."""
    if request.slot is None:
        return clip._replace(frames=clip.frames.numpy())
    shape = tuple(clip.frames.shape)
    slot_array(request.slot, shape)[:] = clip.frames.numpy()
    return clip._replace(frames=shape)
