"""Where rows to search lie: an index folder, searched exactly with torch or with faiss, or a LanceDB table.

Every collection answers `nearest(query, count)` with candidates; query.py scores them again in fp64, so that all give
the same neighbours.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from stretchysnake.search.index import IndexSettings
from stretchysnake.search.stores.candidate import Candidate
from stretchysnake.search.stores.folder_collection import (
    ROWS_AT_ONCE,
    FolderCollection,
    of_length_one,
)

BACKENDS = ("torch", "faiss", "approximate")


class Collection(Protocol):
    """What query.py needs of a place that holds rows. One that is not exact has a `note` that says so."""

    name: str
    settings: IndexSettings
    weights: str
    num_rows: int

    def nearest(self, query: np.ndarray, count: int) -> list[list[Candidate]]:
        """For each query (Q, C) its `count` nearest rows by cosine, nearest first (fewer where no more are found)."""
        ...


class FaissCollection(FolderCollection):
    """An index folder, its rows in a flat faiss index (exact in fp32): quicker where it is asked often."""

    def __init__(self, folder: str):
        super().__init__(folder)
        try:
            import faiss
        except ImportError:
            raise RuntimeError(
                "faiss is not installed; backend faiss needs it: pip install 'stretchysnake[faiss]'"
            ) from None
        self._flat = faiss.IndexFlatIP(self.settings.width)
        stored, first = [], 0
        for segment in self.index.segments:
            counts = segment.counts()
            stored.append(first + counts)
            first += len(segment.features)
            for start in range(0, len(counts), ROWS_AT_ONCE):
                rows = segment.features[counts[start : start + ROWS_AT_ONCE]]
                self._flat.add(of_length_one(rows))
        self._stored = np.concatenate([np.empty(0, np.int64), *stored])

    def _numbers(self, query: np.ndarray, count: int) -> list[list[int]]:
        return self._stored[self._flat.search(of_length_one(query), count)[1]].tolist()


def open_collection(
    name: str,
    *,
    backend: str = "torch",
    where: str | None = None,
    index_name: str | Sequence[str] | None = None,
) -> Collection:
    """The collection of a folder, or of lancedb:URI.

    For a store: `where` is a LanceDB filter, e.g. "class_name = 'run'"; index_name chooses among its indexes.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend ({backend!r}) must be one of: {', '.join(BACKENDS)}")
    if name.startswith("lancedb:"):
        from stretchysnake.search.stores.lance_collection import LanceCollection

        if backend != "torch":
            raise ValueError(f"backend ({backend}) is for index folders; {name} searches by itself")
        return LanceCollection(name.removeprefix("lancedb:"), where=where, index_name=index_name)
    for option, value in (("where", where), ("index_name", index_name)):
        if value is not None:
            raise ValueError(
                f"{option} ({value}) needs a LanceDB store, {name} is a folder; put the index there with "
                "stretchysnake embed ... --store lancedb:URI"
            )
    if backend == "approximate":
        from stretchysnake.search.stores.ivf import ApproximateCollection

        return ApproximateCollection(name)
    return (FaissCollection if backend == "faiss" else FolderCollection)(name)
