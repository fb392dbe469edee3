"""What a data set is: a list of `VideoRecord`, read from a folder with one sub-folder per class or from a list file.

List files: comma, tab or space separated (found out by looking), or JSONL; with a header or without. Columns in order:
`path, label[, class_name, group, split, start, end]`. Relative paths start at `root`, or else at the list's folder.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

VIDEO_EXTENSIONS = (".mp4", ".avi", ".webm", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".gif")


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
    found: list[str] = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = Path(path)
        if path.is_dir():
            inside = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in VIDEO_EXTENSIONS and p.is_file()
            )
            if not inside:
                raise ValueError(_no_video(path))
            found += map(str, inside)
        elif path.exists():
            found.append(str(path))
        else:
            raise ValueError(f"{path}: no such file or folder; check the spelling.")
    return found


def read_records(
    source: str | os.PathLike,
    *,
    root: str | os.PathLike | None = None,
    classes: Sequence[str] | None = None,
) -> list[VideoRecord]:
    """Return the records of a folder (one sub-folder per class) or of a list file.

    `classes` fixes which name has which label, e.g. to read a test set with the train set's order; without it names are
    numbered in sorted order.
    """
    source = Path(source)
    if source.is_dir():
        return _read_folder(source, classes)
    if not source.exists():
        raise ValueError(f"{source}: no such list file or folder; check the spelling.")
    rows = (
        _read_jsonl(source)
        if source.suffix.lower() in (".jsonl", ".ndjson")
        else _read_table(source)
    )
    if not rows:
        raise ValueError(f"{source}: found no row, expected lines 'path,label'; add the videos.")
    return _records(source, rows, Path(root) if root is not None else source.parent, classes)


def write_records(path: str | os.PathLike, records: Iterable[VideoRecord]) -> None:
    """Write records as CSV with a header; `read_records` gives them back."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for record in records:
            writer.writerow("" if value is None else value for value in asdict(record).values())


def _no_video(folder: Path) -> str:
    return f"{folder}: found no video, expected files ending in {' '.join(e[1:] for e in VIDEO_EXTENSIONS)}."


def _read_folder(folder: Path, classes: Sequence[str] | None) -> list[VideoRecord]:
    class_folders = sorted(p for p in folder.iterdir() if p.is_dir())
    by_class = {}
    for class_folder in class_folders:
        videos = sorted(
            p
            for p in class_folder.rglob("*")
            if p.suffix.lower() in VIDEO_EXTENSIONS and p.is_file()
        )
        if videos:
            by_class[class_folder.name] = videos
    if not by_class:
        if any(p.suffix.lower() in VIDEO_EXTENSIONS for p in folder.iterdir()):
            raise ValueError(
                f"{folder}: found videos but no sub-folder per class, expected {folder.name}/CLASS/clip.mp4."
            )
        raise ValueError(_no_video(folder))
    labels = {name: i for i, name in enumerate(classes or by_class)}
    if unknown := sorted(set(by_class) - set(labels)):
        raise ValueError(
            f"{folder}: found class folder {unknown[0]!r}, expected one of {sorted(labels)}."
        )
    return [
        VideoRecord(str(video), labels[name], name)
        for name, videos in by_class.items()
        for video in videos
    ]


