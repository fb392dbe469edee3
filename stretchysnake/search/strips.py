"""A few frames of a video side by side, for pages that show results."""

from collections.abc import Sequence

import numpy as np

from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import png_bytes, read_frames_at
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS, map_decoding
from stretchysnake.search.time_windows import frame_times

NUM_FRAMES, HEIGHT, GAP = 5, 108, 4


def strips(
    parts: Sequence[tuple[str, float, float | None]],
    *,
    num_workers: int = 1,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> list[bytes | DecodeError]:
    """For each (path, start, end in seconds, None is the end) a PNG of a few of its frames, or why there is none."""
    tasks = ((part[0], part) for part in parts)
    limits = {"num_workers": num_workers, "timeout_seconds": timeout_seconds}
    return list(map_decoding(_strip, tasks, **limits))


def _strip_size(height: int, width: int) -> tuple[int, int]:
    return HEIGHT, max(1, round(HEIGHT * width / height))


def _strip(part: tuple[str, float, float | None]) -> bytes:
    path, start, end = part

    def times(duration: float) -> list[float]:
        last = duration if end is None else min(end, duration)
        if not 0 <= start < last:
            raise DecodeError("corrupt", path, f"is now shorter than {start:g} s.")
        return frame_times(start, last, NUM_FRAMES)

    small = read_frames_at(path, times, size=_strip_size)
    gap = np.full((HEIGHT, GAP, 3), 127, np.uint8)
    pieces = [piece for frame in small for piece in (frame, gap)][:-1]
    return png_bytes(np.concatenate(pieces, axis=1))
