"""Which parts of a video are embedded: all of it, or windows of a fixed length.

Windows of w seconds start every s seconds (s = w unless said otherwise) as long as they fit; where the end is left
over, one more ends with the video. A video shorter than a window is one window.

| duration | w, s   | windows                   |
|----------|--------|---------------------------|
| 10       | 4, 4   | 0-4 4-8 6-10              |
| 8        | 4, 2   | 0-4 2-6 4-8               |
| 3        | 4, 4   | 0-3                       |

A window in which no frame is first shown is left out: a picture that stands still for an hour, or a recorder's clock
that leaps ahead, gives one window with that picture and not one every w seconds.
"""

from collections.abc import Iterable, Iterator

from stretchysnake.data.containers.packet_index import PacketIndex

_ROUNDING = 1e-6
"""Seconds: sums of floats that close are taken as equal."""


def time_windows(
    duration: float,
    window_seconds: float,
    stride_seconds: float | None = None,
    *,
    near: Iterable[float] | None = None,
) -> list[tuple[float, float]]:
    """(start, end) in seconds of each window of a video of this duration; of all that hold one of the ascending seconds
    `near`, where they are given, and of some beside them."""
    stride = stride_seconds or window_seconds
    if duration <= window_seconds + _ROUNDING:
        return [(0.0, duration)]
    count = int((duration - window_seconds + _ROUNDING) / stride) + 1
    numbers = range(count) if near is None else _numbers(near, window_seconds, stride, count)
    windows = [(i * stride, min(i * stride + window_seconds, duration)) for i in numbers]
    if duration - min((count - 1) * stride + window_seconds, duration) > _ROUNDING:
        windows.append((duration - window_seconds, duration))
    return windows


def _numbers(
    near: Iterable[float], window_seconds: float, stride: float, count: int
) -> Iterator[int]:
    """Which windows of so many may hold these seconds, ascending, each once."""
    following = 0
    for time in near:
        first = int((time - window_seconds - 2 * _ROUNDING) / stride) - 1
        last = int((time + 2 * _ROUNDING) / stride) + 1
        yield from range(max(following, first), min(last + 1, count))
        following = max(following, last + 1)


def time_windows_with_frames(
    index: PacketIndex, window_seconds: float, stride_seconds: float | None = None
) -> list[tuple[float, float]]:
    """Those windows of a video in which a frame is first shown; the first window always is one."""
    # only near frames: a clock that leaps has windows without end
    shown = map(index.seconds, range(len(index.stamps)))
    windows = time_windows(index.duration, window_seconds, stride_seconds, near=shown)
    return [(start, end) for start, end in windows if index.begins_within(start, end)]


def frame_times(start: float, end: float, num_frames: int) -> list[float]:
    """The middle of each of num_frames equal parts of a window, in seconds."""
    step = (end - start) / num_frames
    return [start + (i + 0.5) * step for i in range(num_frames)]
