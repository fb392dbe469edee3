"""The video track of a file, opened: which of several it is, and what of its frames is shown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from functools import cache

import numpy as np

from stretchysnake.data.decode_error import DecodeError, check_file, damaged_file, unopened_file
from stretchysnake.data.decoding.picture import (
    Orientation,
    Part,
    PictureChanges,
    Size,
    orientation_reader,
    pictures_of,
    pixel_aspect,
    resized,
    shown_size,
    shown_track,
    size_asked,
    upright,
)

OLDEST_AV = 17
"""Earlier ones give BT.709 videos, nearly all of HD, in the colours of BT.601, and 14.0 lacks what tells covers."""


@cache
def check_av() -> None:
    """RuntimeError with the command to run where PyAV is too old to be trusted with colours."""
    import av

    if int(av.__version__.split(".")[0]) < OLDEST_AV:
        raise RuntimeError(
            f"av ({av.__version__}) must be {OLDEST_AV} or newer, older ones give wrong colours: "
            f"pip install 'av>={OLDEST_AV}'"
        )


def _open(path: str):
    import av

    check_av()
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
    if not pictures_of(container.streams.video):
        num_streams = len(container.streams)
        container.close()
        if not num_streams:
            raise damaged_file(path, "its header lists neither pictures nor sound; fetch it again.")
        raise DecodeError(
            "no_video", path, "has no video stream (audio only?); give a file with pictures."
        )
    return container


@contextmanager
def opened(path: str):
    """(container, stream) of the track that is shown; DecodeError where there is none."""
    container = _open(path)
    try:
        stream = shown_track(pictures_of(container.streams.video))
        if stream.codec_context is None:
            raise DecodeError(
                "unreadable", path, "its codec is not known to this decoder; convert it to h264."
            )
        stream.codec_context.thread_count = 1  # one process a file, never threads inside one
        yield container, stream
    finally:
        container.close()


def to_pixels(size: Size, stream, part: Part | None = None) -> Callable:
    """Return a function from a decoded frame of this stream, and its index, to upright uint8 RGB (H, W, 3) of the size
    asked for.

    Only the `part` of the picture shown is resized, and where it can be, only that becomes RGB; the function raises
    PictureChanges where a frame is shown in another size than those before, or than the header says.
    """
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()  # keeps its tables, which frame.reformat makes for every frame
    aspect, oriented = pixel_aspect(stream), orientation_reader()
    seen = expected_sizes(None, stream)

    def rgb_of(frame) -> np.ndarray:
        rgb = reformatter.reformat(
            frame, frame.width, frame.height, "rgb24", interpolation="BILINEAR"
        )
        # in the frame's own memory: to_ndarray copies it, which takes as long as the conversion
        plane = rgb.planes[0]
        return np.ndarray((rgb.height, rgb.width, 3), np.uint8, plane, 0, (plane.line_size, 3, 1))

    def pixels_of(frame, _: int) -> np.ndarray:
        orientation = oriented(frame)
        shown = shown_size(frame.height, frame.width, orientation, aspect)
        if part is None:
            return resized(upright(rgb_of(frame), orientation), size_asked(size, shown))
        if shown not in seen:
            raise PictureChanges
        seen.intersection_update({shown})
        top, left, height, width = part(*shown)
        if orientation == Orientation() and shown == (frame.height, frame.width):
            frame, top, left = _cut(frame, top, left, height, width)
            pixels = rgb_of(frame)
        else:
            pixels = resized(upright(rgb_of(frame), orientation), shown)
        return resized(pixels[top : top + height, left : left + width], size_asked(size, shown))

    return pixels_of


_WORTH_CUTTING = 0.5
"""Share of the picture above which copying its planes takes longer than converting all of it (at 720p 0.95 and 0.47 ns
for each pixel, docs/log.md)."""


def _cut(frame, top: int, left: int, height: int, width: int):
    """(a frame that holds this part of the picture, where in it the part begins), whose RGB is that of the whole frame
    bit for bit; the frame itself where that is not certain, or not worth it."""
    import av

    sides = {frame.width, frame.height}
    if (
        frame.format.name not in ("yuv420p", "yuvj420p")
        or any(side % 2 for side in sides)  # the converter of odd ones looks at neighbours
        or frame.interlaced_frame
        or width * height > _WORTH_CUTTING * frame.width * frame.height
    ):
        return frame, top, left
    y, x = top // 2 * 2, left // 2 * 2  # two by two pixels share their colour
    height, width = (-(-n // 2) * 2 for n in (top + height - y, left + width - x))
    part = av.VideoFrame(width, height, frame.format.name)
    for number, (ours, theirs) in enumerate(zip(part.planes, frame.planes, strict=True)):
        by = 2 if number else 1
        rows, columns = (slice(n // by, (n + size) // by) for n, size in ((y, height), (x, width)))
        pixels = np.frombuffer(theirs, np.uint8).reshape(-1, theirs.line_size)[rows, columns]
        into = np.frombuffer(ours, np.uint8).reshape(-1, ours.line_size)
        into[: height // by, : width // by] = pixels
    part.colorspace, part.color_range = frame.colorspace, frame.color_range
    return part, top - y, left - x


def expected_sizes(size: Size, stream) -> set[tuple[int, int]]:
    """What frames measure, by the header, which tells the first frame's size; either way round, as a frame may lie."""
    if isinstance(size, tuple):
        return {size}
    ways = (Orientation(transposed=transposed) for transposed in (False, True))
    shown = (shown_size(stream.height, stream.width, way, pixel_aspect(stream)) for way in ways)
    return {size_asked(size, one) for one in shown}


def track_note(container, stream) -> str:
    """Which of several video tracks is read; "" where there is one."""
    tracks = pictures_of(container.streams.video)
    if len(tracks) == 1:
        return ""
    place, size = tracks.index(stream) + 1, f"{stream.width}x{stream.height}"
    return f"of its {len(tracks)} video tracks number {place} is read ({size})"
