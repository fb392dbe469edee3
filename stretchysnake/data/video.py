"""Video files: what is in them, and frames at exact positions or times. Others ask here and know no decoder.

    info = probe(path)                                   # counted, not read from the header
    frames = read_frames(path, [0, 40, 80])              # (3, H, W, 3) uint8 RGB
    frames = read_frames_at(path, [0.5, 1.0])            # what is on screen at these seconds
    verify(path)                                         # decodes all of it; raises DecodeError

Frames are counted in presentation order. The packets of a file are indexed once, without decoding; a seek is
made only when it passes a key frame that would otherwise be decoded for nothing; every frame is then matched by
its time stamp, so a seek that lands wrong is noticed and repaired, and a damaged file is named, never silently
sampled. PyAV decodes; `decoder="torchcodec"` has torchcodec decode the same frames, where that is installed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from stretchysnake.data.decode_error import (
    DecodeError,
    check_file,
    damaged_file,
    reason_of,
    unopened_file,
)
from stretchysnake.data.packet_index import PacketIndex, index_packets
from stretchysnake.data.pyav_frames import SeekMissed, frames_by_stamp, frames_in_order
from stretchysnake.data.torchcodec_frames import torchcodec_frames
from stretchysnake.data.video_writing import png_bytes, write_image, write_video
from stretchysnake.data.watchdog import watched

__all__ = [
    "DecodeError",
    "VideoInfo",
    "packet_index",
    "png_bytes",
    "probe",
    "read_frames",
    "read_frames_at",
    "stream_frames",
    "verify",
    "write_image",
    "write_video",
]


DECODERS = ("pyav", "torchcodec")


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video file holds; `width` and `height` are as displayed, after the rotation flag."""

    num_frames: int
    fps: float
    duration_seconds: float
    width: int
    height: int
    codec: str


def _open(path: str):
    import av

    check_file(path)
    try:
        # "file:" keeps names such as "a:b.mp4" from being read as a protocol; a file that names others (a playlist)
        # must not make the decoder fetch them
        options = {"protocol_whitelist": "file"}
        container = av.open(f"file:{path}", metadata_errors="replace", options=options)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise unopened_file(path, error) from error
    names = set(container.format.name.split(","))
    if names & {"tty", "image2", "hls", "concat", "dash"} or any(
        n.endswith("_pipe") for n in names
    ):
        container.close()
        raise DecodeError(
            "unreadable", path, "holds text or an image, not a video; give a video file."
        )
    if not any(map(_has_pictures, container.streams.video)):
        num_streams = len(container.streams)
        container.close()
        if not num_streams:
            raise damaged_file(path, "its header lists neither pictures nor sound; fetch it again.")
        raise DecodeError(
            "no_video", path, "has no video stream (audio only?); give a file with pictures."
        )
    return container


def _has_pictures(stream) -> bool:
    """Whether a stream is a video, not the cover of a piece of music."""
    from av.stream import Disposition

    return not stream.disposition & Disposition.attached_pic


@contextmanager
def _opened(path: str):
    container = _open(path)
    try:
        stream = next(filter(_has_pictures, container.streams.video))
        if stream.codec_context is None:
            raise DecodeError(
                "unreadable", path, "its codec is not known to this decoder; convert it to h264."
            )
        stream.codec_context.thread_count = (
            1  # parallelism is one process per file, never threads inside one
        )
        yield container, stream
    finally:
        container.close()


