"""What pages show of a video or a part of one: a few frames side by side, and a short preview that plays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import mp4_bytes, png_bytes, read_frames_at
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS, map_decoding
from stretchysnake.search.time_windows import frame_times

NUM_FRAMES, HEIGHT, GAP = 5, 108, 4
PREVIEW_SECONDS, PREVIEW_FPS = 4.0, 8


class Pictures(NamedTuple):
    """Of one part of a video."""

    strip_png: bytes
    """A few of its frames, evenly spread, side by side."""
    preview_mp4: bytes
    """Its middle at its own speed, up to four seconds at eight frames a second, without sound."""
    preview_start: float
    """Seconds of the video at which the preview begins."""
    preview_end: float


def pictures_of(
    parts: Sequence[tuple[str, float, float | None]],
    *,
    num_workers: int = 1,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> list[Pictures | DecodeError]:
    """For each (path, start, end in seconds, None is the end) its pictures, or why there are none."""
    tasks = ((part[0], part) for part in parts)
    limits = {"num_workers": num_workers, "timeout_seconds": timeout_seconds}
    return list(map_decoding(_pictures, tasks, **limits))


def _size(height: int, width: int) -> tuple[int, int]:
    return HEIGHT, max(2, 2 * round(HEIGHT * width / height / 2))


def _pictures(part: tuple[str, float, float | None]) -> Pictures:
    path, start, end = part
    preview: list[float] = []

    def times(duration: float) -> list[float]:
        last = duration if end is None else min(end, duration)
        if not 0 <= start < last:
            raise DecodeError("corrupt", path, f"is now shorter than {start:g} s.")
        length = min(PREVIEW_SECONDS, last - start)
        begin = start + (last - start - length) / 2
        preview[:] = begin, begin + length
        count = max(1, round(length * PREVIEW_FPS))
        return [*frame_times(start, last, NUM_FRAMES), *frame_times(*preview, count)]

    small = read_frames_at(path, times, size=_size)
    gap = np.full((HEIGHT, GAP, 3), 127, np.uint8)
    pieces = [piece for frame in small[:NUM_FRAMES] for piece in (frame, gap)][:-1]
    strip = png_bytes(np.concatenate(pieces, axis=1))
    return Pictures(strip, mp4_bytes(small[NUM_FRAMES:], fps=PREVIEW_FPS), *preview)
