"""Video files: what is in them, and frames at exact positions or times. Others ask here and know no decoder.

    info = probe(path)                                   # counted, not read from the header
    frames = read_frames(path, [0, 40, 80])              # (3, H, W, 3) uint8 RGB
    frames = read_frames_at(path, [0.5, 1.0])            # what is on screen at these seconds
    verify(path)                                         # decodes all of it; raises DecodeError

Frames are counted in presentation order. The packets of a file are indexed once, without decoding, from the file's
own index where that can be believed; a seek is made only when it passes a key frame that would otherwise be decoded
for nothing; every frame is then matched by its time stamp, so a seek that lands wrong is noticed and repaired, and a
damaged file is named, never silently sampled. PyAV decodes; `decoder="torchcodec"` has torchcodec decode the same
frames, where that is installed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np

from stretchysnake.data.containers.packet_index import PacketIndex, joined_notes
from stretchysnake.data.decode_error import DecodeError, damaged_file
from stretchysnake.data.decoding.file_index import decoded_in_order, file_index
from stretchysnake.data.decoding.frame_lists import checked_decoder, frames_of_lists
from stretchysnake.data.decoding.picture import (
    Part,
    Size,
    orientation_reader,
    pixel_aspect,
    shown_size,
)
from stretchysnake.data.decoding.pyav_frames import SeekMissed, frames_by_stamp
from stretchysnake.data.decoding.video_track import opened, to_pixels, track_note
from stretchysnake.data.decoding.video_writing import (
    jpeg_bytes,
    mp4_bytes,
    png_bytes,
    write_image,
    write_video,
)

__all__ = [
    "DecodeError",
    "VideoInfo",
    "checked_decoder",
    "jpeg_bytes",
    "mp4_bytes",
    "packet_index",
    "png_bytes",
    "probe",
    "read_draws",
    "read_frames",
    "read_frames_at",
    "stream_frames",
    "verify",
    "write_image",
    "write_video",
]


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video file holds; `width` and `height` are as displayed: upright, with square pixels."""

    num_frames: int
    fps: float
    duration_seconds: float
    width: int
    height: int
    codec: str
    note: str = ""
    """What is odd about the file although all that it names can be read: frames left out because a recording was
    stopped, which of several tracks is read, a picture that changes its size; "" where nothing is."""


def packet_index(path: str | os.PathLike) -> PacketIndex:
    """When every frame of a video is shown, from its packets as far as they say; raises DecodeError."""
    path = os.fspath(path)
    with opened(path) as (container, stream):
        return file_index(path, container, stream)


def _info(index: PacketIndex, stream, height: int, width: int, note: str) -> VideoInfo:
    return VideoInfo(
        num_frames=len(index.stamps),
        fps=index.fps,
        duration_seconds=index.duration,
        width=width,
        height=height,
        codec=stream.codec_context.name,
        note=joined_notes(index.note, note),
    )


def probe(path: str | os.PathLike, *, decoder: str = "pyav") -> VideoInfo:
    """Return what the video holds; the frame count is counted, not read from the header."""
    path = os.fspath(path)
    _, height, width, _ = read_frames(path, [0], decoder=decoder).shape
    with opened(path) as (container, stream):
        index, note = file_index(path, container, stream), track_note(container, stream)
        return _info(index, stream, height, width, note)


def verify(path: str | os.PathLike) -> VideoInfo:
    """Decode every frame; return what the video holds, or raise DecodeError for the first thing wrong with it.

    A changed bit that still decodes cannot be told from a true one: video codecs carry no checksum.
    """
    path = os.fspath(path)
    shapes: dict[int, tuple[int, int]] = {}
    with opened(path) as (container, stream):
        index = file_index(path, container, stream)
        aspect, note = pixel_aspect(stream), track_note(container, stream)
        oriented = orientation_reader()

        def size_of(frame, _: int) -> tuple[int, int]:
            return shown_size(frame.height, frame.width, oriented(frame), aspect)

        everything = range(len(index.stamps))
        shapes = dict(decoded_in_order(path, index, everything, size_of))
        if index.damaged:  # and no frame told a time stamp of those
            raise damaged_file(
                path, "packets of it are lost; fetch the file again or leave it out."
            )
        if len(sizes := dict.fromkeys(shapes[i] for i in everything)) > 1:
            names = ", ".join(f"{width}x{height}" for height, width in list(sizes)[:4])
            changes = f"its picture changes size ({names}); frames get the first one's"
            note = joined_notes(note, changes)
        return _info(index, stream, *shapes[0], note)


