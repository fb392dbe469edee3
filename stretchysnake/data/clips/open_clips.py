"""The clips of a list, decoded at every call or from a frame cache, for an evaluation or for a training.

Of an evaluation: those that can be read, each file's index read once, before any number is measured. Of a training:
every listed record keeps its place, whether its file can be read today or not, so the order of samples and the number
of steps follow from the list alone. Nothing is probed there: a training begins whatever the list's length, and a bad
file is met when it is drawn (bad_clips.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.bad_clips import TRIES, BadClips
from stretchysnake.data.clips.clip_source import CachedClips, Clips, DecodedClips, DecodingLimits
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.clips.frame_choice import Sampling
from stretchysnake.data.clips.seen_picture import checked_picture
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import checked_decoder, probe
from stretchysnake.data.processes.decoder_pool import map_decoding
from stretchysnake.data.records import VideoRecord
from stretchysnake.shown import shown


def open_clips(
    records: Sequence[VideoRecord],
    *,
    cache: str | os.PathLike | None,
    num_frames: int = 16,
    size: int = 64,
    augmentation: Augmentation | None = None,
    sampling: Sampling | None = None,
    picture: str | None = None,
    decoder: str = "pyav",
    fit: str = "square",
    limits: DecodingLimits | None = None,
    progress: Callable[[str], None] | None = None,
) -> Clips:
    """The clips of an evaluation: from the frame cache in the folder `cache`, or decoded at every call.

    Files that cannot be read are left out, said on stderr and kept in `.failures`, never replaced. Without a cache
    every file's index is read once, here. ValueError when no file can be read.
    """
    limits = limits or DecodingLimits()
    settings = asdict(limits)
    if cache is not None and sampling not in (None, Sampling()):
        raise ValueError(
            f"sampling ({sampling.rule}) needs the whole video, and cache ({cache}) holds uniform frames; drop one."
        )
    checked_picture(picture, cache=cache, fit=fit)
    checked_decoder(decoder, cache=cache)
    if cache is not None:
        held = FrameCache.build(
            records, cache, num_frames=num_frames, size=size, fit=fit, progress=progress, **settings
        )
        clips = CachedClips(held, augmentation=augmentation)
    else:
        readable, failures = [], []
        answers = map_decoding(probe, ((r.path, r.path) for r in records), **settings)
        for record, answer in zip(records, answers, strict=True):
            if isinstance(answer, DecodeError):
                failures.append((record, answer))
            else:
                readable.append(record)
            if progress:
                num_checked = len(readable) + len(failures)
                progress(f"checked {num_checked} of {len(records)} videos, {len(failures)} bad")
        clips = DecodedClips(
            readable,
            failures=failures,
            augmentation=augmentation,
            sampling=sampling,
            picture=picture,
            decoder=decoder,
            fit=fit,
            limits=limits,
        )
    for _, error in clips.failures:
        print(f"skipped {shown(error)}", file=sys.stderr)
    if not clips.records:
        raise ValueError(f"none of the {len(records)} videos could be read; see the reasons above")
    return clips


def open_training_clips(
    records: Sequence[VideoRecord],
    *,
    cache: str | os.PathLike | None,
    num_frames: int = 16,
    size: int = 64,
    augmentation: Augmentation | None = None,
    decoder: str = "pyav",
    fit: str = "square",
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
    checked_decoder(decoder, cache=cache)
    if cache is None:
        return DecodedClips(
            records, augmentation=augmentation, decoder=decoder, fit=fit, limits=limits, bad=bad
        )
    settings = {"num_frames": num_frames, "size": size, "fit": fit, **asdict(limits)}
    held = FrameCache.build(records, cache, progress=progress, **settings)
    for error in held.holes.values() if on_error == "stop" else ():
        raise error
    return CachedClips(held, augmentation=augmentation, bad=bad, keep_places=True)
