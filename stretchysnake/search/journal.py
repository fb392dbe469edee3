"""An index being made: what is done survives a kill at any moment, and the last step is all or nothing.

    index/.unfinished/
      lock, settings.json
      features.f32    rows of finished videos, appended
      done.jsonl      one line per finished video, appended after its rows

At the end the rows become a segment of the index (segments/commit.py says how that is made at once).
Rows are believed when their digest is that of their line; a torn end is cut off and made again.

Covered: a process that ends at any instruction loses the video it was at and no other; a reader sees the old index or
the new one, never a mixture; two writers on one machine (a lock); features changed by accident. Not covered: features
and lines changed together on purpose, since a digest is no signature; a power cut, after which lines that the system
had not written are made again; two writers on several machines, where the file system does not pass locks on, or on
Windows.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from stretchysnake.eval.features.feature_table import MANIFEST
from stretchysnake.search.index import (
    Index,
    IndexRow,
    IndexSettings,
    VideoFile,
    is_index,
    read_index,
    write_manifest,
)
from stretchysnake.search.segments.commit import LINES, ROWS, commit, locked, written_index
from stretchysnake.search.segments.joining import in_order, joined_with, videos_of
from stretchysnake.search.segments.segment import digest
from stretchysnake.search.segments.writing import WrittenVideo, without, write_segment
from stretchysnake.whole_file import write_whole

__all__ = ["Journal", "locked"]


class _Done(NamedTuple):
    """Where a finished video stands in the journal's two files."""

    first: int
    count: int
    line: int


