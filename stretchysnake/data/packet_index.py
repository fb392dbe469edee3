"""Where the frames of a video are: time stamps in presentation order, read from the packets without decoding."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from stretchysnake.data.container_length import missing_bytes
from stretchysnake.data.decode_error import DecodeError


@dataclass(frozen=True, kw_only=True)
class PacketIndex:
    """Time stamps of all frames and of the key frames, sorted, in units of `time_base` seconds."""

    stamps: list[int]
    keyframes: list[int]
    ordinal: bool
    """Time stamps are missing or repeated: frames can only be counted while decoding from the start."""
    time_base: Fraction
    fps: float

    def seconds(self, i: int) -> float:
        """When frame `i` is shown, counted from the first frame; by the frame rate where time stamps are no use."""
        if self.ordinal:
            return i / self.fps
        ticks = self.stamps[i] - self.stamps[0]  # a Fraction per frame would take seconds an hour
        return ticks * self.time_base.numerator / self.time_base.denominator

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last one."""
        return self.seconds(len(self.stamps) - 1) + 1 / self.fps

    def shown_at(self, time: float) -> int:
        """The frame on screen at this second, counted from the first frame."""
        return max(0, bisect_right(self._times, time + 1e-6) - 1)

    @cached_property
    def _times(self) -> list[float]:
        return [self.seconds(i) for i in range(len(self.stamps))]

    def window(self, path: str, start: float | None, end: float | None) -> tuple[int, int]:
        """Return (first, last + 1) of the frames shown in [start, end) seconds; None leaves that side open.

        The frame already on screen at `start` is the first.
        """
        if start is None and end is None:
            return 0, len(self.stamps)
        times = self._times
        first = 0 if start is None else max(0, bisect_right(times, start + 1e-6) - 1)
        last = len(times) if end is None else bisect_left(times, end - 1e-6)
        if last <= first or (start is not None and start > times[-1] + 1):
            reason = f"no frame between {start} s and {end} s (it lasts {times[-1]:.2f} s); fix the list."
            raise DecodeError("empty", path, reason)
        return first, last

    def begins_within(self, start: float, end: float) -> bool:
        """Whether a frame is first shown in [start, end) seconds; otherwise the one before stands still."""
        return self.seconds(self.shown_at(end - 2e-6)) > start - 1e-6


def index_packets(
    path: str, packets: Iterable, stream, *, promised_seconds: float | None = None
) -> PacketIndex:
    """Index the packets of a stream; raise when less is there than the header promises.

    `promised_seconds` is a length that the container's header states; None when it states none of its own.
    """
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
    missing = missing_bytes(path) if not stream.frames or stream.codec_context.name == "gif" else 0
    if not stamps:
        raise DecodeError(
            "truncated" if stream.frames or missing else "empty",
            path,
            "has a video stream without any frame; fetch it again.",
        )
    if stream.frames > num_packets:
        reason = (
            f"the header promises {stream.frames} frames, {num_packets} are there; fetch it again."
        )
        raise DecodeError("truncated", path, reason)
    if missing:
        reason = f"its end is missing (at least {missing} bytes), {num_packets} frames are there; fetch it again."
        raise DecodeError("truncated", path, reason)
    _check_duration(path, stream, max(stamps), promised_seconds)
    return PacketIndex(
        stamps=sorted(stamps),
        keyframes=sorted(keyframes),
        ordinal=ordinal or len(set(stamps)) < len(stamps),
        time_base=stream.time_base,
        fps=float(stream.average_rate or stream.guessed_rate or 30),
    )


def _check_duration(path: str, stream, last: int, promised: float | None) -> None:
    """Matroska and WebM state no frame count, but a duration per stream ("00:00:04.033000000"); FLV states one."""
    tolerance = 0.5  # of a length that sound, too, may have made longer
    text = next((value for key, value in stream.metadata.items() if key.upper() == "DURATION"), "")
    if parts := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text, re.ASCII):
        promised = 3600 * int(parts[1]) + 60 * int(parts[2]) + float(parts[3])
        tolerance = 0.1
    if promised is None:
        return
    found = float(last * stream.time_base)
    if promised - found > tolerance + 2 / float(stream.average_rate or 30):
        reason = (
            f"the header promises {promised:.2f} s, frames end at {found:.2f} s; fetch it again."
        )
        raise DecodeError("truncated", path, reason)
