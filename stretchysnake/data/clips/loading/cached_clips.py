"""Clips of a frame cache: T frames are chosen among the cached ones, S pixels resized from the cached size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from stretchysnake.data.clips.augment import cropped
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.bad_clips import BadClips
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.clips.frame_choice import Sampling, uniform_view_indices
from stretchysnake.data.clips.loading.decoded_clip import (
    Answer,
    ClipRequest,
    UnfinishedClip,
    chosen_frames,
    together,
)
from stretchysnake.data.clips.seen_picture import checked_picture
from stretchysnake.data.clips.transforms import resize_frames
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.fit import fitted_size
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale


class CachedClips:
    """Clips of a `FrameCache`; T frames are chosen among the cached ones, S pixels resized from the cached size."""

    def __init__(
        self,
        cache: FrameCache,
        *,
        augmentation: Augmentation | None = None,
        bad: BadClips | None = None,
        keep_places: bool = False,
    ):
        """With `keep_places` the records are all listed ones, and drawing a hole of the cache gives its error."""
        self.cache, self.bad = cache, bad or BadClips()
        self.sampling, self.decoder, self.fit = Sampling(), "pyav", cache.fit
        self.picture = checked_picture(None, fit=cache.fit) or "whole"
        self.augmentation = augmentation or Augmentation()
        self._rows = range(len(cache.listed)) if keep_places else cache.rows
        self.records: list[VideoRecord] = [cache.listed[row] for row in self._rows]
        self.failures = [] if keep_places else cache.failures
        for row, error in cache.holes.items() if keep_places else ():
            self.bad.failed(row, error, for_good=True)
        self.labels = torch.tensor([record.label for record in self.records])

    def __len__(self) -> int:
        return len(self.records)

    def clip(self, index: int, scale: Scale, *, generator: torch.Generator | None = None) -> Tensor:
        """Return uint8 frames (T, S, S, 3), with fit keep (T, H, W, 3); ValueError for more frames or pixels than the
        cache holds."""
        return self._unfinished(index, scale, generator).finished

    def _unfinished(
        self, index: int, scale: Scale, generator: torch.Generator | None
    ) -> UnfinishedClip:
        stored, kept = self._stored(index, scale)
        options = {"augmentation": self.augmentation, "sampling": Sampling()}
        chosen = chosen_frames(len(stored), scale=scale, generator=generator, **options)
        frames = torch.from_numpy(stored[chosen])
        return UnfinishedClip(*cropped(frames, scale, self.augmentation, generator, kept=kept))

    def draw(
        self, requests: Iterable[ClipRequest], *, memory: None = None, num_kept: int = 1
    ) -> Iterator[Answer]:
        """Yield the clip of each request, in order."""
        for request in requests:
            yield self.draw_one(request)

    def draw_one(self, request: ClipRequest) -> Answer:
        """The clip of one request, or why there is none."""
        if error := self.bad.quarantine.get(request.index):
            return error
        clips = (self._unfinished(request.index, request.scale, g) for g in request.generators)
        clip = together(list(clips), request)
        return clip if request.unfinished else clip.finished

    shares_memory = False
    """Whether processes of `draw` write into slots."""

    def draw_views(
        self,
        indices: Iterable[int],
        scale: Scale,
        *,
        num_views: int,
        num_crops: int = 1,
        num_kept: int = 1,
    ) -> Iterator[Tensor | DecodeError]:
        """Yield uint8 frames (num_views, T, S, S, 3) of each video, views of the cached frames as they are cached."""
        if num_crops != 1:
            raise ValueError(
                f"num_crops ({num_crops}) needs the picture's own shape, and the frame cache holds one clip of each; "
                "use 1, or leave the cache out"
            )
        for index in indices:
            (stored, kept), counts = self._stored(index, scale), {"num_views": num_views}
            views = [
                uniform_view_indices(len(stored), scale.num_frames, view=view, **counts)
                for view in range(num_views)
            ]
            yield resize_frames(torch.from_numpy(stored[views]), kept or scale.size)

    def _stored(self, index: int, scale: Scale) -> tuple[np.ndarray, tuple[int, int] | None]:
        """The frames that the cache holds of a clip, and (H, W) of the clip where it keeps its shape."""
        row = self._rows[index]
        stored, shown = self.cache.frames_of(row), self.cache.shown.get(row)
        for name, requested, held in (
            ("num_frames", scale.num_frames, len(stored)),
            ("size", scale.size, self.cache.size),
        ):
            if requested > held:
                raise ValueError(
                    f"{name} ({requested}) must not exceed what the frame cache holds ({held}); set "
                    f"cache_{name.removeprefix('num_')} to {requested}, or decode without a cache"
                )
        return stored, None if shown is None else fitted_size(*shown, scale=scale, fit=self.fit)

    def close(self) -> None:
        """Nothing to end: no process works for a cache."""
