"""Which of many files hold the same bytes, by any name or link, and groups of records that keep them together.

A copy in the training part of a split gives its twin in the test part away, so both belong on one side.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stretchysnake.data.lists import read_list
from stretchysnake.data.records import COLUMNS, VideoRecord
from stretchysnake.data.records_key import ends_of, file_stamp


@dataclass(frozen=True, kw_only=True)
class Double:
    """Records of one source that show the same part of the same bytes; as text, a line about them."""

    paths: tuple[str, ...]
    lines: tuple[int, ...]
    """Of the list; () for a folder."""
    labels: tuple[str, ...]
    """The different labels they have."""
    one_file: bool
    """Whether all paths lead to one file; else they are files with the same bytes."""

    def as_json(self) -> dict:
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
        }

    @property
    def contradicts(self) -> bool:
        """Whether one file is said to show two things. Copies may have been labelled by different people."""
        return self.one_file and len(self.labels) > 1

    def __str__(self) -> str:
        names = list(dict.fromkeys(self.paths))
        told = f"{names[0]} is named {len(self.paths)} times"
        if len(names) > 1:
            told = f"{_listed(names, ' = ')} {'are one file' if self.one_file else 'have the same bytes'}"
        told += f" (lines {_listed(self.lines)})" if self.lines else ""
        return told + (
            f", with different labels: {_listed(self.labels)}" if len(self.labels) > 1 else ""
        )


def same_file(paths: Iterable[str | os.PathLike]) -> dict[str, str]:
    """Path -> the first of the paths that leads to the same file: by another spelling, a symbolic or a hard link."""
    first: dict[str, str] = {}
    by_file: dict[tuple, str] = {}
    for path in map(os.fspath, paths):
        try:
            status = os.stat(path)
            key = (status.st_dev, status.st_ino)
        except OSError:
            key = (os.path.abspath(path),)
        first[path] = by_file.setdefault(key, path)
    return first


def same_content(paths: Iterable[str | os.PathLike]) -> dict[str, str]:
    """Path -> the first of the paths with the same bytes; itself where it is the only one, missing or empty.

    Only different files of one size are read, so a set without copies costs little more than its listing.
    """
    first = same_file(paths)
    twin: dict[str, str] = {}
    for alike in _by_size(first.values()).values():
        for copies in _equal_files(alike):
            twin.update(dict.fromkeys(copies, copies[0]))
    return {path: twin.get(file, file) for path, file in first.items()}


def copies_in(gallery: Iterable[str], queries: Iterable[str]) -> dict[str, list[str]]:
    """Query file -> the gallery's files of other names with the same bytes, where there are any.

    Files of the gallery alone, whose size no query has, are not read: a gallery of 240,000 has many of one size.
    """
    gallery_by_size = _by_size(gallery)
    twins: dict[str, list[str]] = {}
    for size, paths in _by_size(queries).items():
        held, asking = dict.fromkeys(gallery_by_size.get(size, ())), set(paths)
        for copies in _equal_files([*dict.fromkeys([*held, *paths])] if held else []):
            for path in asking.intersection(copies):
                if others := [other for other in copies if other in held and other != path]:
                    twins[path] = others
    return twins


def _by_size(paths: Iterable[str]) -> dict[int, list[str]]:
    """Bytes -> the files of so many, each once; without those that are missing or empty."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        if (stamp := file_stamp(path)) and stamp[0]:
            by_size[stamp[0]].append(path)
    return by_size


def _equal_files(paths: Sequence[str]) -> list[list[str]]:
    """Of files of one size, the groups with the same bytes; read whole only where the ends are equal, as few are."""
    groups = [list(paths)]
    for digest_of in (ends_of, _digest):
        digests: dict[tuple, list[str]] = defaultdict(list)
        for number, group in enumerate(groups):
            for path in group if len(group) > 1 else ():
                digests[number, digest_of(path)].append(path)
        groups = list(digests.values())
    return [group for group in groups if len(group) > 1]


def _digest(path: str) -> bytes:
    """SHA-256 of the bytes; of the name where they cannot be read, which is like no other file's."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return b"unreadable " + os.fsencode(path)
    return digest.digest()


def with_copies_grouped(
    records: Sequence[VideoRecord], content: Mapping[str, str]
) -> list[VideoRecord]:
    """The records with groups such that those of the same bytes, or of the same group, have one group.

    `content` is their `same_content`. A group keeps its name; where copies join several groups, that of the first.
    Records that share nothing with another keep "".
    """
    above: dict[tuple, tuple] = {}

    def top(key: tuple) -> tuple:
        while key in above:
            key = above[key]
        return key

    keys = []
    for record in records:
        file, group = ("file", content[record.path]), ("group", record.group)
        keys.append(file)
        if record.group and top(file) != top(group):
            above[top(file)] = top(group)
    members: dict[tuple, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        members[top(key)].append(place)
    grouped = list(records)
    for number, places in enumerate(members.values()):
        names = [records[place].group for place in places if records[place].group]
        name = names[0] if names else f"copies {number}" if len(places) > 1 else ""
        for place in places:
            grouped[place] = replace(records[place], group=name)
    return grouped


def doubles_of(
    source: str | os.PathLike, records: Sequence[VideoRecord], content: Mapping[str, str]
) -> list[Double]:
    """What a source (whose records and `same_content` these are) names twice, contradictions first.

    Parts of one video with other seconds are different clips. Files that are copies are doubles only where
    their labels differ; otherwise each is a file of its own, and `same_content` tells it.
    """
    source = Path(source)
    lines = [row.line for row in read_list(source, COLUMNS)] if not source.is_dir() else []

    def doubles(same: Mapping[str, str], *, one_file: bool) -> Iterator[Double]:
        members: dict[tuple, list[int]] = defaultdict(list)
        for place, record in enumerate(records):
            members[same[record.path], record.start, record.end].append(place)
        for places in members.values():
            alike = [records[place] for place in places]
            if len(alike) > 1:
                yield Double(
                    paths=tuple(record.path for record in alike),
                    lines=tuple(lines[place] for place in places) if lines else (),
                    labels=tuple(dict.fromkeys(r.class_name or str(r.label) for r in alike)),
                    one_file=one_file,
                )

    named_twice = list(doubles(same_file(record.path for record in records), one_file=True))
    named = {path for double in named_twice for path in double.paths}
    for double in doubles(content, one_file=False):
        if len(double.labels) > 1 and not named.issuperset(double.paths):
            named_twice.append(double)
    return sorted(named_twice, key=lambda double: not double.contradicts)


def _listed(values: Sequence, between: str = ", ") -> str:
    return between.join(map(str, values[:3])) + (", ..." if len(values) > 3 else "")
