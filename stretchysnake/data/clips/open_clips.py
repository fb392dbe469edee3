"""The clips of a list, decoded at every call or from a frame cache, for an evaluation or for a training.

Of an evaluation: those that can be read, each file opened once, by one of the ranks, before any number is measured. Of
a training: every listed record keeps its place, whether its file can be read today or not, so the order of samples and
the number of steps follow from the list alone. Nothing is opened there: a training begins whatever the list's length,
and a bad file is met when it is drawn (bad_clips.py). With `check_first` all are opened before, as for an evaluation.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.bad_clips import TRIES, BadClips, pauses_for
from stretchysnake.data.clips.clip_source import CachedClips, Clips, DecodedClips, DecodingLimits
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.clips.frame_choice import Sampling
from stretchysnake.data.clips.seen_picture import checked_picture
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import checked_decoder, probe
from stretchysnake.data.processes.decoder_pool import map_decoding
from stretchysnake.data.records import VideoRecord
from stretchysnake.ranks import SINGLE, Runtime


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
    verify_cache: bool = False,
    progress: Callable[[str], None] | None = None,
    runtime: Runtime = SINGLE,
) -> Clips:
    """The clips of an evaluation: from the frame cache in the folder `cache`, or decoded at every call.

    Files that cannot be read are left out, said on stderr and kept in `.failures`, never replaced. Without a cache
    every file is opened once, here: each rank opens its share, and all know what was found. ValueError when no file can
    be read. With a cache each rank opens it (`Runtime.first_goes_first`); `verify_cache` reads all that it was made of.
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
            records,
            cache,
            num_frames=num_frames,
            size=size,
            fit=fit,
            verify=verify_cache,
            progress=progress,
            **settings,
        )
        clips = CachedClips(held, augmentation=augmentation)
    else:
        bad = checked(records, limits=limits, progress=progress, runtime=runtime)
        clips = DecodedClips(
            [record for index, record in enumerate(records) if index not in bad],
            failures=[(records[index], error) for index, error in bad.items()],
            augmentation=augmentation,
            sampling=sampling,
            picture=picture,
            decoder=decoder,
            fit=fit,
            limits=limits,
        )
    for _, error in clips.failures:
        runtime.say(f"skipped {error}")
    if not clips.records:
        raise ValueError(f"none of the {len(records)} videos could be read; see the reasons above")
    return clips


def checked(
    records: Sequence[VideoRecord],
    *,
    limits: DecodingLimits,
    progress: Callable[[str], None] | None = None,
    runtime: Runtime = SINGLE,
) -> dict[int, DecodeError]:
    """Place -> error of the files that cannot be read, each opened once by one rank and known to all.

    One whose trouble may pass is opened again, after growing pauses.
    """
    mine = range(runtime.rank, len(records), runtime.world_size)
    bad: dict[int, DecodeError] = {}
    left, pauses = mine, 0
    while left:
        tasks = ((records[place].path, records[place].path) for place in left)
        answers = map_decoding(probe, tasks, **asdict(limits))
        for done, (place, answer) in enumerate(zip(left, answers, strict=True), 1):
            bad.pop(place, None)
            if isinstance(answer, DecodeError):
                bad[place] = answer
            if progress and not pauses:
                progress(f"checked {done} of {len(mine)} videos, {len(bad)} bad")
        left = [place for place, error in bad.items() if len(pauses_for(error)) > pauses]
        if left:
            time.sleep(pauses_for(bad[left[0]])[pauses])
        pauses += 1
    runtime.meet()  # some files take one rank much longer
    told = {place: [e.kind, str(e.path), e.reason, e.transient] for place, e in bad.items()}
    for text in runtime.gather(json.dumps(told)) if runtime.world_size > 1 else ():
        for place, values in json.loads(text).items():
            bad.setdefault(int(place), DecodeError(*values))
    return dict(sorted(bad.items()))


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
    check_first: bool = False,
    verify_cache: bool = False,
    progress: Callable[[str], None] | None = None,
    runtime: Runtime = SINGLE,
) -> Clips:
    """The clips of these records, as many and in the order of the list.

    From the frame cache in the folder `cache`, where a file that could not be decoded is a hole, or decoded at every
    call. With `on_error="stop"` the first hole of a cache is raised, and with `check_first` the first file that cannot
    be read; otherwise that is left to the draw.
    """
    limits, bad = limits or DecodingLimits(), BadClips(on_error, tries=tries)
    checked_decoder(decoder, cache=cache)
    if cache is None:
        failed = {}
        if check_first:
            failed = checked(records, limits=limits, progress=progress, runtime=runtime)
        for place, error in failed.items():
            if on_error == "stop":
                raise error
            bad.failed(place, error, for_good=not error.transient)
        return DecodedClips(
            records, augmentation=augmentation, decoder=decoder, fit=fit, limits=limits, bad=bad
        )
    held = FrameCache.build(
        records,
        cache,
        num_frames=num_frames,
        size=size,
        fit=fit,
        verify=verify_cache,
        progress=progress,
        **asdict(limits),
    )
    for error in held.holes.values() if on_error == "stop" else ():
        raise error
    return CachedClips(held, augmentation=augmentation, bad=bad, keep_places=True)
