"""Segments as they are written: whole or not at all, under the name that their content gives them."""

import hashlib
import io
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from stretchysnake.search.segments.columns import column_bytes, encoded_text
from stretchysnake.search.segments.rows import IndexRow
from stretchysnake.search.segments.segment import (
    TEXTS,
    Segment,
    features_file,
    removed_file,
    rows_file,
)
from stretchysnake.whole_file import unfinished_file, write_whole

WrittenVideo = tuple[Sequence[IndexRow], np.ndarray]
"""All rows of one video, and their features (rows, C)."""


def write_segment(
    place: Path, folder: Path, videos: Iterable[WrittenVideo], *, num_rows: int, width: int
) -> dict:
    """Write videos, sorted by path and num_rows in all, as a segment of the index `folder`; its manifest's entry.

    `place` is a folder beside it for what is not whole yet. In memory are the columns, some 150 bytes and the path of
    each video and 17 bytes a row; features pass through.
    """
    collected = _Collected()

    def blocks() -> Iterator[np.ndarray]:
        for rows, features in videos:
            collected.add(rows)
            yield features

    return write_arrays(place, folder, blocks(), collected.columns, num_rows=num_rows, width=width)


def write_arrays(
    place: Path,
    folder: Path,
    features: Iterable[np.ndarray],
    columns: Callable[[], dict[str, np.ndarray]],
    *,
    num_rows: int,
    width: int,
) -> dict:
    """As `write_segment`, of blocks of features (n, C) and of columns, asked for after the last block."""
    new_features, new_rows = place / "segment.npy", place / "segment.safetensors"
    layout = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, width)}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, layout)

    def content() -> Iterator[bytes | memoryview]:
        yield header.getvalue()
        for block in features:
            yield memoryview(np.ascontiguousarray(block, "<f4")).cast("B")

    hashes = {"features": _written(new_features, content())}
    size = len(header.getvalue()) + 4 * num_rows * width
    assert os.path.getsize(new_features) == size, f"features are not {num_rows} rows"
    made = columns()
    hashes["rows"] = _written(new_rows, column_bytes(made))
    name = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()[:16]
    os.replace(new_rows, folder / rows_file(name))
    os.replace(new_features, folder / features_file(name))
    return {"name": name, "rows": num_rows, "videos": len(made["row_ends"]), "sha256": hashes}


def without(segment: Segment, videos: Iterable[int], folder: Path) -> dict:
    """The manifest's entry of a segment of which these videos count no longer either; their numbers are written."""
    removed = np.union1d(segment.removed, np.fromiter(videos, "<i8")).astype("<i8")
    content = io.BytesIO()
    np.save(content, removed)
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    name = hashlib.sha256(f"{segment.name} {sha256}".encode()).hexdigest()[:16]
    write_whole(folder / removed_file(name), content.getvalue())
    rows = sum(one.stop - one.start for one in map(segment.rows_of, removed.tolist()))
    entry = {"name": name, "videos": len(removed), "rows": rows, "sha256": sha256}
    return {**segment.entry, "removed": entry}


def _written(path: Path, pieces: Iterable[bytes | memoryview]) -> str:
    """SHA-256 of the file that is now at path."""
    digest = hashlib.sha256()
    with unfinished_file(path) as part, open(part, "wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def collected(videos: Iterable[Sequence[IndexRow]]) -> dict[str, np.ndarray]:
    """The columns of videos, each given by all its rows."""
    columns = _Collected()
    for rows in videos:
        columns.add(rows)
    return columns.columns()


class _Collected:
    """Columns that grow by a video at a time, without an object for each."""

    def __init__(self):
        self._texts = {name: (bytearray(), array("q")) for name in TEXTS}
        self._numbers = {name: array("q") for name in ("size", "mtime_ns", "row_ends")}
        self._times = {name: array("d") for name in ("start", "end")}
        self._sha256, self._repeated = bytearray(), bytearray()

    def add(self, rows: Sequence[IndexRow]) -> None:
        file = rows[0].file
        for name, (text, ends) in self._texts.items():
            text += encoded_text(getattr(file, name))
            ends.append(len(text))
        for row in rows:
            self._times["start"].append(row.start)
            self._times["end"].append(float("nan") if row.end is None else row.end)
            self._repeated.append(row.repeated)
        for name, value in (
            ("size", file.size), ("mtime_ns", file.mtime_ns), ("row_ends", len(self._repeated)),
        ):  # fmt: skip
            self._numbers[name].append(value)
        self._sha256 += bytes.fromhex(file.sha256)

    def columns(self) -> dict[str, np.ndarray]:
        columns = {"sha256": np.frombuffer(self._sha256, "u1").reshape(-1, 32)}
        columns["repeated"] = np.frombuffer(self._repeated, "?")
        for name, (text, ends) in self._texts.items():
            columns[f"{name}.text"] = np.frombuffer(text, "u1")
            columns[f"{name}.ends"] = np.frombuffer(ends, "<i8")
        for name, values in self._numbers.items():
            columns[name] = np.frombuffer(values, "<i8")
        for name, values in self._times.items():
            columns[name] = np.frombuffer(values, "<f8")
        return columns