def _read_jsonl(source: Path) -> list[tuple[int, dict[str, str]]]:
    rows = []
    for number, line in enumerate(source.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            message = f"found {line[:40]!r}, expected one JSON object ({error.msg}); fix the line."
            raise ValueError(f"{source} line {number} column {error.colno}: {message}") from None
        if not isinstance(row, dict):
            raise ValueError(
                f'{source} line {number}: found {line[:40]!r}, expected an object like {{"path": ...}}.'
            )
        rows.append(
            (number, {key: "" if value is None else str(value) for key, value in row.items()})
        )
    return rows


def _delimiter(line: str) -> str:
    return "\t" if "\t" in line else "," if "," in line else " "


def _split_line(line: str, delimiter: str) -> list[str]:
    if delimiter == " " and '"' not in line:
        return line.rsplit(maxsplit=1)  # the path may hold spaces, the label does not
    return [
        cell.strip()
        for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
    ]


def _read_table(source: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows as (line number, column -> text); a first line naming path and label is the header."""
    try:
        text = source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source}: found bytes that are not UTF-8 at {error.start}; save the list as UTF-8."
        ) from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        return []
    delimiter = _delimiter(lines[0][1])
    header = lines[0][1].split() if delimiter == " " else _split_line(lines[0][1], delimiter)
    header = [cell.strip().lower() for cell in header]
    has_header = "path" in header or "label" in header
    if has_header:
        for column in ("path", "label"):
            if column not in header:
                expected = f"expected a column named {column!r}; rename one."
                raise ValueError(f"{source} line 1: found columns {', '.join(header)}, {expected}")
        lines = lines[1:]
    rows = []
    for number, line in lines:
        simple = not has_header or len(header) == 2
        cells = _split_line(line, delimiter) if delimiter != " " or simple else line.split()
        columns = header if has_header else COLUMNS
        if (
            len(cells) < 2
            or len(cells) > len(columns)
            or (has_header and len(cells) != len(columns))
        ):
            name = {",": "comma", "\t": "tab", " ": "space"}[delimiter]
            expected = str(len(columns)) if has_header else f"2 to {len(columns)}"
            message = f"found {len(cells)} {name}-separated cells, expected {expected} ({', '.join(columns)})"
            raise ValueError(
                f"{source} line {number}: {message}; quote cells that hold the separator."
            )
        rows.append((number, dict(zip(columns, cells, strict=False))))
    return rows


def _is_integer(text: str) -> bool:
    return text.strip().removeprefix("-").isdigit()


def _records(source: Path, rows, root: Path, classes: Sequence[str] | None) -> list[VideoRecord]:
    order = list(rows[0][1])

    def fail(number: int, column: str, found: str, expected: str):
        place = f"{source} line {number} column {order.index(column) + 1 if column in order else '?'} ({column})"
        raise ValueError(f"{place}: found {found!r}, expected {expected}")

    labels = [row.get("label", "") for _, row in rows]
    # names or integers is decided by the majority, so that one slip in a list of integers is named, not believed
    named = classes is not None or 2 * sum(map(_is_integer, labels)) < len(labels)
    if classes is not None and all(map(_is_integer, labels)):
        named = False
    numbers = {
        name: i for i, name in enumerate(classes if classes is not None else sorted(set(labels)))
    }
    records = []
    for (number, row), label in zip(rows, labels, strict=True):
        if not row.get("path"):
            fail(number, "path", row.get("path", ""), "a file name; fill it in or delete the line.")
        if label == "":
            fail(
                number, "label", label, "a class name or an integer; fill it in or delete the line."
            )
        if named and label not in numbers:
            fail(
                number,
                "label",
                label,
                f"one of the classes {', '.join(map(str, numbers))[:80]}; fix the name.",
            )
        if not named and (not _is_integer(label) or int(label) < 0):
            fail(
                number,
                "label",
                label,
                "an integer of 0 or more, as in the other lines; fix it or use names throughout.",
            )
        times = {}
        for column in ("start", "end"):
            try:
                times[column] = float(row[column]) if row.get(column) else None
            except ValueError:
                fail(number, column, row[column], "seconds, e.g. 12.5; fix it or leave it empty.")
        class_name = row.get("class_name", "")
        if not class_name:
            class_name = (
                label
                if named
                else str(classes[int(label)])
                if classes and int(label) < len(classes)
                else ""
            )
        path = os.path.join(root, row["path"])
        records.append(
            VideoRecord(
                path=path,
                label=numbers[label] if named else int(label),
                class_name=class_name,
                group=row.get("group", ""),
                split=row.get("split", ""),
                **times,
            )
        )
    return records
