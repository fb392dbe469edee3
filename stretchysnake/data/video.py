"""Video files: what is in them, frames at exact positions, how to write one. The only file that knows a decoder (PyAV).

Frames are counted in presentation order. The packets of a file are indexed once, without decoding; a seek is
made only when it passes a key frame that would otherwise be decoded for nothing; every frame is then matched by
its time stamp, so a seek that lands wrong is noticed and repaired, and a damaged file is named, never silently
sampled.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from stretchysnake.data.decode_error import DecodeError, check_file
from stretchysnake.data.packet_index import PacketIndex, index_packets


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

    head = check_file(path)
    try:
        # "file:" keeps names such as "a:b.mp4" from being read as a protocol
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, ValueError, OSError) as error:
        if head[4:8] == b"ftyp":
            reason = "its index is missing or broken: the file was cut off or never finished; fetch it again."
            raise DecodeError("truncated", path, reason) from error
        raise DecodeError(
            "unreadable", path, f"not a video file ({_first_line(error)})."
        ) from error
    if container.format.name in ("tty", "image2") or container.format.name.endswith("_pipe"):
        container.close()
        raise DecodeError(
            "unreadable", path, "holds text or an image, not a video; give a video file."
        )
    if not container.streams.video:
        container.close()
        raise DecodeError(
            "no_video", path, "has no video stream (audio only?); give a file with pictures."
        )
    return container


@contextmanager
def _opened(path: str):
    container = _open(path)
    try:
        stream = container.streams.video[0]
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _rotation(frame) -> int:
    """Quarter turns counter-clockwise that show the frame upright."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def _index(path: str, container, stream) -> PacketIndex:
    import av

    try:
        return index_packets(path, container.demux(stream), stream)
    except av.FFmpegError as error:
        reason = f"its packets cannot be read to the end ({_first_line(error)}); fetch it again."
        raise DecodeError("corrupt", path, reason) from error


def probe(path: str | os.PathLike) -> VideoInfo:
    """Return what the video holds; the frame count is counted, not read from the header."""
    path = os.fspath(path)
    with _opened(path) as (container, stream):
        index = _index(path, container, stream)
        fps = float(stream.average_rate or stream.guessed_rate or 30)
        codec = stream.codec_context.name
    _, height, width, _ = read_frames(path, [0]).shape
    span = float((index.stamps[-1] - index.stamps[0]) * index.time_base)
    return VideoInfo(
        num_frames=len(index.stamps),
        fps=fps,
        duration_seconds=span + 1 / fps,
        width=width,
        height=height,
        codec=codec,
    )


