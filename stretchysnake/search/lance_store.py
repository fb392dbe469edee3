"""The same index in a LanceDB table: a folder or object storage (s3://, gs://, az://), for more than one machine.

One table holds the rows, its schema's metadata the settings. Writers change rows by merge and delete, each a new
version; a reader keeps the version it opened, so it never sees half of a change.
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from stretchysnake.search.collection import Candidate
from stretchysnake.search.index import FORMAT, Index, IndexRow, IndexSettings

TABLE = "stretchysnake"
_FIELDS = {
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


def sync(uri: str, index: Index) -> tuple[int, int]:
    """Make the store at `uri` hold the rows of the index; (rows written, rows deleted). Equal rows are not touched."""
    database = _connect(uri)
    if TABLE not in _tables(database):
        database.create_table(TABLE, schema=_schema(index))
    table = _open(uri, database)
    if difference := _settings(uri, table)[0].differences(index.settings):
        raise ValueError(
            f"store (lancedb:{uri}) holds an index of other settings ({difference}); choose another URI"
        )
    stored = table.search().select(["id", "digest"]).limit(table.count_rows() or 1).to_arrow()
    known = dict(zip(stored["id"].to_pylist(), stored["digest"].to_pylist(), strict=True))
    ids = [_id(row) for row in index.rows]
    digests = [_digest(row, index.features[i]) for i, row in enumerate(index.rows)]
    todo = [i for i, name in enumerate(ids) if known.get(name) != digests[i]]
    for start in range(0, len(todo), _ROWS_AT_ONCE):
        part = todo[start : start + _ROWS_AT_ONCE]
        merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(_rows(index, part, ids, digests))
    gone = sorted(known.keys() - set(ids))
    for start in range(0, len(gone), 1000):
        listed = ", ".join(_quoted(name) for name in gone[start : start + 1000])
        table.delete(f"id IN ({listed})")
    return len(todo), len(gone)


class LanceCollection:
    """A LanceDB table to search: by scan, which is exact in fp32, under an optional SQL filter."""

    def __init__(self, uri: str, *, where: str | None = None):
        database = _connect(uri)
        if TABLE not in _tables(database):
            raise ValueError(
                f"store (lancedb:{uri}) holds no index; make it with: stretchysnake embed VIDEOS -o FOLDER "
                f"--weights W --store lancedb:{uri}"
            )
        self._table, self._where = _open(uri, database), where
        self.name = f"lancedb:{uri}"
        self.settings, self.weights = _settings(uri, self._table)
        try:
            self.num_rows = self._table.count_rows(where)
        except (ValueError, RuntimeError, OSError) as error:
            raise ValueError(
                f"where ({where}) is no filter of {self.name}: {str(error).splitlines()[0][:200]}; "
                f"columns: {', '.join(_FIELDS.values())}"
            ) from None

    def nearest(self, query: np.ndarray, count: int) -> list[list[Candidate]]:
        return [self._nearest(vector, count) for vector in query]

    def _nearest(self, vector: np.ndarray, count: int) -> list[Candidate]:
        asked = self._table.search(vector.astype("<f4"), vector_column_name="features")
        asked = asked.distance_type("cosine").limit(count)
        if self._where is not None:
            asked = asked.where(self._where, prefilter=True)
        found = asked.to_arrow()
        features = np.stack(found["features"].to_numpy()) if len(found) else np.empty((0, 0), "<f4")
        listed = found.select(list(_FIELDS.values())).to_pylist()
        rows = (
            IndexRow.from_dict({ours: values[theirs] for ours, theirs in _FIELDS.items()})
            for values in listed
        )
        return [
            Candidate((row.file.path, row.start), row, features[i]) for i, row in enumerate(rows)
        ]


def _connect(uri: str):
    if not uri:
        raise ValueError(
            "store (lancedb:) must name a place, e.g. lancedb:videos.lance or lancedb:s3://bucket/videos"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # of its own dependencies, at import
            import lancedb
    except ImportError:
        raise RuntimeError(
            "lancedb is not installed; lancedb: stores need it: pip install 'stretchysnake[lancedb]'"
        ) from None
    return lancedb.connect(uri)


def _tables(database) -> Sequence[str]:
    found = database.list_tables()
    return getattr(found, "tables", found)


def _open(uri: str, database):
    table = database.open_table(TABLE)
    if (table.schema.metadata or {}).get(b"format") != FORMAT.encode():
        raise ValueError(
            f"store (lancedb:{uri}) is not of format {FORMAT}; embed the videos into a new one"
        )
    return table


def _settings(uri: str, table) -> tuple[IndexSettings, str]:
    held = table.schema.metadata
    return IndexSettings.from_dict(json.loads(held[b"settings"])), held[b"weights"].decode()


def _schema(index: Index):
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
    }
    return pa.schema([pa.field(*column) for column in columns], metadata=held)


def _rows(index: Index, numbers: list[int], ids: list[str], digests: list[str]):
    import pyarrow as pa

    schema = _schema(index)
    values = [index.rows[i].to_dict() for i in numbers]
    columns = {theirs: [value[ours] for value in values] for ours, theirs in _FIELDS.items()}
    flat = pa.array(np.ascontiguousarray(index.features[numbers]).ravel())
    columns["features"] = pa.FixedSizeListArray.from_arrays(flat, index.settings.width)
    columns["id"], columns["digest"] = [ids[i] for i in numbers], [digests[i] for i in numbers]
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _id(row: IndexRow) -> str:
    return f"{row.start:.6f} {row.file.path}"


def _digest(row: IndexRow, features: np.ndarray) -> str:
    described = json.dumps(row.to_dict(), sort_keys=True).encode()
    return hashlib.sha256(features.tobytes() + described).hexdigest()[:16]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
