"""Queries that the gallery holds too: as the same video, as a part that overlaps, or as a copy of its bytes."""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stretchysnake.data.copies import copies_in
from stretchysnake.data.records import VideoRecord

Segment = tuple[float | None, float | None]
"""(start, end) in seconds; None is the video's own."""


def places(paths: Iterable[str], segments: Iterable[Segment]) -> list[tuple[str, float, float]]:
    """(path without links, start, end) of each video: equal where two records show the same frames."""
    folders: dict[str, str] = {}
    spans = []
    for path, (start, end) in zip(paths, segments, strict=True):
        folder, name = os.path.split(os.path.abspath(path))
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        whole = os.path.join(folders[folder], name)
        if os.path.islink(whole):
            whole = os.path.realpath(whole)
        spans.append((whole, start or 0.0, math.inf if end is None else end))
    return spans


def places_of(records: Sequence[VideoRecord]) -> list[tuple[str, float, float]]:
    """`places` of records."""
    return places([r.path for r in records], [(r.start, r.end) for r in records])


def refuse_self_matches(gallery: Sequence[VideoRecord], queries: Sequence[VideoRecord]) -> None:
    """ValueError when a query is a video of the gallery."""
    held = set(places_of(gallery))
    same = [r for r, place in zip(queries, places_of(queries), strict=True) if place in held]
    if same:
        raise ValueError(refusal(len(same), len(queries), same[0].path))


def refusal(count: int, total: int, first: str) -> str:
    """What is said of queries that would find themselves."""
    return (
        f"queries ({count} of {total}, first {first}) are in the gallery too, so each would find itself and the number "
        "would say nothing; take them out of one list, or give allow_self true (stretchysnake evaluate --allow_self "
        "true), which leaves each out of its own ranking"
    )


@dataclass(frozen=True, kw_only=True)
class Meetings:
    """How many queries, of `total`, meet the gallery; each is counted once, in this order."""

    total: int
    same: int
    """Equal in path, start and end."""
    overlapping: int
    """Another part of the same file, with seconds in common."""
    copies: int
    """A file of the same bytes under another name, with seconds in common."""

    def notes(self, protocol: str) -> list[str]:
        """For the note of a row of this protocol."""
        lines = []
        if self.same:
            done = ", each left out of its own ranking" if protocol.startswith("retrieval") else ""
            lines.append(f"{self.same} of {self.total} queries are in the gallery too{done}")
        if self.overlapping:
            # Lists of segments often share a boundary, so this is told and not refused.
            lines.append(
                f"{self.overlapping} of {self.total} queries overlap a gallery video's seconds"
            )
        if self.copies:
            # Public benchmarks hold some; their official lists must stay usable.
            lines.append(
                f"{self.copies} of {self.total} queries are copies of a gallery video's bytes"
            )
        return lines


def meetings(gallery: Sequence[VideoRecord], queries: Sequence[VideoRecord]) -> Meetings:
    """Count them. Files are compared by size, then by their ends, and read whole only where both are equal."""
    by_file: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path, start, end in places_of(gallery):
        by_file[path].append((start, end))
    same = overlapping = 0
    others: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path, start, end in places_of(queries):
        if (start, end) in by_file.get(path, ()):
            same += 1
        elif _overlap((start, end), by_file.get(path, ())):
            overlapping += 1
        else:
            others[path].append((start, end))
    copies = sum(
        _overlap(segment, [part for twin in twins for part in by_file[twin]])
        for path, twins in copies_in(by_file, others).items()
        for segment in others[path]
    )
    return Meetings(total=len(queries), same=same, overlapping=overlapping, copies=copies)


def _overlap(segment: tuple[float, float], parts: Iterable[tuple[float, float]]) -> bool:
    return any(start < segment[1] and segment[0] < end for start, end in parts)
