"""The frames of videos and of their windows, decoded in processes of their own, with the files' hashes.

A video is one task: its file is hashed, its packets are listed, and its frames are decoded once, from the first window
to the last. Windows come in parts as they are ready, so that a long video is never held, here or there.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.clips.seen_picture import fitted, read_size
from stretchysnake.data.decode_error import DecodeError, check_file
from stretchysnake.data.decoding.frame_windows import windows_in_one_pass
from stretchysnake.data.decoding.video import packet_index, read_frames
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS, stream_decoding
from stretchysnake.data.processes.shared_memory import KeptClips, Slot, can_share, slot_array
from stretchysnake.data.processes.watchdog import alive
from stretchysnake.data.records_key import file_stamp
from stretchysnake.flexibility import Scale
from stretchysnake.search.index import IndexRow, IndexSettings, VideoFile
from stretchysnake.search.time_windows import frame_times, time_windows_with_frames

_TOKENS_AT_ONCE = 2**14
_BLOCK_BYTES = 2**20


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
    frames: np.ndarray | tuple[int, ...] | None
    """(rows, T, S, S, 3) uint8; (rows, T, H, W, 3) where pictures keep their shape; between processes their shape where
    they lie in the slot."""
    last: bool
    """Whether these are the last rows of the video."""


class Unreadable(NamedTuple):
    """A video that cannot be embedded, and why."""

    video: Video
    error: DecodeError


def rows_at_once(scale: Scale) -> int:
    """How many windows are decoded, sent and embedded together; of the scale alone, so that results repeat."""
    return max(1, _TOKENS_AT_ONCE // (1 + scale.num_tokens))


def decoded(
    videos: Iterable[Video],
    settings: IndexSettings,
    *,
    num_workers: int,
    timeout_seconds: float = TIMEOUT_SECONDS,
    num_kept: int | None = None,
) -> Iterator[Decoded | Unreadable]:
    """The parts of every video as they are ready: of one video in order, of several mixed.

    A file that cannot be read, or that kills the decoder, is `Unreadable`, perhaps after parts of it. Whole videos come
    in memory shared with the processes, `num_kept` of them at once (None: `rows_at_once`; others through a pipe, as
    windows do, of which a video has no known number).
    """
    videos, memory, lent = list(videos), None, {}
    scale = settings.scale
    num_bytes = 3 * scale.num_frames * scale.size**2
    if settings.window_seconds is None and can_share(num_workers):
        memory = KeptClips(num_kept=num_kept or rows_at_once(scale), num_workers=num_workers)

    def tasks() -> Iterator[tuple[str, tuple[Video, Slot | None]] | None]:
        for number, video in enumerate(videos):
            slot = None
            if memory is not None:
                slot = yield from memory.waited_for(num_bytes, lent)
                lent[number] = slot
            yield video.path, (video, slot)

    answers = stream_decoding(
        partial(_read, settings=settings),
        tasks(),
        num_workers=num_workers,
        timeout_seconds=timeout_seconds,
        memory=memory,
    )
    for number, answer in answers:
        slot = lent.pop(number, None)  # a whole video has one part
        in_slot = isinstance(answer, Decoded) and isinstance(answer.frames, tuple)
        if slot is not None and not in_slot:
            memory.free(slot)
        if isinstance(answer, DecodeError):
            yield Unreadable(videos[number], answer)
        elif in_slot:
            yield answer._replace(frames=memory.array(slot, answer.frames))
        else:
            yield answer


def _read(task: tuple[Video, Slot | None], *, settings: IndexSettings) -> Iterator[Decoded]:
    video, slot = task
    file = _hashed(video)
    if file.sha256 == video.known_sha256:
        yield Decoded(video, file, [], None, True)
        return
    read = _whole if settings.window_seconds is None else _windows
    for rows, frames, last in read(file, settings):
        _refuse_changed(file)
        if slot is not None:
            slot_array(slot, frames.shape)[:] = frames
            frames = frames.shape
        yield Decoded(video, file, rows, frames, last)


def _whole(
    file: VideoFile, settings: IndexSettings
) -> Iterator[tuple[list[IndexRow], np.ndarray, bool]]:
    scale, fit, totals = settings.scale, settings.fit, []
    count = scale.num_frames

    def indices(total: int) -> list[int]:
        totals.append(total)
        return uniform_indices(total, count)

    size = read_size(scale, fit)
    frames = read_frames(file.path, indices, size=size, decoder=settings.decoder)
    rows = [IndexRow(file=file, repeated=totals[0] < count)]
    yield rows, fitted(torch.from_numpy(frames), scale, fit).numpy()[None], True


def _windows(
    file: VideoFile, settings: IndexSettings
) -> Iterator[tuple[list[IndexRow], np.ndarray, bool]]:
    index = packet_index(file.path)
    windows = time_windows_with_frames(index, settings.window_seconds, settings.stride_seconds)
    numbers, rows = [], []
    for start, end in windows:
        times = frame_times(start, end, settings.scale.num_frames)
        numbers.append([index.shown_at(time) for time in times])
        repeated = len(set(numbers[-1])) < len(times)
        rows.append(IndexRow(file=file, start=start, end=end, repeated=repeated))
    size = read_size(settings.scale, settings.fit)
    if callable(size):  # of the first frame, as all others are shown
        size = size(*read_frames(file.path, [0]).shape[1:3])
    frames = windows_in_one_pass(file.path, index, numbers, size=size)
    at_once = rows_at_once(settings.scale)
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        windows = torch.from_numpy(np.stack(list(islice(frames, len(part)))))
        last = start + at_once >= len(rows)
        yield part, fitted(windows, settings.scale, settings.fit).numpy(), last


def _hashed(video: Video) -> VideoFile:
    check_file(video.path)
    digest = hashlib.sha256()
    with open(video.path, "rb") as file:
        status = os.fstat(file.fileno())
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            alive()
    return VideoFile(
        path=video.path,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        sha256=digest.hexdigest(),
        group=video.group,
        class_name=video.class_name,
    )


def _refuse_changed(file: VideoFile) -> None:
    if file_stamp(file.path) != (file.size, file.mtime_ns):
        reason = "changed while it was read; embed again once it is written."
        raise DecodeError("unreadable", file.path, reason)