class Journal:
    """The videos done so far of an index with these settings, old ones included; a context manager.

    ValueError when the folder holds an index of other settings, other files, or is being written by another process.
    """

    def __init__(self, folder: str | os.PathLike, settings: IndexSettings, weights: str):
        self.folder, self.settings, self.weights = Path(folder), settings, weights
        self.fresh: dict[str, _Done] = {}
        """The videos that are not in the index yet, or stand there as they were."""
        self.index: Index | None = None
        """The index as it is: before `finish` the one of before, if there was one."""
        self._open = ExitStack()

    def __enter__(self) -> "Journal":
        try:
            self.place = self._open.enter_context(written_index(self.folder))
            if is_index(self.folder):
                self.index = read_index(self.folder)
                self._same(self.index.settings, "an index")
            self._read_unfinished()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def _read_unfinished(self) -> None:
        settings = self.place / "settings.json"
        if settings.exists():
            try:
                earlier = IndexSettings.from_dict(json.loads(settings.read_text()))
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{settings} is damaged; delete {self.place} to start over"
                ) from None
            self._same(earlier, "an unfinished index")
        else:
            write_whole(settings, json.dumps(asdict(self.settings)))
        self._rows, self._lines = (
            self._open.enter_context((self.place / name).open("ab+")) for name in (ROWS, LINES)
        )
        first = good = 0
        stored = self._stored()
        self._lines.seek(0)
        for line in self._lines:
            entry = _entry(line)
            if entry is None:
                break
            count = len(entry["rows"])
            block = stored[first : first + count]
            if len(block) != count or digest(block) != entry["digest"]:
                break
            self.fresh[entry["path"]] = _Done(first, count, good)
            first, good = first + count, good + len(line)
        self._rows.truncate(first * 4 * self.settings.width)
        self._lines.truncate(good)
        self._num_rows, self._num_bytes = first, good

    def _stored(self) -> np.ndarray:
        """The journal's rows that are whole, mapped."""
        width = self.settings.width
        whole = os.fstat(self._rows.fileno()).st_size // (4 * width)
        if not whole:
            return np.zeros((0, width), "<f4")
        return np.memmap(self.place / ROWS, "<f4", "r", shape=(whole, width))

    def _same(self, earlier: IndexSettings, what: str) -> None:
        if difference := earlier.differences(self.settings):
            raise ValueError(
                f"out ({self.folder}) holds {what} of other settings ({difference}); choose another folder, "
                "or delete it to start over"
            )

    @property
    def num_videos(self) -> int:
        """In the index, those of the journal included."""
        old = 0 if self.index is None else self.index.num_videos
        return old + sum(self._in_index(path) is None for path in self.fresh)

    def file(self, path: str) -> VideoFile | None:
        """A video as it was when its rows were made, None for one that has none."""
        if path in self.fresh:
            return self.video(path)[0][0].file
        found = self._in_index(path)
        return None if found is None else found[0].file(found[1])

    def is_repeated(self, path: str) -> bool:
        """Whether a video that has rows has fewer frames than T in one of them."""
        if path in self.fresh:
            return any(row.repeated for row in self.video(path)[0])
        segment, video = self._in_index(path)
        return bool(segment.columns["repeated"][segment.rows_of(video)].any())

    def video(self, path: str) -> WrittenVideo:
        """The rows of a video that has some, and their features (rows, C)."""
        if path not in self.fresh:
            segment, video = self._in_index(path)
            return segment.video(video)
        return self._read(self.fresh[path], self._stored())

    def under(self, folder: str) -> Iterator[str]:
        """The videos that have rows and lie under a folder, named with its last /."""
        fresh = [path for path in self.fresh if path.startswith(folder)]
        old = () if self.index is None else self.index.under(folder)
        return iter(dict.fromkeys([*old, *fresh]))

    def add(self, rows: Sequence[IndexRow], features: np.ndarray) -> None:
        """Keep the rows of one finished video; features (n, C) fp32."""
        path = rows[0].file.path
        block = np.ascontiguousarray(features, "<f4")
        entry = {"path": path, "digest": digest(block), "rows": [row.to_dict() for row in rows]}
        line = (json.dumps(entry) + "\n").encode()
        self._rows.write(block.tobytes())
        self._rows.flush()
        self._lines.write(line)
        self._lines.flush()
        self.fresh[path] = _Done(self._num_rows, len(rows), self._num_bytes)
        self._num_rows, self._num_bytes = self._num_rows + len(rows), self._num_bytes + len(line)

    def keep(self, rows: Sequence[IndexRow]) -> None:
        """The same content under a new time stamp: its features stay."""
        self.add(rows, self.video(rows[0].file.path)[1])

    def finish(self, failures: Sequence[tuple[str, str]], dropped: Sequence[str]) -> None:
        """Write the index, without the videos in `dropped`, and remove the journal."""
        gone = {path for path in dropped if self.fresh.pop(path, None) or self._in_index(path)}
        old = self.index
        unchanged = old is not None and not self._num_rows and not gone
        latest = (sorted(failures), self.weights)
        if unchanged and latest == (sorted(old.failures), old.weights):
            shutil.rmtree(self.place)
            return
        segments = [] if old is None else old.segments
        removed: list[set[int]] = [set() for _ in segments]
        for path in [*self.fresh, *gone]:
            for place, segment in enumerate(segments):
                if (video := segment.find(path)) is not None:
                    removed[place].add(video)
        entries = self._written(segments, removed)
        approximate = {} if old is None else _lists_of(old.approximate, entries)
        write_manifest(
            self.place / MANIFEST, self.settings, self.weights, entries, failures,
            before=[] if old is None else [old], approximate=approximate,
        )  # fmt: skip
        self._lines.close(), self._rows.close()
        commit(self.folder)
        self.index = read_index(self.folder)
        self.fresh.clear()
        shutil.rmtree(self.place)

    def _written(self, segments, removed: list[set[int]]) -> list[dict]:
        """The manifest's entries of the index with what is new: old segments, and one of all that is written again."""
        rows_of = [
            {video: segment.rows_of(video) for video in gone}
            for segment, gone in zip(segments, removed, strict=True)
        ]
        counts = [
            segment.num_rows - sum(rows.stop - rows.start for rows in gone.values())
            for segment, gone in zip(segments, rows_of, strict=True)
        ]
        num_new = sum(done.count for done in self.fresh.values())
        changed = bool(num_new or any(removed) or any(not one.name for one in segments))
        joined = joined_with(segments, counts, num_new) if changed else []
        entries = []
        for place, segment in enumerate(segments):
            if place not in joined and counts[place]:
                gone = removed[place]
                entries.append(without(segment, gone, self.folder) if gone else segment.entry)
        num_rows = num_new + sum(counts[place] for place in joined)
        if num_rows:
            sources = [videos_of(segments[place], removed[place]) for place in joined]
            videos = in_order([*sources, self._fresh_videos()])
            size = {"num_rows": num_rows, "width": self.settings.width}
            entries.append(write_segment(self.place, self.folder, videos, **size))
        return entries

    def _fresh_videos(self) -> Iterator[WrittenVideo]:
        stored = self._stored()
        for path in sorted(self.fresh):
            yield self._read(self.fresh[path], stored)

    def _read(self, done: _Done, stored: np.ndarray) -> WrittenVideo:
        self._lines.seek(done.line)
        rows = [IndexRow.from_dict(row) for row in json.loads(self._lines.readline())["rows"]]
        return rows, stored[done.first : done.first + done.count]

    def _in_index(self, path: str):
        return None if self.index is None else self.index.find(path)


def _lists_of(approximate: dict, entries: list[dict]) -> dict:
    """What the manifest says of approximate search, of the segments that are left."""
    names = {entry["name"] for entry in entries} & approximate.get("files", {}).keys()
    if not names:
        return {}
    parts = {
        one: {name: value for name, value in approximate[one].items() if name in names}
        for one in ("files", "sha256", "lists")
    }
    return {**approximate, **parts}


def _entry(line: bytes) -> dict | None:
    """A line of done.jsonl, None when it is torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"path", "digest", "rows"} <= entry.keys() else None
