"""Where the frames of a video are: which there are, in which order and when, read from the packets without decoding.

The decoder's output order is the presentation order. Where time stamps say the same, a frame is found by its stamp;
where they do not (`ordinal`) frames are counted while decoding, and the stamps, ascending, are their times.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from math import inf

from stretchysnake.data.containers.container_length import ends_inside_packet, missing_bytes
from stretchysnake.data.containers.joined_clocks import (
    beside_losses,
    clock_stretches,
    frames_before_keys,
    on_one_clock,
)
from stretchysnake.data.containers.picture_types import picture_types
from stretchysnake.data.containers.promised_length import check_count, check_duration
from stretchysnake.data.decode_error import DecodeError, damaged_file

_SAME_RATE = 0.01
"""Share by which the header's rate may differ from the mean of the frames and be kept, as it stands."""


@dataclass(frozen=True, kw_only=True)
class PacketIndex:
    """Time stamps of all frames and of the key frames, sorted, in units of `time_base` seconds."""

    stamps: list[int]
    keyframes: list[int]
    ordinal: bool
    """Time stamps are missing, repeated or not those of the pictures: frames can only be counted while decoding."""
    time_base: Fraction
    decoder_base: Fraction | None = None
    """The unit of the decoder's time stamps, where `time_base` is that of the mean rate."""
    fps: float
    last_seconds: float | None = None
    """How long the last frame is shown, where its packet says so; otherwise it is taken to be 1 / fps."""
    note: str = ""
    """What is odd about the file although it can be read: what is missing, what was put in order."""
    uncounted_before: float | None = None
    """Packets up to this stamp may show no frame: only decoding tells (`counted`); inf: all of them."""
    num_silent: int = 0
    """How many packets may rightly show no frame."""
    num_clocks: int = 1
    """Recordings joined in the file, or pieces of an edit list that go back, each with a clock of its own."""
    damaged: frozenset[int | None] = frozenset()
    """Time stamps, as the decoder tells them, of pictures beside which packets were lost on the way into the file."""

    def seconds(self, i: int) -> float:
        """When frame `i` is shown, counted from the first frame."""
        base = self.time_base
        return (self.stamps[i] - self.stamps[0]) * base.numerator / base.denominator

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last one, which may be held."""
        held = 1 / self.fps if self.last_seconds is None else self.last_seconds
        return self.seconds(len(self.stamps) - 1) + held

    def shown_at(self, time: float) -> int:
        """The frame on screen at this second, counted from the first frame; O(log frames)."""
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
        if last <= first or (start is not None and start > max(times[-1] + 1, self.duration)):
            reason = f"no frame between {start} s and {end} s (it lasts {self.duration:.2f} s); fix the list."
            raise DecodeError("empty", path, reason)
        return first, last

    def begins_within(self, start: float, end: float) -> bool:
        """Whether a frame is first shown in [start, end) seconds; otherwise the one before stands still."""
        return self.seconds(self.shown_at(end - 2e-6)) > start - 1e-6

    def counted(self, path: str, shown: Sequence[int | None], num_fields: int) -> PacketIndex:
        """The index of the frames that a decoder showed: their stamps in its order, and how many may be half packets.

        Raises DecodeError where more are missing than `num_silent` and the fields explain.
        """
        if self.uncounted_before < inf:  # the head of a recording that begins between key frames
            seen, first = set(shown), self.uncounted_before
            stamps = [stamp for stamp in self.stamps if stamp >= first or stamp in seen]
            lost = len(self.stamps) - len(stamps)
            note = (
                f"its first {lost} frames refer to pictures before its beginning and are left out"
            )
            note = joined_notes(self.note, note if lost else "")
            return replace(self, stamps=stamps, note=note, uncounted_before=None)
        lost = len(self.stamps) - len(shown)
        if lost > self.num_silent + num_fields or not shown:
            reason = f"{lost} of its {len(self.stamps)} frames cannot be decoded; fetch the file again or leave it out."
            raise damaged_file(path, reason)
        if not lost:
            return replace(self, uncounted_before=None)
        if self.num_clocks == 1 and None not in shown and len(set(shown)) == len(shown):
            base = self.decoder_base or self.time_base
            return replace(self, stamps=sorted(shown), time_base=base, uncounted_before=None)
        return replace(_by_rate(self, len(shown)), uncounted_before=None)

    def at_mean_rate(self) -> PacketIndex:
        """The same with `fps` as its frames have it, where the header's, often a guess, is another."""
        last = len(self.stamps) - 1
        span = self.seconds(last)
        rounding = max(_SAME_RATE * span, float(self.time_base))
        if not span or abs(span - last / self.fps) <= rounding:
            return self
        return replace(self, fps=last / span)


