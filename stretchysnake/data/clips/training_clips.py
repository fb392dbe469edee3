"""The clips of a training: every listed record keeps its place, whether its file can be read today or not.

The order of samples and the number of steps follow from the list alone. Nothing is probed: a training begins
whatever the list's length, and a bad file is met when it is drawn (bad_clips.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.bad_clips import TRIES, BadClips, BadFile, stamp_of
from stretchysnake.data.clips.clip_source import CachedClips, Clips, DecodedClips, DecodingLimits
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.records import VideoRecord


def open_training_clips(
    records: Sequence[VideoRecord],
    *,
    cache: str | os.PathLike | None,
    num_frames: int = 16,
    size: int = 64,
    augmentation: Augmentation | None = None,
    on_error: str = "replace",
    tries: int = TRIES,
    limits: DecodingLimits | None = None,
    progress: Callable[[str], None] | None = None,
) -> Clips:
    """The clips of these records, as many and in the order of the list.

    From the frame cache in the folder `cache`, where a file that could not be decoded is a hole, or decoded at every
    call. With `on_error="stop"` the first hole of a cache is raised; without a cache that is left to the draw.
    """
    limits, bad = limits or DecodingLimits(), BadClips(on_error, tries=tries)
    if cache is None:
        return DecodedClips(records, augmentation=augmentation, limits=limits, bad=bad)
    held = FrameCache.build(
        records, cache, num_frames=num_frames, size=size, progress=progress, **asdict(limits)
    )
    for error in held.holes.values() if on_error == "stop" else ():
        raise error
    return CachedClips(held, augmentation=augmentation, bad=bad, keep_places=True)


def changed_since(clips: Clips, known: Iterable[BadFile]) -> list[BadFile]:
    """Of the files that were found bad before, those that are others now and worth another try."""
    return [
        file
        for file in known
        if file.index >= len(clips)
        or clips.records[file.index].path != file.path
        or stamp_of(file.path) != file.stamp
    ]


def pass_over(clips: Clips, known: Iterable[BadFile]) -> None:
    """Take these files for bad without trying them: so a resumed training draws what it would have drawn."""
    for file in known:
        clips.bad.quarantine.setdefault(file.index, file.error)
