"""Frames of a video of any length, window by window: decoded once, in a process of its own, a few windows ahead.

def choose(index):                                   # a PacketIndex: when every frame is shown
    return index.duration, [range(0, 16), range(16, 32)]

duration, windows = frame_windows("lecture.mp4", choose, size=32)
for frames in windows:
    ...                                              # (16, 32, 32, 3) uint8
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from stretchysnake.data.containers.packet_index import PacketIndex
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import packet_index, stream_frames
from stretchysnake.data.processes.decoder_pool import MEMORY_GIB, TIMEOUT_SECONDS, stream_decoding

Choice = Callable[[PacketIndex], tuple[Any, Sequence[Sequence[int]]]]


def frame_windows(
    path: str | os.PathLike,
    choose: Choice,
    *,
    size: int,
    num_workers: int = 1,
    timeout_seconds: float = TIMEOUT_SECONDS,
    memory_gib: float = MEMORY_GIB,
) -> tuple[Any, Iterator[np.ndarray]]:
    """What `choose` tells of the video, and the frames (n, size, size, 3) uint8 of each of its windows.

    choose(index) runs beside the decoder and returns (anything, the frame numbers of each window); see
    `windows_in_one_pass`. At most three windows wait. num_workers=0 decodes in this process, without limits; more
    than 1 is as 1, since a video is read in one pass. Raises DecodeError, the second part when damage is met.
    """
    path = os.fspath(path)
    read = partial(_read, choose=choose, size=size)
    answers = _sound(
        stream_decoding(
            read,
            [(path, path)],
            num_workers=min(num_workers, 1),
            timeout_seconds=timeout_seconds,
            memory_gib=memory_gib,
        )
    )
    return next(answers), answers


def windows_in_one_pass(
    path: str | os.PathLike,
    index: PacketIndex,
    windows: Sequence[Sequence[int]],
    *,
    size: tuple[int, int],
) -> Iterator[np.ndarray]:
    """Yield the frames (n, *size, 3) uint8 of each window, decoding every frame once; `size` is (height, width).

    A window is ascending frame numbers, repeats allowed; windows begin and end one after another and may overlap. In
    memory are the frames that a window to come still needs.
    """
    firsts, lasts = [window[0] for window in windows], [window[-1] for window in windows]
    assert firsts == sorted(firsts) and lasts == sorted(lasts), "windows in order"
    wanted = sorted(set(chain.from_iterable(windows)))
    numbered = zip(wanted, stream_frames(path, wanted, size=size, index=index), strict=True)
    held: dict[int, np.ndarray] = {}
    for window, next_first in zip(windows, [*firsts[1:], wanted[-1] + 1], strict=True):
        while window[-1] not in held:
            number, pixels = next(numbered)
            held[number] = pixels
        yield np.stack([held[number] for number in window])
        held = {number: pixels for number, pixels in held.items() if number >= next_first}


def _read(path: str, *, choose: Choice, size: int) -> Iterator[Any]:
    index = packet_index(path)
    told, windows = choose(index)
    yield told
    yield from windows_in_one_pass(path, index, windows, size=(size, size))


def _sound(answers: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    with closing(answers):
        for _, answer in answers:
            if isinstance(answer, DecodeError):
                raise answer
            yield answer
