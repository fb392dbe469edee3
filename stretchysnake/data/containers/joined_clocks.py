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


def _is_mpeg(container: str) -> bool:
    return container in ("mpegts", "mpeg")


def _step(ticks: int, mpeg: bool) -> int:
    """A difference of two times; of MPEG clocks the one within 13 hours, whatever wraps were added."""
    return (ticks + _WRAP // 2) % _WRAP - _WRAP // 2 if mpeg else ticks
