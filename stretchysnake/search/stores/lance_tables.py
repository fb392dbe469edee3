"""The tables of a LanceDB store that hold our indexes: which there are, and what each is of."""

import hashlib
import importlib.util
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stretchysnake.search.index import IndexSettings
from stretchysnake.shown import first_line

FORMAT = "stretchysnake-index-1"
"""Of a table; that of an index folder is counted apart."""
TABLE = "stretchysnake"
"""What the names of our tables begin with; the whole name of the one table that earlier versions wrote."""
UNNAMED = "unnamed"
"""What the index in that table is called."""


@dataclass(frozen=True, kw_only=True)
class HeldIndex:
    """An index of a store, open at its newest version."""

    name: str
    table: object
    num_rows: int
    settings: IndexSettings | None
    """None where this version cannot read it; `held_by` then says why."""
    weights: str = ""
    writer: str = ""
    held_by: str = ""
    """HOST:FOLDER that wrote it."""

    def __str__(self) -> str:
        if self.settings is None:
            return f"{self.name} ({self.num_rows} rows, {self.held_by})"
        scale, window = self.settings.scale, self.settings.window_seconds
        cut = ""
        if window is not None:
            cut = f" windows of {window:g} s every {self.settings.stride_seconds:g} s,"
        return (
            f"{self.name} ({self.num_rows} rows,{cut} T={scale.num_frames} S={scale.size} P={scale.patch_size}, "
            f"weights {self.settings.weights_sha256[:12]})"
        )


def held_indexes(uri: str, database) -> list[HeldIndex]:
    """The indexes of a store, by name; tables that are not ours, or not finished, are passed over."""
    indexes = []
    with told(uri, "cannot be opened"):
        for held_as in _table_names(database):
            if held_as != TABLE and not held_as.startswith(f"{TABLE}-"):
                continue
            try:
                table = database.open_table(held_as)
            except (ValueError, FileNotFoundError) as error:
                if "not found" in str(error):  # killed while its first rows were written
                    continue
                raise
            indexes.append(_held(held_as, table))
    return sorted(indexes, key=lambda one: one.name)


def _held(held_as: str, table) -> HeldIndex:
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    name = metadata.get("name", UNNAMED if held_as == TABLE else held_as)
    count = table.count_rows()
    if (form := metadata.get("format", "none")) != FORMAT:
        reason = f"of format {form}, this version reads {FORMAT}: embed its videos again"
        return HeldIndex(name=name, table=table, num_rows=count, settings=None, held_by=reason)
    try:
        settings = IndexSettings.from_dict(json.loads(metadata["settings"]))
    except (ValueError, KeyError, TypeError) as error:
        reason = f"its settings cannot be read: {type(error).__name__}: {error}"
        return HeldIndex(name=name, table=table, num_rows=count, settings=None, held_by=reason)
    return HeldIndex(
        name=name,
        table=table,
        num_rows=count,
        settings=settings,
        weights=metadata.get("weights", ""),
        writer=metadata.get("writer", ""),
        held_by=metadata.get("folder", ""),
    )


def connect(uri: str, *, create: bool = True):
    """The LanceDB database at a URI; ValueError, and no new folder, where it must be there and is not."""
    if not uri:
        raise ValueError(
            "store (lancedb:) must name a place, e.g. lancedb:videos.lance or lancedb:s3://bucket/videos"
        )
    refuse_if_missing()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own dependencies, at import
        import lancedb
    if "://" not in uri and not Path(uri).is_dir():
        if Path(uri).exists():
            raise ValueError(f"store (lancedb:{uri}) must be a folder, and is a file")
        if not create:
            raise ValueError(holds_none(uri))
    with told(uri, "cannot be opened"):
        return lancedb.connect(uri)


def refuse_if_missing() -> None:
    """RuntimeError with the command to run where LanceDB is not installed; imports nothing."""
    if importlib.util.find_spec("lancedb") is None:
        raise RuntimeError(
            "lancedb is not installed; lancedb: stores need it: pip install 'stretchysnake[lancedb]'"
        )


def holds_none(uri: str) -> str:
    """That a store is empty or not there, and how to fill it."""
    return (
        f"store (lancedb:{uri}) holds no index; make it with: stretchysnake embed VIDEOS -o FOLDER --weights W "
        f"--store lancedb:{uri}"
    )


@contextmanager
def told(uri: str, what: str) -> Iterator[None]:
    """LanceDB's errors as one line that names the store."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"store (lancedb:{uri}) {what}: {first_line(error, 200)}") from None


def _table_names(database) -> Sequence[str]:
    names, token = [], None
    while True:
        page = database.list_tables(page_token=token)
        names += page.tables
        token = page.page_token
        if not token:
            return names


def table_name(name: str) -> str:
    """A name that LanceDB allows: letters to know it by, and a digest that no other index has."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", Path(name).name)[:40].strip("_")
    return f"{TABLE}-{words}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