def index_packets(
    path: str,
    packets: Iterable,
    stream,
    *,
    container: str = "",
    promised_seconds: float | None = None,
    sound_seconds: Callable[[], float] = lambda: 0.0,
) -> PacketIndex:
    """Index the packets of a stream; raise when less is there than the header promises.

    `container` is FFmpeg's name of the format, `promised_seconds` a length that its header states for all streams
    (None when it states none), `sound_seconds` tells when asked where the sound ends, which may be what is long.
    """
    types_of = picture_types(stream.codec_context.name, stream.codec_context.extradata)
    stamps, decoding, keys, durations = [], [], [], []
    num_packets, num_silent, types = 0, 0, ""
    head_hidden = hidden = resumed = has_b = False
    flagged = []
    for packet in packets:
        if packet.size == 0:  # the end marker
            continue
        num_packets += 1
        if "mpegts" in container and packet.is_corrupt:
            flagged.append(len(stamps))
        if packet.is_discard:  # outside the edit list: decoded, never shown
            head_hidden |= packet.is_keyframe and True not in keys
            hidden = bool(stamps)
            continue
        if types_of is not None:
            types = types_of(packet)
            if not types:  # an invisible reference, or a frame's second field
                if durations:
                    durations[-1] = 0  # it was a field's
                continue
            has_b |= "B" in types.upper()
            num_silent += len(types) != 1 or types == "N"
        resumed |= hidden
        stamps.append(packet.pts)
        decoding.append(packet.dts)
        keys.append(packet.is_keyframe)
        durations.append(packet.duration or 0)
    complete = check_count(path, stream, container, num_packets, len(stamps))
    note = ""
    if cut := stamps and "mpegts" in container and ends_inside_packet(path, stream.id):
        note = "it ends inside a packet, as a recording does that was stopped by hand: its end is missing"
    else:
        missing = missing_bytes(path)
        if complete and missing and stamps:
            note = f"it is {missing} bytes shorter than its structure says; all frames that its header counts are there"
        elif missing or not stamps:
            there = f"its end is missing (at least {missing} bytes), {num_packets} frames are there"
            there = there if stamps else "has a video stream without any frame"
            raise DecodeError(
                "truncated" if missing else "empty", path, f"{there}; fetch it again."
            )
    if (cut == "picture" or types.islower()) and len(stamps) > 1:
        note = joined_notes(note, "its last frame is not whole and is left out")
        for column in (stamps, decoding, keys, durations):
            column.pop()
    fps = float(stream.average_rate or stream.guessed_rate or 30)
    usable = None not in stamps
    ends = [len(stamps)] if cut else []
    index = PacketIndex(
        stamps=sorted(stamps) if usable else list(range(len(stamps))),
        keyframes=sorted(stamp for stamp, key in zip(stamps, keys, strict=True) if key and usable),
        ordinal=not usable or resumed or num_silent > 0 or len(set(stamps)) < len(stamps),
        time_base=stream.time_base,
        fps=fps,
        note=note,
        num_silent=num_silent,
        uncounted_before=inf if num_silent or not usable else None,
        damaged=beside_losses(flagged, stamps, keys, ends),
    )
    if not usable:
        return _by_rate(index, len(stamps))
    last = max(range(len(stamps)), key=stamps.__getitem__)
    index = replace(index, last_seconds=_held(stamps, last, durations, stream, complete))
    ends = [float(ticks * stream.time_base) for ticks in (stamps[last], durations[last])]
    check_duration(path, stream, *ends, promised_seconds, sound_seconds)
    parts = clock_stretches(stamps, decoding, keys, container, stream.time_base)
    if len(parts) > 1:
        note = ""
        if "mp4" not in container:  # there it is an edit list that shows pieces
            note = f"its clock starts anew, as in joined recordings: {len(parts)} are read one after the other"
        placed = on_one_clock(stamps, parts, container, round(1 / (fps * stream.time_base)))
        late = frames_before_keys(stamps, keys, parts)
        return replace(
            index,
            stamps=placed,
            ordinal=True,
            note=joined_notes(index.note, note),
            num_clocks=len(parts),
            damaged=beside_losses(flagged, stamps, keys, [*ends, *(start for start, _ in parts)]),
            num_silent=num_silent + late,
            uncounted_before=inf if late else index.uncounted_before,
        )
    if len(set(stamps)) < 0.9 * len(stamps):
        return _by_rate(index, len(stamps))
    reorders = has_b or (types_of is None and stream.codec_context.has_b_frames)
    ascends = all(a < b for a, b in pairwise(stamps))
    if reorders and len(stamps) > 1 and (ascends or container == "avi"):
        return replace(index, ordinal=True)
    if (not index.ordinal or resumed) and not head_hidden and index.uncounted_before is None:
        first = next((stamp for stamp, key in zip(stamps, keys, strict=True) if key), None)
        if first is not None and first > index.stamps[0]:
            return replace(index, uncounted_before=first)
    return index


def _held(stamps, last, durations, stream, places) -> float | None:
    """How long the last frame is shown; `places` counts the pictures an AVI file has room for, held ones included."""
    ticks = durations[last]
    if places is not True and places:
        ticks = max(ticks, min(stamps) + places - stamps[last])
    return float(ticks * stream.time_base) if ticks > 0 else None


def _by_rate(index: PacketIndex, count: int) -> PacketIndex:
    """An index whose frames are spaced by the mean rate, since no stamp can be used."""
    base = 1 / Fraction(index.fps).limit_denominator(100_000)
    return replace(
        index,
        stamps=list(range(count)),
        keyframes=[],
        ordinal=True,
        time_base=base,
        decoder_base=index.time_base,
        last_seconds=None,
    )


def joined_notes(*notes: str) -> str:
    """Those that are not empty, as one."""
    return "; ".join(filter(None, notes))
