"""Queries that the gallery holds too: as the same video, as a part that overlaps, or as a copy of its bytes."""

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stretchysnake.data.records import VideoRecord
from stretchysnake.data.records_key import ends_of, file_stamp

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
        for path, twins in _copies(by_file, others).items()
        for segment in others[path]
    )
    return Meetings(total=len(queries), same=same, overlapping=overlapping, copies=copies)


def _overlap(segment: tuple[float, float], parts: Iterable[tuple[float, float]]) -> bool:
    return any(start < segment[1] and segment[0] < end for start, end in parts)


def _copies(gallery: Iterable[str], queries: Iterable[str]) -> dict[str, list[str]]:
    """Query file -> gallery files of other names with the same bytes."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in gallery:
        if stamp := file_stamp(path):
            by_size[stamp[0]].append(path)
    digests: dict[tuple, str | None] = {}

    def digest_of(act, path: str) -> str | None:
        if (act, path) not in digests:
            digests[act, path] = act(path)
        return digests[act, path]

    copies = {}
    for path in queries:
        stamp = file_stamp(path)
        twins = by_size.get(stamp[0], []) if stamp and stamp[0] else []
        for act in (ends_of, _sha256):
            # in this order: most files of one size differ in their ends
            twins = [t for t in twins if t != path and digest_of(act, t) == digest_of(act, path)]
        if twins:
            copies[path] = twins
    return copies


def _sha256(path: str) -> str | None:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()
