"""A training step's input: its clips, finished or with what is still to be done to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.data.clips.augment import finished, mixed
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.bad_clips import BadDraw, BadFile
from stretchysnake.data.clips.loading.decoded_clip import UnfinishedClip
from stretchysnake.data.clips.seeds import generator_of
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.flexibility import Scale


class Mixing(NamedTuple):
    """How the clips of a batch are mixed."""

    partners: list[int]
    """Of each clip, the position of the one it is mixed with."""
    augmentation: Augmentation
    place: tuple[int, ...]
    """Where the share and the rectangle are drawn (seeds.generator_of)."""

    def share(self, height: int, width: int) -> float:
        """What each clip of this size has of its mixture."""
        none = torch.empty(0, 3, 1, height, width)
        return self.of(none, none).share

    def of(self, video: Tensor, others: Tensor):
        return mixed(video, others, self.augmentation, generator_of(*self.place))


@dataclass(frozen=True, kw_only=True)
class UnfinishedVideo:
    """Clips of one scale and shape as they were decoded: the rest is done where they are needed, rows at a time.

    uint8, a quarter of what the model takes. `video[rows].to(device)` is float32 (B, 3, T, S, S) there, augmented,
    normalised and mixed; on a CPU bit for bit what a decoding process would have made.
    """

    scale: Scale
    clips: Sequence[UnfinishedClip]
    pixels: dict = field(default_factory=dict)
    """The mean and std to standardise by."""
    mixing: Mixing | None = None
    rows: range | None = None
    """Which of the clips it shows; None: all. The others are there to be mixed with."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def _rows(self) -> range:
        return range(len(self.clips)) if self.rows is None else self.rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, 3, T, H, W)"""
        height, width = self.scale.size, self.scale.size
        if self.clips:
            height, width = self.clips[0].frames.shape[1:3]
        return len(self), 3, self.scale.num_frames, height, width

    def __getitem__(self, rows: slice) -> UnfinishedVideo:
        return replace(self, rows=self._rows[rows])

    def to(self, device: torch.device | str) -> Tensor:
        """float32 (B, 3, T, S, S) on the device."""
        video = self._normalised(self._rows, device)
        if self.mixing is None:
            return video
        partners = [self.mixing.partners[row] for row in self._rows]
        first = self._rows.start
        if set(partners) <= set(self._rows):
            others = video[[partner - first for partner in partners]]
        else:
            others = self._normalised(partners, device)
        return self.mixing.of(video, others).video

    def _normalised(self, rows: Sequence[int], device: torch.device | str) -> Tensor:
        video = torch.empty(len(rows), *self.shape[1:], device=device)
        for place, row in enumerate(rows):
            frames, draws = self.clips[row]
            frames = finished(frames.to(device, non_blocking=True), draws)
            normalise(frames, **self.pixels, out=video[place])
        return video

    def moved(self, move: Callable[[Tensor], Tensor]) -> UnfinishedVideo:
        """The same with its frames where `move` puts them."""
        return replace(self, clips=[clip._replace(frames=move(clip.frames)) for clip in self.clips])


class Batch(NamedTuple):
    """One training step's input, or one rank's share of it."""

    step: int
    scale: Scale
    video: Tensor | UnfinishedVideo
    """float32 (B, 3, T, S, S), normalised and mixed ((B, 3, T, H, W) where pictures keep their shape), or what
    `.to(device)` makes this of; `video[rows].to(device)` is right for both."""
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

    @property
    def num_tokens(self) -> int:
        """Patch tokens of all clips here, without [CLS]."""
        num_clips, _, frames, height, width = self.video.shape
        patch = self.scale.patch_size
        return num_clips * frames * (height // patch) * (width // patch)


class MixedBatch(NamedTuple):
    """One training step's input, or one rank's share of it, where its clips have several scales or shapes."""

    step: int
    groups: tuple[Batch, ...]
    """Of one scale and shape each; the places of its clips are of the step, what is asked for in one is of the group
    over all ranks. Ranks have other shapes each, so a group of a shape does not say what was asked for (None)."""
    asked: int
    """Clips asked for in the whole step, over all ranks."""
    bad: tuple[BadDraw, ...] = ()
    news: tuple[BadFile, ...] = ()

    @property
    def scale(self) -> Scale:
        """The largest, by its tokens."""
        return max((group.scale for group in self.groups), key=lambda scale: scale.num_tokens)


def groups_of(batch: Batch | MixedBatch) -> tuple[Batch, ...]:
    """The batches of one scale and shape each that a step has."""
    return batch.groups if isinstance(batch, MixedBatch) else (batch,)


def with_videos(
    batch: Batch | MixedBatch, change: Callable[[UnfinishedVideo], Tensor | UnfinishedVideo]
) -> Batch | MixedBatch:
    """The batch with each group's video changed."""
    groups = tuple(group._replace(video=change(group.video)) for group in groups_of(batch))
    return batch._replace(groups=groups) if isinstance(batch, MixedBatch) else groups[0]