def read_frames(
    path: str | os.PathLike,
    indices: Sequence[int] | Callable[..., Sequence[int]],
    *,
    size: Size = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    decoder: str = "pyav",
    with_fps: bool = False,
    part: Part | None = None,
) -> np.ndarray:
    """Return frames (T, H, W, 3) uint8 RGB at `indices`, in the order asked; repeats are allowed.

    `indices` may be a function of the number of frames, and `with_fps` of the frames per second too (the mean of a
    variable rate), so that a caller who samples needs no `probe` first. With
    `start_seconds`/`end_seconds` only frames shown in [start, end) exist, and index 0 is the first of them.
    Without `size` frames are as displayed: upright, with square pixels, all of the first frame's size. `size` =
    (height, width) squashes them to it, bilinear with antialiasing; a function makes it of the (height, width)
    displayed, where the aspect matters. `part` says which part of the picture displayed is squashed to it, the same of
    every frame: it costs less than to cut frames that were read whole, and gives the same pixels. `decoder` is "pyav"
    or "torchcodec": the same frames, whose pixels may differ by the rounding of the colour conversion.
    """
    options = {"start_seconds": start_seconds, "end_seconds": end_seconds, "with_fps": with_fps}
    (frames,) = read_draws(path, [(indices, part)], size=size, decoder=decoder, **options)
    return frames


def read_draws(
    path: str | os.PathLike,
    draws: Sequence[tuple[Sequence[int] | Callable[..., Sequence[int]], Part | None]],
    *,
    size: Size = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    decoder: str = "pyav",
    with_fps: bool = False,
) -> list[np.ndarray]:
    """Return for each (indices, part) what `read_frames` gives, bit for bit; the file is decoded once for all."""
    path = os.fspath(path)

    def choose(index: PacketIndex) -> list[list[int]]:
        first, last = index.window(path, start_seconds, end_seconds)
        given = (last - first, index.fps) if with_fps else (last - first,)
        chosen = [list(indices(*given) if callable(indices) else indices) for indices, _ in draws]
        if outside := [i for i in chain(*chosen) if not 0 <= i < last - first]:
            raise ValueError(
                f"index {outside[0]} is outside {path}, which has frames 0 to {last - first - 1}."
            )
        return [[first + i for i in one] for one in chosen]

    return frames_of_lists(path, choose, size, decoder, [part for _, part in draws])


def read_frames_at(
    path: str | os.PathLike,
    seconds: Sequence[float] | Callable[[float], Sequence[float]],
    *,
    size: Size = None,
    decoder: str = "pyav",
) -> np.ndarray:
    """Return the frames (T, H, W, 3) uint8 RGB on screen at these seconds, in the order asked; 0 is the first frame.

    A frame stays on screen until the next one is shown; the last one stays for 1 / fps. `seconds` may be a function of
    the video's duration.
    """
    path = os.fspath(path)

    def choose(index: PacketIndex) -> list[list[int]]:
        duration = index.duration
        times = seconds(duration) if callable(seconds) else seconds
        if outside := [time for time in times if not 0 <= time < duration]:
            raise ValueError(
                f"seconds ({outside[0]:g}) is outside {path}, which lasts {duration:.3f} s; 0 is its first frame."
            )
        return [[index.shown_at(time) for time in times]]

    (frames,) = frames_of_lists(path, choose, size, decoder, [None])
    return frames


def stream_frames(
    path: str | os.PathLike,
    indices: Sequence[int],
    *,
    size: tuple[int, int],
    index: PacketIndex | None = None,
) -> Iterator[np.ndarray]:
    """Yield the frames (H, W, 3) uint8 RGB at ascending `indices` one by one: one pass, one frame in memory.

    Repeats are allowed; the frames are those of `read_frames`. What is damaged raises when it is met, after the
    frames before it. `index` is the file's `packet_index`, where the caller has it.
    """
    path = os.fspath(path)
    index = packet_index(path) if index is None else index
    with opened(path) as (_, stream):
        pixels_of = to_pixels(size, stream)
    repeats, done = Counter(indices), 0
    wanted = sorted(repeats)
    if not 0 <= wanted[0] <= wanted[-1] < len(index.stamps):
        raise ValueError(
            f"indices ({wanted[0]} to {wanted[-1]}) must lie in {path}, which has frames 0 to {len(index.stamps) - 1}."
        )
    if not index.ordinal:
        with opened(path) as (container, stream), suppress(SeekMissed):
            for i, pixels in frames_by_stamp(container, stream, index, wanted, pixels_of):
                done += 1
                yield from repeat(pixels, repeats[i])
    if done < len(wanted):
        for i, pixels in decoded_in_order(path, index, wanted[done:], pixels_of):
            yield from repeat(pixels, repeats[i])
