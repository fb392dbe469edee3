"""A segment of an index: rows sorted by path and time that are written once; removed videos are named beside it.

    features-NAME.npy       (n rows, C) fp32; readable with np.load(mmap_mode="r")
    rows-NAME.safetensors   v videos: path, group and class_name (text), size, mtime_ns, sha256 (v, 32 bytes), row_ends;
                            n rows: start, end (NaN: the video's end), repeated
    removed-NAME.npy        numbers of the videos that are no longer there, or stand in a later segment

NAME is a digest of the content, so that equal rows have equal files whatever happened before.
Video i is of the rows row_ends[i - 1] to row_ends[i].
"""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from stretchysnake.search.segments.columns import decoded_text, encoded_text, map_columns
from stretchysnake.search.segments.rows import IndexRow, VideoFile
from stretchysnake.whole_file import Damaged, sha256_of

TEXTS = ("path", "group", "class_name")
NO_VIDEO = np.empty(0, "<i8")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """An open segment. Videos and rows are meant by their numbers in it, those of removed videos included."""

    entry: dict
    """Its part of the manifest: name, rows, videos, sha256 of both files, removed; {} for rows of an older format."""
    features: np.ndarray
    """(n, C) fp32, mapped."""
    columns: Mapping[str, np.ndarray]
    removed: np.ndarray = field(default_factory=lambda: NO_VIDEO)
    """Sorted numbers of the videos that do not count."""

    @property
    def name(self) -> str:
        return self.entry.get("name", "")

    @property
    def num_videos(self) -> int:
        """Videos that count."""
        return len(self.columns["row_ends"]) - len(self.removed)

    @cached_property
    def removed_rows(self) -> list[slice]:
        """The rows that do not count, neighbours joined."""
        slices: list[slice] = []
        for video in self.removed.tolist():
            rows = self.rows_of(video)
            if slices and slices[-1].stop == rows.start:
                rows = slice(slices.pop().start, rows.stop)
            slices.append(rows)
        return slices

    @cached_property
    def num_rows(self) -> int:
        """Rows that count."""
        return len(self.features) - sum(rows.stop - rows.start for rows in self.removed_rows)

    def rows_of(self, video: int) -> slice:
        """The rows of a video."""
        ends = self.columns["row_ends"]
        return slice(int(ends[video - 1]) if video else 0, int(ends[video]))

    def video_of(self, row: int) -> int:
        """The video of a row."""
        return int(np.searchsorted(self.columns["row_ends"], row, "right"))

    def file(self, video: int) -> VideoFile:
        """The file of a video."""
        columns = self.columns
        return VideoFile(
            **{name: decoded_text(self._text(name, video)) for name in TEXTS},
            size=int(columns["size"][video]),
            mtime_ns=int(columns["mtime_ns"][video]),
            sha256=columns["sha256"][video].tobytes().hex(),
        )

    def row(self, row: int, file: VideoFile | None = None) -> IndexRow:
        """What a row is of."""
        end = float(self.columns["end"][row])
        return IndexRow(
            file=self.file(self.video_of(row)) if file is None else file,
            start=float(self.columns["start"][row]),
            end=None if end != end else end,
            repeated=bool(self.columns["repeated"][row]),
        )

    def video(self, video: int) -> tuple[list[IndexRow], np.ndarray]:
        """All rows of a video, and their features (rows, C)."""
        file, rows = self.file(video), self.rows_of(video)
        return [self.row(row, file) for row in range(rows.start, rows.stop)], self.features[rows]

    def videos(self) -> Iterator[int]:
        """The videos that count, by path."""
        gone = set(self.removed.tolist())
        return (i for i in range(len(self.columns["row_ends"])) if i not in gone)

    def find(self, path: str) -> int | None:
        """The video of this path, None where none counts; found by halving, so that few pages are read."""
        wanted = encoded_text(path)
        place = self._place(wanted)
        here = place < len(self.columns["row_ends"]) and self._text("path", place) == wanted
        return place if here and not self._is_removed(place) else None

    def under(self, prefix: str) -> Iterator[int]:
        """The videos that count whose path begins so."""
        wanted = encoded_text(prefix)
        for video in range(self._place(wanted), len(self.columns["row_ends"])):
            if not self._text("path", video).startswith(wanted):
                return
            if not self._is_removed(video):
                yield video

    def counts(self) -> np.ndarray:
        """The rows that count, in order."""
        keep = np.ones(len(self.features), bool)
        for rows in self.removed_rows:
            keep[rows] = False
        return keep.nonzero()[0]

    def _place(self, wanted: bytes) -> int:
        low, high = 0, len(self.columns["row_ends"])
        while low < high:
            middle = (low + high) // 2
            if self._text("path", middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def _is_removed(self, video: int) -> bool:
        place = int(np.searchsorted(self.removed, video))
        return place < len(self.removed) and int(self.removed[place]) == video

    def _text(self, name: str, video: int) -> bytes:
        ends = self.columns[f"{name}.ends"]
        start = int(ends[video - 1]) if video else 0
        return self.columns[f"{name}.text"][start : int(ends[video])].tobytes()


class Rows(Sequence):
    """All rows that count of several segments, one segment after the other; each is made when it is asked for."""

    def __init__(self, segments: Sequence[Segment]):
        self._segments = segments
        self._ends = np.cumsum([0, *(segment.num_rows for segment in segments)]).tolist()
        self._counts: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, number):
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        segment, row = self.place(number)
        return segment.row(row)

    def place(self, number: int) -> tuple[Segment, int]:
        """The segment of a row, and its number there."""
        number = number + len(self) if number < 0 else number
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        place = bisect_right(self._ends, number) - 1
        segment, row = self._segments[place], number - self._ends[place]
        if len(segment.removed):
            if place not in self._counts:
                self._counts[place] = segment.counts()
            row = int(self._counts[place][row])
        return segment, row


