"""Frames of a video of any length, window by window: decoded once, in a process of its own, a few windows ahead.

indices = uniform_indices(contained_probe("lecture.mp4").num_frames, 7200)
for frames in frame_windows("lecture.mp4", indices, [(0, 16), (16, 32)], size=32):
    ...                                              # (16, 32, 32, 3) uint8
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoder_pool import MEMORY_GIB, TIMEOUT_SECONDS, map_decoding
from stretchysnake.data.video import VideoInfo, probe, stream_frames


def contained_probe(path: str | os.PathLike, *, num_workers: int = 1) -> VideoInfo:
    """`probe` in a process of its own; raises DecodeError, also where the file crashes the decoder."""
    path = os.fspath(path)
    (answer,) = map_decoding(probe, [(path, path)], num_workers=min(num_workers, 1))
    if isinstance(answer, DecodeError):
        raise answer
    return answer


def frame_windows(
    path: str | os.PathLike,
    indices: Sequence[int],
    spans: Sequence[tuple[int, int]],
    *,
    size: int,
    num_workers: int = 1,
    timeout_seconds: float = TIMEOUT_SECONDS,
    memory_gib: float = MEMORY_GIB,
) -> Iterator[np.ndarray]:
    """Yield frames (stop - start, size, size, 3) uint8 of each span (start, stop) of the ascending frame `indices`.

    Spans are read in order and once; at most four windows wait. The limits hold for each window. num_workers=0 decodes
    in this process, without limits; more than 1 is as 1, since a video is read in one pass. Raises DecodeError.
    """
    path = os.fspath(path)
    reader = _WindowReader(path, list(indices), size)
    answers = map_decoding(
        reader,
        ((path, span) for span in spans),
        num_workers=min(num_workers, 1),
        timeout_seconds=timeout_seconds,
        memory_gib=memory_gib,
    )
    for answer in answers:
        if isinstance(answer, DecodeError):
            raise answer
        yield answer


class _WindowReader:
    """Reads spans in a decoding process; goes on where it stands, and opens the file anew where it does not."""

    def __init__(self, path: str, indices: list[int], size: int):
        self.path, self.indices, self.size = path, indices, (size, size)
        self.frames: Iterator[np.ndarray] | None = None
        self.position = -1

    def __call__(self, span: tuple[int, int]) -> np.ndarray:
        start, stop = span
        if self.frames is None or self.position != start:
            rest = self.indices[start:]
            self.frames = stream_frames(self.path, rest, size=self.size)
        self.position = stop
        return np.stack(list(islice(self.frames, stop - start)))
