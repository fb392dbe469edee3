"""Where the frames of a video are: time stamps in presentation order, read from the packets without decoding."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from stretchysnake.data.decode_error import DecodeError


@dataclass(frozen=True, kw_only=True)
class PacketIndex:
    """Time stamps of all frames and of the key frames, sorted, in units of `time_base` seconds."""

    stamps: list[int]
    keyframes: list[int]
    ordinal: bool
    """Time stamps are missing or repeated: frames can only be counted while decoding from the start."""
    time_base: Fraction

    def seconds(self, i: int) -> float:
        """When frame `i` is shown, counted from the first frame."""
        return float((self.stamps[i] - self.stamps[0]) * self.time_base)

    def window(self, path: str, start: float | None, end: float | None) -> tuple[int, int]:
        """Return (first, last + 1) of the frames shown in [start, end) seconds; None leaves that side open.

        The frame already on screen at `start` is the first.
        """
        times = [self.seconds(i) for i in range(len(self.stamps))]
        first = 0 if start is None else max(0, bisect_right(times, start + 1e-6) - 1)
        last = len(times) if end is None else bisect_left(times, end - 1e-6)
        if last <= first or (start is not None and start > times[-1] + 1):
            reason = f"no frame between {start} s and {end} s (it lasts {times[-1]:.2f} s); fix the list."
            raise DecodeError("empty", path, reason)
        return first, last


def index_packets(path: str, packets: Iterable, stream) -> PacketIndex:
    """Index the packets of a stream; raise when less is there than the header promises."""
    stamps, keyframes, num_packets, ordinal = [], [], 0, False
    for packet in packets:
        if packet.size == 0:  # the end marker
            continue
        num_packets += 1
        if packet.is_discard:  # before the edit list's start: decoded, never shown
            continue
        if packet.pts is None:
            ordinal = True
            stamps.append(packet.dts if packet.dts is not None else num_packets)
            continue
        stamps.append(packet.pts)
        if packet.is_keyframe:
            keyframes.append(packet.pts)
    if not stamps:
        raise DecodeError(
            "truncated" if stream.frames else "empty",
            path,
            "has a video stream without any frame; fetch it again.",
        )
    if stream.frames > num_packets:
        reason = (
            f"the header promises {stream.frames} frames, {num_packets} are there; fetch it again."
        )
        raise DecodeError("truncated", path, reason)
    _check_duration(path, stream, max(stamps))
    return PacketIndex(
        stamps=sorted(stamps),
        keyframes=sorted(keyframes),
        ordinal=ordinal or len(set(stamps)) < len(stamps),
        time_base=stream.time_base,
    )


def _check_duration(path: str, stream, last: int) -> None:
    """Matroska and WebM state no frame count, but a duration per stream ("00:00:04.033000000")."""
    text = next((value for key, value in stream.metadata.items() if key.upper() == "DURATION"), "")
    parts = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text, re.ASCII)
    if parts is None:
        return
    promised = 3600 * int(parts[1]) + 60 * int(parts[2]) + float(parts[3])
    found = float(last * stream.time_base)
    if promised - found > 0.1 + 2 / float(stream.average_rate or 30):
        reason = (
            f"the header promises {promised:.2f} s, frames end at {found:.2f} s; fetch it again."
        )
        raise DecodeError("truncated", path, reason)
