"""The index of a video file, and its frames in the decoder's order; a decoder is asked where packets cannot say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain

import numpy as np

from stretchysnake.data.containers.listed_packets import is_as_listed, listed_packets
from stretchysnake.data.containers.packet_index import PacketIndex, index_packets
from stretchysnake.data.containers.picture_types import picture_types
from stretchysnake.data.decoding.pyav_frames import (
    TimesGoBack,
    frames_in_order,
    packets_of,
    shown_stamps,
    sound_seconds,
)
from stretchysnake.data.decoding.video_track import opened

_TIMES_GO_BACK: set[tuple[str, int, int]] = set()
"""Files whose frames were found, in this process, to come in another order than their time stamps say."""


def file_index(path: str, container, stream) -> PacketIndex:
    """The index of an opened file; raises DecodeError when less is there than its header promises."""

    def sound_of_file() -> float:
        with opened(path) as (another, _):
            return sound_seconds(another)

    name = container.format.name
    index = index_packets(
        path,
        _packets(path, container, stream),
        stream,
        container=name,
        promised_seconds=container.duration / 1e6 if "flv" in name else None,
        sound_seconds=sound_of_file,
    )
    if index.uncounted_before is not None:
        index = index.counted(path, *_shown(*_version(path), index.uncounted_before))
    index = index.at_mean_rate()
    return replace(index, ordinal=True) if _version(path) in _TIMES_GO_BACK else index


def _packets(path: str, container, stream) -> Iterable:
    """The packets of a stream: as its index lists them, of which then one is read, else all of them read."""
    read = packets_of(path, container, stream)
    codec = stream.codec_context
    if picture_types(codec.name, codec.extradata) is not None:  # what they hold has to be looked at
        return read
    listed = listed_packets(path, container.format.name, stream)
    if listed is None:
        return read
    first = next(read, None)
    if first is not None and is_as_listed(first, listed[0]):
        read.close()
        return listed
    return chain([] if first is None else [first], read)


def decoded_in_order(
    path: str, index: PacketIndex, wanted: Sequence[int], pixels_of: Callable
) -> Iterator[tuple[int, np.ndarray]]:
    """`frames_in_order` of the file opened anew; by counting alone where times turn out to go back."""
    done = 0
    try:
        with opened(path) as (container, stream):
            for frame in frames_in_order(path, container, stream, index, wanted, pixels_of):
                yield frame
                done += 1
    except TimesGoBack:
        _TIMES_GO_BACK.add(_version(path))
        counting = replace(index, ordinal=True)
        yield from decoded_in_order(path, counting, wanted[done:], pixels_of)


def _version(path: str) -> tuple[str, int, int]:
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _shown(path: str, size: int, modified_ns: int, before: float):
    """`shown_stamps` of one version of a file: the only pass over all frames, so it is kept."""
    with opened(path) as (container, stream):
        return shown_stamps(path, container, stream, before)
