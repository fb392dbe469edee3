"""The frames of videos and of their windows, decoded in processes of their own, with the files' hashes."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stretchysnake.data.clips import uniform_indices
from stretchysnake.data.decode_error import DecodeError, check_file
from stretchysnake.data.decoder_pool import map_decoding
from stretchysnake.data.video import probe, read_frames, read_frames_at
from stretchysnake.search.index import IndexRow, IndexSettings, VideoFile
from stretchysnake.search.windows import frame_times, windows_of
from stretchysnake.train.checkpoint import sha256_of

_CHUNK_BYTES = 2**26
"""Pixels of windows decoded at a time: a long video does not have to fit in memory."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """A video asked for, and its hash in the index as far as it is known."""

    path: str
    group: str = ""
    class_name: str = ""
    known_sha256: str = ""


class Decoded(NamedTuple):
    """Some rows of a video, in order; `frames` is None where the content is the known one."""

    video: Video
    file: VideoFile
    rows: list[IndexRow]
    frames: np.ndarray | None
    """(rows, T, S, S, 3) uint8."""
    last: bool
    """Whether these are the last rows of the video."""


class Unreadable(NamedTuple):
    """A video that cannot be embedded, and why."""

    video: Video
    error: DecodeError


def decoded(
    videos: Iterable[Video], settings: IndexSettings, *, num_workers: int
) -> Iterator[Decoded | Unreadable]:
    """Every video in order; a file that cannot be read, or that kills the decoder, is `Unreadable`."""
    if settings.window_seconds is None:
        yield from _whole_videos(list(videos), settings, num_workers)
    else:
        yield from _windows(list(videos), settings, num_workers)


def _whole_videos(videos, settings, num_workers) -> Iterator[Decoded | Unreadable]:
    scale = settings.scale
    read = partial(_read_whole, num_frames=scale.num_frames, size=scale.size)
    answers = map_decoding(read, ((v.path, v) for v in videos), num_workers=num_workers)
    for video, answer in zip(videos, answers, strict=True):
        if isinstance(answer, DecodeError):
            yield Unreadable(video, answer)
            continue
        file, frames, repeated = answer
        rows = [IndexRow(file=file, repeated=repeated)]
        yield Decoded(video, file, rows, None if frames is None else frames[None], True)


def _windows(videos, settings, num_workers) -> Iterator[Decoded | Unreadable]:
    """As `_whole_videos`; one pass asks for durations, just ahead of the one that decodes."""
    scale = settings.scale
    at_once = max(1, _CHUNK_BYTES // (scale.num_frames * scale.size**2 * 3))
    waiting: deque = deque()

    def tasks():
        spans_of = partial(_spans, settings=settings)
        found = map_decoding(spans_of, ((v.path, v) for v in videos), num_workers=num_workers)
        for video, answer in zip(videos, found, strict=True):
            if isinstance(answer, DecodeError):
                waiting.append(Unreadable(video, answer))
                continue
            file, rows = answer
            if not rows:
                waiting.append(Decoded(video, file, [], None, True))
            for start in range(0, len(rows), at_once):
                part = rows[start : start + at_once]
                last = start + at_once >= len(rows)
                waiting.append(Decoded(video, file, part, np.empty(0), last))
                yield video.path, (file, [(row.start, row.end) for row in part])

    read = partial(_read_windows, num_frames=scale.num_frames, size=scale.size)
    failed = None
    for answer in map_decoding(read, tasks(), num_workers=num_workers):
        while waiting[0].__class__ is Unreadable or waiting[0].frames is None:
            yield waiting.popleft()
        part = waiting.popleft()
        if isinstance(answer, DecodeError):
            if failed != part.video.path:  # one word for all of its windows
                yield Unreadable(part.video, answer)
            failed = part.video.path
        elif failed != part.video.path:
            yield part._replace(frames=answer)
    yield from waiting


def _read_whole(
    video: Video, *, num_frames: int, size: int
) -> tuple[VideoFile, np.ndarray | None, bool]:
    file = _hashed(video)
    if file.sha256 == video.known_sha256:
        return file, None, False
    totals = []

    def indices(total: int) -> list[int]:
        totals.append(total)
        return uniform_indices(total, num_frames)

    frames = read_frames(video.path, indices, size=(size, size))
    _refuse_changed(file)
    return file, frames, totals[0] < num_frames


def _spans(video: Video, *, settings: IndexSettings) -> tuple[VideoFile, list[IndexRow]]:
    """(the file, its windows as rows); no rows where the content is the known one."""
    file = _hashed(video)
    if file.sha256 == video.known_sha256:
        return file, []
    info = probe(video.path)
    windows = windows_of(info.duration_seconds, settings.window_seconds, settings.stride_seconds)
    few = settings.scale.num_frames - 0.5
    rows = [
        IndexRow(file=file, start=start, end=end, repeated=(end - start) * info.fps < few)
        for start, end in windows
    ]
    return file, rows


def _read_windows(task, *, num_frames: int, size: int) -> np.ndarray:
    file, spans = task
    times = [time for start, end in spans for time in frame_times(start, end, num_frames)]
    frames = read_frames_at(file.path, times, size=(size, size))
    _refuse_changed(file)
    return frames.reshape(len(spans), num_frames, *frames.shape[1:])


def _hashed(video: Video) -> VideoFile:
    check_file(video.path)
    found = os.stat(video.path)
    sha256 = sha256_of(Path(video.path))
    return VideoFile(
        path=video.path,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        sha256=sha256,
        group=video.group,
        class_name=video.class_name,
    )


def _refuse_changed(file: VideoFile) -> None:
    now = os.stat(file.path)
    if (now.st_size, now.st_mtime_ns) != (file.size, file.mtime_ns):
        reason = "changed while it was read; embed again once it is written."
        raise DecodeError("unreadable", file.path, reason)
