"""What a header promises, and whether a file rightly holds less: an edit list, dropped pictures, a held one, sound.

A file that was cut off must never pass for a trimmed one, so each way out is checked in the file's own tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from stretchysnake.data.containers.container_length import avi_places, missing_bytes
from stretchysnake.data.containers.mp4_tables import trimmed_samples
from stretchysnake.data.decode_error import DecodeError


def header_rate(stream) -> float:
    """Frames per second as the header has it; 30 where it tells none."""
    return float(stream.average_rate or 30)


def check_count(path: str, stream, container: str, num_packets: int, num_shown: int) -> bool | int:
    """Raise unless all packets that the header counts are there; return whether it counts them (AVI: the places)."""
    promised = stream.frames
    if not promised or container in ("gif", "ivf"):  # IVF's count is often one of ticks
        return False
    if container == "avi" and promised > num_packets:  # places without a picture count, too
        places = avi_places(path, stream.index)
        if places is not None:
            return max(places, num_packets)
    elif "mp4" in container and promised > num_packets:
        entries = len(getattr(stream, "index_entries", ()))
        if 0 < entries <= num_packets and trimmed_samples(path, stream.id) == promised:
            promised = 0 if not missing_bytes(path) else promised
    if promised > num_packets:
        reason = f"the header promises {promised} frames, {num_packets} are there; fetch it again."
        raise DecodeError("truncated", path, reason)
    return num_shown > 0


def check_duration(
    path: str,
    stream,
    last: float,
    held: float,
    promised: float | None,
    sound_seconds: Callable[[], float],
) -> None:
    """Raise when the frames end before the stated length: Matroska and WebM state one per stream, FLV one for all.

    `last` is the second of the last frame, `held` how long its packet says that it is shown.
    """
    tolerance = 0.5  # of a length that sound, too, may have made longer
    text = next((value for key, value in stream.metadata.items() if key.upper() == "DURATION"), "")
    stated = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text, re.ASCII)
    if stated:
        promised = 3600 * int(stated[1]) + 60 * int(stated[2]) + float(stated[3])
        tolerance = 0.1
    if promised is None:
        return
    lacks = promised - tolerance - 2 / header_rate(stream)
    if lacks <= max(last, last + held - 1e-3) or (not stated and lacks <= sound_seconds()):
        return
    reason = f"the header promises {promised:.2f} s, frames end at {last:.2f} s; fetch it again."
    raise DecodeError("truncated", path, reason)
