"""Recordings joined byte by byte (`cat a.ts b.ts`): where one clock ends and the next begins, and one clock for all.

in the file    0 1 2 3 | 1 2 3    (dts falls)        9 10 11 | 500 501    (dts leaps)
on one clock   0 1 2 3   4 5 6                       9 10 11   12  13
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import median

_LEAP_SECONDS = 5
"""MPEG asks for a time stamp every 0.7 s; more than this, and ten times the usual step, is another clock."""
_REORDERED = 16
"""Pictures that may be sent after one shown later (H.264 and HEVC allow 16)."""
_WRAP = 2**33
"""MPEG clocks count 33 bits. FFmpeg adds as much to a clock that goes back by over a minute."""


def clock_stretches(
    stamps: Sequence[int],
    decoding: Sequence[int | None],
    keys: Sequence[bool],
    container: str,
    time_base: Fraction,
) -> list[tuple[int, int]]:
    """Return (start, stop) of each run of packets, in file order, that tell their times by one clock.

    `stamps`, `decoding` and `keys` hold each packet's pts, dts and whether it is a key frame. A gap in another kind of
    file than MPEG's (mp4, Matroska: variable rate) is time that passed, and no new clock.
    """
    mpeg = _is_mpeg(container)
    stamped = [place for place, dts in enumerate(decoding) if dts is not None]
    steps = [_step(decoding[b] - decoding[a], mpeg) for a, b in pairwise(stamped)]
    leap = float("inf")
    if mpeg and steps:
        leap = max(_LEAP_SECONDS / time_base, 10 * median(steps))
    starts = {0} | {
        place for place, step in zip(stamped[1:], steps, strict=True) if not 0 <= step <= leap
    }
    # a key frame comes after all that was shown before it was decoded
    if mpeg or "flv" in container:
        highest = None
        for place, (stamp, key) in enumerate(zip(stamps, keys, strict=True)):
            if highest is None or place in starts:
                highest = stamp
            elif key and _step(stamp - highest, mpeg) <= 0:
                starts.add(place)
                highest = stamp
            elif _step(stamp - highest, mpeg) > 0:
                highest = stamp
    ordered = sorted(starts)
    return list(zip(ordered, [*ordered[1:], len(stamps)], strict=True))


def on_one_clock(
    stamps: Sequence[int], parts: Sequence[tuple[int, int]], container: str, frame: int
) -> list[int]:
    """The stamps of all stretches, ascending: each begins one `frame` (in ticks) after the last stamp before it."""
    placed: list[int] = []
    mpeg = _is_mpeg(container)
    for start, stop in parts:
        part = sorted(_step(stamp - stamps[start], mpeg) for stamp in stamps[start:stop])
        begin = placed[-1] + max(1, frame) if placed else 0
        placed += [begin + stamp - part[0] for stamp in part]
    return placed


def frames_before_keys(
    stamps: Sequence[int], keys: Sequence[bool], parts: Sequence[tuple[int, int]]
) -> int:
    """How many packets may show nothing because their stretch begins between key frames: sent, or shown, before one."""
    late = 0
    for start, stop in parts:
        key = next((place for place in range(start, stop) if keys[place]), stop)
        late += key - start
        late += sum(stamps[place] < stamps[key] for place in range(key + 1, stop))
    return late


def beside_losses(
    flagged: Sequence[int], stamps: Sequence[int | None], keys: Sequence[bool], ends: Sequence[int]
) -> frozenset[int | None]:
    """The stamps of pictures beside which something was lost, where FFmpeg flagged the packets at these places.

    It flags the packet before the one whose counters jump (its parser is one behind), or that one. They also jump, and
    nothing is lost, at the `ends` of recordings and before a key frame that follows in time: segments joined again.
    """
    first = keys.index(True) if True in keys else 0  # what comes before it is not shown
    lost = [
        at for at in flagged if not ({at + 1, at + 2} & {*ends} or _follows(stamps, keys, at + 2))
    ]
    beside = {place for at in lost for place in (at, at + 1)}
    return frozenset(stamps[place] for place in beside if first <= place < len(stamps))


def _follows(stamps: Sequence[int | None], keys: Sequence[bool], place: int) -> bool:
    """Whether a key frame is here, and no picture's time is missing since the key frame before it."""
    if place >= len(keys) or not keys[place]:
        return False
    begin = next((before for before in range(place - 1, -1, -1) if keys[before]), 0)
    around = stamps[max(0, min(begin, place - _REORDERED)) : place + _REORDERED + 1]
    if None in around:
        return False
    steps = [(a, b - a) for a, b in pairwise(sorted(around))]
    usual = median(step for _, step in steps)
    return all(
        step < 1.5 * usual for shown, step in steps if stamps[begin] <= shown < stamps[place]
    )


def _is_mpeg(container: str) -> bool:
    return container in ("mpegts", "mpeg")


def _step(ticks: int, mpeg: bool) -> int:
    """A difference of two times; of MPEG clocks the one within 13 hours, whatever wraps were added."""
    return (ticks + _WRAP // 2) % _WRAP - _WRAP // 2 if mpeg else ticks
