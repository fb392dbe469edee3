"""The packets of an mp4 or QuickTime track as its own index lists them, so that no packet has to be read to count them.

FFmpeg's index holds each packet's place, size and decoding time; the file's tables hold what it leaves out, by how much
a frame is shown later than it is decoded. Other containers list key frames only, or nothing.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import NamedTuple

from stretchysnake.data.containers.mp4_tables import sample_times


class ListedPacket(NamedTuple):
    """What a packet says of itself, as PyAV's own packets do; `duration` in ticks."""

    pts: int
    dts: int
    duration: int
    size: int
    is_keyframe: bool
    is_discard: bool = False


def listed_packets(path: str, container: str, stream) -> list[ListedPacket] | None:
    """All packets of a stream in file order; None where the index lies, tells too little, or may not be believed.

    Believed is an index of exactly the samples that the tables count, one behind the other in the file, none of them
    beyond its end or hidden by an edit list, and no fragments that may follow. The first packet read must be as listed.
    """
    entries = getattr(stream, "index_entries", None) if "mp4" in container else None
    if not entries or len(entries) != stream.frames:
        return None
    times = sample_times(path, stream.id)
    if times is None or len(times[0]) != len(entries):
        return None
    delays, durations = (column.tolist() for column in times)
    # FFmpeg decodes all of the track earlier by the largest negative one
    earliest = min(0, *delays)
    packets, places = [], []
    for entry, delay, duration in zip(entries, delays, durations, strict=True):
        if entry.is_discard or entry.size <= 0 or duration <= 0:
            return None
        dts = entry.timestamp
        shown = dts + delay - earliest
        packets.append(ListedPacket(shown, dts, duration, entry.size, entry.is_keyframe))
        places.append(entry.pos)
    in_order = all(a < b for a, b in pairwise(places))
    advances = all(a.dts < b.dts for a, b in pairwise(packets))
    if not in_order or not advances or places[-1] + packets[-1].size > os.path.getsize(path):
        return None
    return packets


def is_as_listed(packet, listed: ListedPacket) -> bool:
    """Whether a packet that was read is the one listed."""
    return all(getattr(packet, name) == value for name, value in listed._asdict().items())
