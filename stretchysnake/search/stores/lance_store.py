"""Indexes in a LanceDB store: a folder or object storage (s3://, gs://, az://), for more than one machine.

A store holds any number of indexes, each a table of its own under a name; the table's metadata says its settings and
which folder writes it. So a writer cannot touch another index's rows, and two of them never wait for each other.
A table appears with all its rows; later changes are merges and deletes, each of them a new version, whole or not at
all. A reader keeps the version it opened; one that opens between the merge and the delete of a change finds the new
rows beside those that are about to go, and never misses one.
"""

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from stretchysnake.search.index import Index, IndexRow
from stretchysnake.search.segments.commit import locked
from stretchysnake.search.stores.lance_tables import (
    FORMAT,
    TABLE,
    UNNAMED,
    HeldIndex,
    connect,
    held_indexes,
    table_name,
    told,
)

WRITER = "store-writer"
"""The file in an index folder that tells it from another folder, or another machine's, of the same name."""
FIELDS = {
    "path": "path",
    "start": "start_seconds",  # "end" and "group" would have to be quoted in every filter
    "end": "end_seconds",
    "repeated": "repeated",
    "size": "size",
    "mtime_ns": "mtime_ns",
    "sha256": "sha256",
    "group": "group_name",
    "class_name": "class_name",
}
"""Our name of a row's field -> the table's column."""
_ROWS_AT_ONCE = 2**15


def sync(
    uri: str,
    index: Index,
    *,
    name: str | None = None,
    replace: bool = False,
    note: Callable[[str], None] | None = None,
) -> tuple[int, int]:
    """Make the store at `uri` hold the index under its name; (rows written, rows deleted). Equal rows stay untouched.

    The name is the folder's absolute path unless given. Rows of other names are never changed. ValueError where
    another folder wrote the index of this name, or where its settings are others; `replace` puts this one in its place.
    A killed call has written nothing or some of the rows, none of them twice; the next call does the rest.
    `note` is told, in words, what became of rows that an earlier version wrote without a name.
    """
    name = os.path.abspath(index.folder) if name is None else name
    if name in ("", UNNAMED):
        raise ValueError(f"index_name ({name!r}) must be a name, and not {UNNAMED!r}")
    for text in (name, *(row.file.path for row in index.rows)):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"path ({os.fsencode(text)!r}) is not UTF-8, and LanceDB holds no other text; rename it"
            ) from None
    with _writer_of(index.folder) as writer:
        database = connect(uri)
        held = {one.name: one for one in held_indexes(uri, database)}
        old, unnamed = held.get(name), held.get(UNNAMED)
        if old is not None and not replace:
            _refuse_others(uri, old, index, writer)
        ids = [_id(row) for row in index.rows]
        digests = [_digest(*index.pair(i)) for i in range(len(index.rows))]
        schema = _schema(index, name, writer)
        with told(uri, "cannot be written"):
            if old is not None and (old.writer, old.settings) == (writer, index.settings):
                done = _update(old.table, index, schema, ids, digests)
            else:
                rows = _reader(schema, _batches(index, schema, range(len(ids)), ids, digests))
                mode = "create" if old is None else "overwrite"
                database.create_table(table_name(name), rows, mode=mode)
                done = len(ids), 0 if old is None else old.num_rows
            if unnamed is not None:
                said = _renewed(database, unnamed, index, set(ids))
                if note is not None:
                    note(said)
    return done


def _refuse_others(uri: str, old: HeldIndex, index: Index, writer: str) -> None:
    way_out = (
        "give this index a name of its own with --index_name, or put it in the other's place with "
        "--replace_index true"
    )
    if old.settings is None:
        raise ValueError(f"store (lancedb:{uri}) holds {old}; {way_out}")
    if difference := old.settings.differences(index.settings):
        raise ValueError(
            f"store (lancedb:{uri}) holds an index of other settings ({difference}) under the name "
            f"{old.name}; choose another URI, {way_out}"
        )
    if old.writer != writer:
        raise ValueError(
            f"store (lancedb:{uri}) holds an index of the name {old.name} that another folder wrote "
            f"({old.num_rows} rows, from {old.held_by}); {way_out}"
        )


