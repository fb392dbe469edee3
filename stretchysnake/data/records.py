"""What a data set is: a list of `VideoRecord`, read from a folder with one sub-folder per class or from a list file.

List files: comma, tab, semicolon or space separated (found out by looking), or JSONL; with a header or without.
Columns in order: `path, label[, class_name, group, split, start, end]`. Relative paths start at `root`, or else at the
list's folder. What is read of a folder: folders.py.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from stretchysnake.data.folders import PassedOver, class_folders, videos_in
from stretchysnake.data.lists import (
    LIST_EXTENSIONS,
    VIDEO_EXTENSIONS,
    ListRow,
    read_list,
    read_text,
    without_comments,
)

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SUBSET_NAMES = {"train", "training", "val", "validation", "valid", "test", "testing"}


@dataclass(frozen=True)
class VideoRecord:
    """One labelled video, or the part of one between `start` and `end` (seconds)."""

    path: str
    label: int
    class_name: str = ""
    group: str = ""
    split: str = ""
    start: float | None = None
    end: float | None = None


COLUMNS = tuple(field.name for field in fields(VideoRecord))


def find_videos(paths: Iterable[str | os.PathLike]) -> list[str]:
    """Return the video files among `paths`; folders are searched to any depth, in sorted order."""
    videos: list[str] = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = place_of(path)
        if path.is_dir():
            passed = PassedOver()
            inside = sorted(path / video for video in videos_in(path, passed))
            if not inside:
                raise ValueError(_no_video(path, passed))
            videos += map(str, inside)
        elif path.exists():
            videos.append(str(path))
        else:
            raise ValueError(f"{path}: no such file or folder; check the spelling.")
    return videos


def place_of(path: str | os.PathLike) -> Path:
    """The path of a file or folder as a caller gave it, `~` expanded; ValueError for an address of the network."""
    text = os.fspath(path)
    if os.path.lexists(text):
        return Path(text)
    if _ADDRESS.match(text):
        raise ValueError(
            f"{text}: is an address, and videos are read from files; fetch it first and give the file's path."
        )
    return Path(os.path.expanduser(text))


def passed_over(
    sources: str | os.PathLike | Iterable[str | os.PathLike], *, classes: bool = False
) -> PassedOver:
    """What lies in these folders, or stands in these lists, and is not read.

    `classes`: the folders are read as `read_records` does, one sub-folder per class.
    """
    passed = PassedOver()
    for source in [sources] if isinstance(sources, (str, os.PathLike)) else sources:
        source = place_of(source)
        if source.is_dir() and classes:
            class_folders(source, passed)
        elif source.is_dir():
            for _ in videos_in(source, passed):
                pass
        elif source.is_file() and (classes or source.suffix.lower() in LIST_EXTENSIONS):
            passed.comments += without_comments(read_text(source), COLUMNS)[1]
    return passed


def read_records(
    source: str | os.PathLike,
    *,
    root: str | os.PathLike | None = None,
    classes: Sequence[str] | None = None,
    labelled: bool = True,
) -> list[VideoRecord]:
    """Return the records of a folder (one sub-folder per class) or of a list file.

    `classes` fixes which name has which label, e.g. to read a test set with the train set's order; without it names are
    numbered in sorted order. With `labelled=False` a list needs no labels: paths alone do, and get label 0.
    """
    source = place_of(source)
    if source.is_dir():
        return _read_folder(source, classes)
    if not source.exists():
        raise ValueError(f"{source}: no such list file or folder; check the spelling.")
    rows = read_list(source, COLUMNS, needed=("path", "label") if labelled else ("path",))
    if not rows:
        expected = "'path,label'" if labelled else "with a path"
        raise ValueError(f"{source}: found no row, expected lines {expected}; add the videos.")
    if not labelled and not any("label" in row.cells for row in rows):
        rows = [ListRow(row.line, {**row.cells, "label": "0"}) for row in rows]
    return _records(source, rows, Path(root) if root is not None else source.parent, classes)


def read_with_shared_labels(*sources: str | os.PathLike) -> list[list[VideoRecord]]:
    """Read several sources so that equal class names have equal labels in all of them.

    Lists that hold names are numbered one by one, so a class that one of them lacks would shift the others' labels.
    """
    lists = [read_records(source) for source in sources]
    records = [record for records in lists for record in records]
    pairs = {(record.class_name, record.label) for record in records}
    names, labels = {name for name, _ in pairs}, {label for _, label in pairs}
    if "" in names or len(pairs) == len(names) == len(labels):
        return lists
    numbers = {name: number for number, name in enumerate(sorted(names))}
    return [[replace(r, label=numbers[r.class_name]) for r in records] for records in lists]


def write_records(path: str | os.PathLike, records: Iterable[VideoRecord]) -> None:
    """Write records as CSV with a header, or as JSON lines to a `.jsonl`; `read_records` gives them back.

    ValueError for a CSV with a path that is not UTF-8; JSON lines hold every path.
    """
    rows = [["" if value is None else value for value in asdict(r).values()] for r in records]
    if Path(path).suffix.lower() == ".jsonl":
        lines = [json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows]
        with open(path, "w", encoding="ascii") as file:
            file.writelines(lines)
        return
    for row in rows:
        if not is_utf8(row[0]):
            raise ValueError(
                f"path ({row[0]!r}) must be UTF-8 to stand in a CSV list; rename the file, or write the list to "
                f"{Path(path).with_suffix('.jsonl')}"
            )
    # blanks around a path, a # before it, and a lone carriage return, are kept only inside quotes
    odd = any(row[0] != row[0].strip() or row[0][:1] == "#" or "\r" in "".join(map(str, row))
              for row in rows)  # fmt: skip
    quoting = csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=quoting)
        writer.writerows([COLUMNS, *rows])


def is_utf8(path: str) -> bool:
    """Whether a file's name is text; the names of some older systems are not."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_video(folder: Path, passed: PassedOver) -> str:
    endings = " ".join(ending[1:] for ending in VIDEO_EXTENSIONS)
    told = f" ({passed})" if str(passed) else ""
    return f"{folder}: found no video{told}, expected files ending in {endings}."