def _rotation(frame) -> int:
    """Quarter turns counter-clockwise that show the frame upright."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def _index(path: str, container, stream) -> PacketIndex:
    import av

    promised = container.duration / 1e6 if "flv" in container.format.name else None
    try:
        packets = watched(container.demux(stream), float(stream.average_rate or 30))
        return index_packets(path, packets, stream, promised_seconds=promised)
    except av.FFmpegError as error:
        reason = f"its packets cannot be read to the end ({reason_of(error)}); fetch it again."
        raise damaged_file(path, reason) from error


def packet_index(path: str | os.PathLike) -> PacketIndex:
    """When every frame of a video is shown, read from its packets without decoding; raises DecodeError."""
    path = os.fspath(path)
    with _opened(path) as (container, stream):
        return _index(path, container, stream)


def _info(index: PacketIndex, stream, height: int, width: int) -> VideoInfo:
    fps = float(stream.average_rate or stream.guessed_rate or 30)
    return VideoInfo(
        num_frames=len(index.stamps),
        fps=fps,
        duration_seconds=index.seconds(len(index.stamps) - 1) + 1 / fps,
        width=width,
        height=height,
        codec=stream.codec_context.name,
    )


def probe(path: str | os.PathLike, *, decoder: str = "pyav") -> VideoInfo:
    """Return what the video holds; the frame count is counted, not read from the header."""
    path = os.fspath(path)
    _, height, width, _ = read_frames(path, [0], decoder=decoder).shape
    with _opened(path) as (container, stream):
        return _info(_index(path, container, stream), stream, height, width)


def verify(path: str | os.PathLike) -> VideoInfo:
    """Decode every frame; return what the video holds, or raise DecodeError for the first thing wrong with it.

    A changed bit that still decodes cannot be told from a true one: video codecs carry no checksum.
    """
    path = os.fspath(path)
    shapes: dict[int, tuple[int, int]] = {}
    with _opened(path) as (container, stream):
        index = _index(path, container, stream)
        everything = range(len(index.stamps))
    with _opened(path) as (container, stream):
        shapes = dict(frames_in_order(path, container, stream, index, everything, _upright_size))
        _one_size(path, set(shapes.values()))
        return _info(index, stream, *shapes[0])


def read_frames(
    path: str | os.PathLike,
    indices: Sequence[int] | Callable[[int], Sequence[int]],
    *,
    size: tuple[int, int] | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    decoder: str = "pyav",
) -> np.ndarray:
    """Return frames (T, H, W, 3) uint8 RGB at `indices`, in the order asked; repeats are allowed.

    `indices` may be a function of the number of frames, so that a caller who samples needs no `probe` first. With
    `start_seconds`/`end_seconds` only frames shown in [start, end) exist, and index 0 is the first of them.
    `size` = (height, width) resizes with area averaging; the aspect ratio is the caller's business. `decoder` is "pyav"
    or "torchcodec": the same frames, whose pixels may differ by the rounding of the colour conversion.
    """
    path = os.fspath(path)

    def choose(index: PacketIndex) -> list[int]:
        first, last = index.window(path, start_seconds, end_seconds)
        chosen = list(indices(last - first) if callable(indices) else indices)
        if outside := [i for i in chosen if not 0 <= i < last - first]:
            raise ValueError(
                f"index {outside[0]} is outside {path}, which has frames 0 to {last - first - 1}."
            )
        return [first + i for i in chosen]

    return _read(path, choose, size, decoder)


def read_frames_at(
    path: str | os.PathLike,
    seconds: Sequence[float] | Callable[[float], Sequence[float]],
    *,
    size: tuple[int, int] | None = None,
    decoder: str = "pyav",
) -> np.ndarray:
    """Return the frames (T, H, W, 3) uint8 RGB on screen at these seconds, in the order asked; 0 is the first frame.

    A frame stays on screen until the next one is shown; the last one stays for 1 / fps. `seconds` may be a function of
    the video's duration.
    """
    path = os.fspath(path)

    def choose(index: PacketIndex) -> list[int]:
        duration = index.duration
        times = seconds(duration) if callable(seconds) else seconds
        if outside := [time for time in times if not 0 <= time < duration]:
            raise ValueError(
                f"seconds ({outside[0]:g}) is outside {path}, which lasts {duration:.3f} s; 0 is its first frame."
            )
        return [index.shown_at(time) for time in times]

    return _read(path, choose, size, decoder)


def _read(path: str, choose: Callable, size: tuple[int, int] | None, decoder: str) -> np.ndarray:
    if decoder not in DECODERS:
        raise ValueError(f"decoder ({decoder!r}) must be one of: {', '.join(DECODERS)}.")
    with _opened(path) as (container, stream):
        index = _index(path, container, stream)
        chosen = choose(index)
        wanted = sorted(set(chosen))
        frames = None
        if decoder == "torchcodec":
            frames = torchcodec_frames(path, index, wanted, size)
        elif not index.ordinal:
            with suppress(SeekMissed):
                frames = dict(frames_by_stamp(container, stream, index, wanted, _to_pixels(size)))
    if frames is None:  # no usable time stamps, or a seek that missed: go through in order
        with _opened(path) as (container, stream):
            frames = dict(frames_in_order(path, container, stream, index, wanted, _to_pixels(size)))
    _one_size(path, {frame.shape for frame in frames.values()})
    if not chosen:
        return np.empty((0, 0, 0, 3), np.uint8)
    return np.stack([frames[i] for i in chosen])


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
    pixels_of = _to_pixels(size)
    index = index or packet_index(path)
    repeats, done = Counter(indices), 0
    wanted = sorted(repeats)
    if not 0 <= wanted[0] <= wanted[-1] < len(index.stamps):
        raise ValueError(
            f"indices ({wanted[0]} to {wanted[-1]}) must lie in {path}, which has frames 0 to {len(index.stamps) - 1}."
        )
    if not index.ordinal:
        with _opened(path) as (container, stream), suppress(SeekMissed):
            for i, pixels in frames_by_stamp(container, stream, index, wanted, pixels_of):
                done += 1
                yield from repeat(pixels, repeats[i])
    if done < len(wanted):
        with _opened(path) as (container, stream):
            rest = wanted[done:]
            for i, pixels in frames_in_order(path, container, stream, index, rest, pixels_of):
                yield from repeat(pixels, repeats[i])


def _one_size(path: str, sizes: set) -> None:
    if len(sizes) > 1:
        raise DecodeError(
            "corrupt", path, "the picture size changes inside the file; give size= or convert it."
        )


def _upright_size(frame) -> tuple[int, int]:
    return (frame.width, frame.height) if _rotation(frame) % 2 else (frame.height, frame.width)


def _to_pixels(size: tuple[int, int] | None) -> Callable:
    """Return a function from a decoded frame to upright uint8 RGB (H, W, 3)."""
    from av.video.reformatter import VideoReformatter

    reformatter = (
        VideoReformatter()
    )  # keeps its tables; frame.reformat would build them for every frame

    def pixels_of(frame) -> np.ndarray:
        turns = _rotation(frame)
        height, width = (frame.height, frame.width) if size is None else size
        if size is not None and turns % 2:
            height, width = width, height
        frame = reformatter.reformat(frame, width, height, "rgb24", interpolation="AREA")
        pixels = frame.to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels

    return pixels_of