def read_frames(
    path: str | os.PathLike,
    indices: Sequence[int] | Callable[[int], Sequence[int]],
    *,
    size: tuple[int, int] | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> np.ndarray:
    """Return frames (T, H, W, 3) uint8 RGB at `indices`, in the order asked; repeats are allowed.

    `indices` may be a function of the number of frames, so that a caller who samples needs no `probe` first. With
    `start_seconds`/`end_seconds` only frames shown in [start, end) exist, and index 0 is the first of them.
    `size` = (height, width) resizes with area averaging; the aspect ratio is the caller's business.
    """
    path = os.fspath(path)
    with _opened(path) as (container, stream):
        index = _index(path, container, stream)
        first, last = index.window(path, start_seconds, end_seconds)
        chosen = list(indices(last - first) if callable(indices) else indices)
        if outside := [i for i in chosen if not 0 <= i < last - first]:
            raise ValueError(
                f"index {outside[0]} is outside {path}, which has frames 0 to {last - first - 1}."
            )
        wanted = sorted({first + i for i in chosen})
        frames = (
            None
            if index.ordinal
            else _decode_by_stamp(path, container, stream, index, wanted, size)
        )
    if (
        frames is None
    ):  # no usable time stamps, or a seek that missed: start again and go through in order
        with _opened(path) as (container, stream):
            frames = _decode_in_order(path, container, stream, index, wanted, size)
    shapes = {frame.shape for frame in frames.values()}
    if len(shapes) > 1:
        raise DecodeError(
            "corrupt", path, "the picture size changes inside the file; give size= or convert it."
        )
    return (
        np.stack([frames[first + i] for i in chosen])
        if chosen
        else np.empty((0, 0, 0, 3), np.uint8)
    )


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


def _decode_by_stamp(path, container, stream, index, wanted, size) -> dict[int, np.ndarray] | None:
    """Return frame index -> pixels, seeking only past key frames; None when a seek did not land where it should."""
    import av

    stamps, frames, position, pixels_of = index.stamps, {}, None, _to_pixels(size)
    decoded = container.decode(stream)
    try:
        for i in wanted:
            target = stamps[i]
            at = bisect_right(index.keyframes, target) - 1
            keyframe = index.keyframes[at] if at >= 0 else None
            if position is None or (keyframe is not None and keyframe > position):
                # demuxing has run to the end, so the first frame always needs a seek
                container.seek(
                    stamps[0] if keyframe is None else keyframe, stream=stream, backward=True
                )
                decoded = container.decode(stream)
            for frame in decoded:
                if frame.pts is None:
                    return None
                position = frame.pts
                if position >= target:
                    break
            else:
                return None
            if position != target or frame.is_corrupt:
                return None
            frames[i] = pixels_of(frame)
    except av.FFmpegError:
        return None
    return frames


def _decode_in_order(path, container, stream, index, wanted, size) -> dict[int, np.ndarray]:
    """Decode from the first frame and count, or match time stamps where they can be trusted."""
    import av

    places = {stamp: i for i, stamp in enumerate(index.stamps)}
    remaining, frames, count, pixels_of = set(wanted), {}, 0, _to_pixels(size)
    try:
        for frame in container.decode(stream):
            i = count if index.ordinal else places.get(frame.pts, -1)
            count += 1
            if i not in remaining:
                continue
            if frame.is_corrupt:
                raise DecodeError(
                    "corrupt", path, f"frame {i} is damaged; fetch the file again or leave it out."
                )
            frames[i] = pixels_of(frame)
            remaining.discard(i)
            if not remaining:
                return frames
    except av.FFmpegError as error:
        reason = f"decoding fails after {count} frames ({_first_line(error)}); fetch the file again or leave it out."
        raise DecodeError("corrupt", path, reason) from error
    if remaining:
        place = f"frame {min(remaining)} of {len(index.stamps)}"
        reason = f"{place} cannot be decoded; fetch the file again or leave it out."
        raise DecodeError("corrupt", path, reason)
    return frames


def write_video(
    path: str | os.PathLike,
    frames: np.ndarray,
    *,
    fps: int = 30,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> None:
    """Write uint8 RGB frames (T, H, W, 3), H and W even, as yuv420p; the container follows the file's extension.

    Frames (T, H * 3 // 2, W) are taken as yuv420p already. One encoder thread, so the same frames give the same bytes.
    """
    import av

    pixel_format = "rgb24" if frames.ndim == 4 else "yuv420p"
    num_frames, height, width = frames.shape[:3]
    if pixel_format == "yuv420p":
        height = height * 2 // 3
    if height % 2 or width % 2:
        raise ValueError(
            f"frame size ({height}x{width}) must be even for yuv420p; crop or pad by one pixel."
        )
    if codec == "libx264" and options is None:
        options = {"preset": "ultrafast", "crf": "23"}
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for i in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frames[i], format=pixel_format)))
        container.mux(stream.encode())


def write_image(path: str | os.PathLike, pixels: np.ndarray) -> None:
    """Write uint8 RGB pixels (H, W, 3) as PNG."""
    import av

    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = pixels.shape[:2]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    with open(path, "wb") as file:
        file.write(b"".join(bytes(packet) for packet in packets))