def _read_folder(folder: Path, classes: Sequence[str] | None) -> list[VideoRecord]:
    passed = PassedOver()
    by_class = class_folders(folder, passed)
    beside = by_class.pop("", [])
    if not by_class:
        if beside:
            raise ValueError(
                f"{folder}: found videos but no sub-folder per class, expected {folder.name}/CLASS/clip.mp4."
            )
        raise ValueError(_no_video(folder, passed))
    if len(by_class) > 1 and {name.lower() for name in by_class} <= _SUBSET_NAMES:
        raise ValueError(
            f"{folder}: found the folders {', '.join(by_class)}, expected one folder per class; "
            f"give one of them, e.g. {folder / next(iter(by_class))}."
        )
    labels = {name: i for i, name in enumerate(classes or by_class)}
    if unknown := sorted(set(by_class) - set(labels)):
        raise ValueError(
            f"{folder}: found class folder {unknown[0]!r}, expected one of {sorted(labels)}."
        )
    return [
        VideoRecord(video, labels[name], name)
        for name, videos in by_class.items()
        for video in videos
    ]


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _under(root: str, path: str) -> str:
    """Where a list's path leads: below `root`, or from `/`; `~` is a home folder unless a file is called so."""
    below = os.path.join(root, path)
    if path.startswith("~") and not os.path.lexists(below):
        return os.path.join(root, os.path.expanduser(path))
    return below


def _records(
    source: Path, rows: list[ListRow], root: Path, classes: Sequence[str] | None
) -> list[VideoRecord]:
    def fail(row: ListRow, column: str, expected: str):
        place = f"column {list(row.cells).index(column) + 1} " if column in row.cells else ""
        text = row.cells.get(column, "")[:80]
        raise ValueError(
            f"{source} line {row.line} {place}({column}): found {text!r}, expected {expected}"
        )

    labels = [row.cells.get("label", "") for row in rows]
    # names or integers is decided by the majority, so that one slip in a list of integers is named, not believed
    named = classes is not None or 2 * sum(map(_is_integer, labels)) < len(labels)
    if classes is not None and all(map(_is_integer, labels)):
        named = False
    names = [str(name) for name in (classes if classes is not None else sorted(set(labels)))]
    numbers = {name: number for number, name in enumerate(names)}
    folder = os.fspath(root)
    records = []
    for row, label in zip(rows, labels, strict=True):
        path = row.cells.get("path", "")
        if not path.strip() or "\0" in path:
            fail(row, "path", "a file name; fill it in or delete the line.")
        if _ADDRESS.match(path) and not os.path.lexists(os.path.join(folder, path)):
            fail(row, "path", "a file of this machine; fetch the videos first and name the files.")
        if label == "":
            fail(row, "label", "a class name or an integer; fill it in or delete the line.")
        if named and label not in numbers:
            fail(row, "label", f"one of the classes {', '.join(names)[:80]}; fix the name.")
        if not named and not (_is_integer(label) and len(label) <= 18 and int(label) >= 0):
            expected = (
                "an integer of 0 or more, as in the other lines; fix it or use names throughout."
            )
            fail(row, "label", expected)
        times = {}
        for column in ("start", "end"):
            text = row.cells.get(column, "")
            try:
                times[column] = float(text) if text else None
            except ValueError:
                times[column] = math.nan
            if times[column] is not None and not 0 <= times[column] < math.inf:
                fail(row, column, "seconds, e.g. 12.5; fix it or leave it empty.")
        if None not in times.values() and times["end"] <= times["start"]:
            fail(row, "end", f"more than start ({times['start']:g}); swap or fix them.")
        class_name = row.cells.get("class_name", "")
        if not class_name and named:
            class_name = label
        elif not class_name and classes and int(label) < len(classes):
            class_name = names[int(label)]
        records.append(
            VideoRecord(
                path=_under(folder, path),
                label=numbers[label] if named else int(label),
                class_name=class_name,
                group=row.cells.get("group", ""),
                split=row.cells.get("split", ""),
                **times,
            )
        )
    return records