def _update(table, index: Index, schema, ids: list[str], digests: list[str]) -> tuple[int, int]:
    stored = _columns(table, ["id", "digest"])
    stored_digests = dict(zip(*stored, strict=True))
    gone = sorted(stored_digests.keys() - set(ids))
    todo = [i for i, one in enumerate(ids) if stored_digests.get(one) != digests[i]]
    if todo:
        merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(_reader(schema, _batches(index, schema, todo, ids, digests)))
    for start in range(0, len(gone), 1000):
        listed = ", ".join(_quoted(one) for one in gone[start : start + 1000])
        table.delete(f"id IN ({listed})")
    return len(todo), len(gone)


def _renewed(database, unnamed: HeldIndex, index: Index, ids: set[str]) -> str:
    """Remove the nameless rows of an earlier version once all of them stand under a name; what was done, in words."""
    what = f"{unnamed.num_rows} rows that an earlier version wrote without the name of an index"
    if unnamed.settings == index.settings and ids.issuperset(_columns(unnamed.table, ["id"])[0]):
        database.drop_table(TABLE)
        return f"{what} are all of this index and stand under its name now"
    return (
        f"{what} stay (--index_name {UNNAMED}), for they are not all of this index at its settings; to leave them "
        "behind, embed every index into a store of another URI"
    )


@contextmanager
def _writer_of(folder: str) -> Iterator[str]:
    """The folder's own mark, made on first use; no other process writes to a store from this folder meanwhile."""
    with locked(Path(folder) / WRITER, f"index ({folder}) is being put into a store") as file:
        file.seek(0)
        writer = file.read()
        if not writer:
            writer = uuid.uuid4().hex
            file.write(writer)
            file.flush()
            os.fsync(file.fileno())
        yield writer


def _columns(table, names: list[str]) -> list[list[str]]:
    columns = table.search().select(names).limit(table.count_rows() or 1).to_arrow()
    return [columns[name].to_pylist() for name in names]


def _schema(index: Index, name: str, writer: str):
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    columns = [
        ("id", text), ("digest", text), ("path", text), ("start_seconds", number), ("end_seconds", number),
        ("repeated", pa.bool_()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("sha256", text),
        ("group_name", text), ("class_name", text),
        ("features", pa.list_(pa.float32(), index.settings.width)),
    ]  # fmt: skip
    held = {
        "format": FORMAT,
        "settings": json.dumps(asdict(index.settings)),
        "weights": index.weights,
        "name": name,
        "writer": writer,
        "folder": f"{socket.gethostname()}:{os.path.abspath(index.folder)}",
    }
    return pa.schema([pa.field(*column) for column in columns], metadata=held)


def _reader(schema, batches: Iterator):
    import pyarrow as pa

    return pa.RecordBatchReader.from_batches(schema, batches)


def _batches(
    index: Index, schema, numbers: Sequence[int], ids: list[str], digests: list[str]
) -> Iterator:
    import pyarrow as pa

    for start in range(0, len(numbers), _ROWS_AT_ONCE):
        part = list(numbers[start : start + _ROWS_AT_ONCE])
        values = [index.rows[i].to_dict() for i in part]
        columns = {theirs: [value[ours] for value in values] for ours, theirs in FIELDS.items()}
        flat = pa.array(index.features_at(part).ravel())
        columns["features"] = pa.FixedSizeListArray.from_arrays(flat, index.settings.width)
        columns["id"], columns["digest"] = [ids[i] for i in part], [digests[i] for i in part]
        table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
        yield from table.to_batches()


def _id(row: IndexRow) -> str:
    return f"{row.start:.6f} {row.file.path}"


def _digest(row: IndexRow, features: np.ndarray) -> str:
    described = json.dumps(row.to_dict(), sort_keys=True).encode()
    return hashlib.sha256(features.tobytes() + described).hexdigest()[:16]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