def open_segment(folder: Path, entry: dict, width: int) -> Segment:
    """The segment of a manifest's entry, mapped: lengths are checked, contents are not. ValueError, OSError or KeyError
    where something does not fit."""
    features = np.load(folder / features_file(entry["name"]), mmap_mode="c")
    columns = map_columns(folder / rows_file(entry["name"]))
    removed = NO_VIDEO
    if entry.get("removed"):
        removed = np.load(folder / removed_file(entry["removed"]["name"]))
    fits = (
        features.shape == (entry["rows"], width)
        and features.dtype == np.float32
        and len(columns["row_ends"]) == entry["videos"]
        and (not entry["videos"] or columns["row_ends"][-1] == entry["rows"])
        and len(columns["start"])
        == len(columns["end"])
        == len(columns["repeated"])
        == entry["rows"]
        and len(removed) == (entry["removed"]["videos"] if entry.get("removed") else 0)
    )
    if not fits:
        raise ValueError(f"{features_file(entry['name'])} and its rows are not of one segment")
    return Segment(entry=entry, features=features, columns=columns, removed=removed)


def check_segment(folder: Path, entry: dict) -> None:
    """Damaged where a file of the segment is not the one its manifest names; reads every byte."""
    for what, file in (("features", features_file), ("rows", rows_file)):
        refuse_changed(folder, file(entry["name"]), entry["sha256"][what])
    if entry.get("removed"):
        refuse_changed(folder, removed_file(entry["removed"]["name"]), entry["removed"]["sha256"])


def refuse_changed(folder: Path, name: str, sha256: str) -> None:
    """Damaged where a file of an index has other content than its manifest says."""
    if sha256_of(folder / name) != sha256:
        raise Damaged(
            f"index ({folder}): {name} is not the one its manifest names; it is being written or was "
            "interrupted (run the same embed once more), or it is damaged (delete the folder and embed again)"
        )


def num_bytes(folder: Path, entry: dict) -> int:
    """Of the segment's files."""
    files = [features_file(entry["name"]), rows_file(entry["name"])]
    if entry.get("removed"):
        files.append(removed_file(entry["removed"]["name"]))
    return sum(os.path.getsize(folder / file) for file in files)


def digest(rows: np.ndarray) -> str:
    """16 hex digits of the bytes of feature rows."""
    return hashlib.sha256(np.ascontiguousarray(rows, "<f4").tobytes()).hexdigest()[:16]


def features_file(name: str) -> str:
    return f"features-{name}.npy"


def rows_file(name: str) -> str:
    return f"rows-{name}.safetensors"


def removed_file(name: str) -> str:
    return f"removed-{name}.npy"
