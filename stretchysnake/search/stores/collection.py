"""Where rows to search lie: an index folder, searched exactly with torch or with faiss, or a LanceDB table.

Every collection answers `nearest(query, count)` with candidates; query.py scores them again in fp64, so that all give
the same neighbours.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from stretchysnake.eval.protocols.nearest import nearest
from stretchysnake.search.index import Index, IndexSettings, read_index
from stretchysnake.search.stores.candidate import Candidate, drawn_numbers

BACKENDS = ("torch", "faiss")
_ROWS_AT_ONCE = 2**16


class Collection(Protocol):
    """What query.py needs of a place that holds rows."""

    name: str
    settings: IndexSettings
    weights: str
    num_rows: int

    def nearest(self, query: np.ndarray, count: int) -> list[list[Candidate]]:
        """For each query (Q, C) its `count` nearest rows by cosine, nearest first (fewer where fewer exist)."""
        ...

    def drawn(self, count: int) -> list[Candidate]:
        """Some of the rows from all over it, at most `count`, the same ones at every call."""
        ...


class FolderCollection:
    """An index folder, searched with torch: exact, whatever its size, a part of it in memory at a time."""

    def __init__(self, folder: str):
        self.index: Index = read_index(folder)
        self.name, self.settings = folder, self.index.settings
        self.weights, self.num_rows = self.index.weights, len(self.index.rows)
        self.av = self.index.av

    def nearest(self, query: np.ndarray, count: int) -> list[list[Candidate]]:
        count = min(count, self.num_rows)
        return [[self._candidate(i) for i in numbers] for numbers in self._numbers(query, count)]

    def drawn(self, count: int) -> list[Candidate]:
        return [self._candidate(number) for number in drawn_numbers(self.num_rows, count)]

    def _numbers(self, query: np.ndarray, count: int) -> list[list[int]]:
        queries, blocks = torch.from_numpy(np.ascontiguousarray(query)), []
        for start in range(0, self.num_rows, _ROWS_AT_ONCE):
            part = torch.from_numpy(
                np.ascontiguousarray(self.index.features[start : start + _ROWS_AT_ONCE])
            )
            best = nearest(queries, part, k=min(count, len(part)))
            blocks.append(best + start)
        numbers = torch.cat(blocks, 1)  # (Q, some more than count): the best of each part
        if len(blocks) > 1:
            rows = torch.from_numpy(self.index.features[numbers.flatten().numpy()])
            rows = rows.view(*numbers.shape, -1)
            best = [nearest(q[None], r, k=count)[0] for q, r in zip(queries, rows, strict=True)]
            numbers = torch.stack([k[b] for k, b in zip(numbers, best, strict=True)])
        return numbers.tolist()

    def _candidate(self, number: int) -> Candidate:
        row = self.index.rows[number]
        return Candidate((row.file.path, row.start), row, self.index.features[number])


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
        for start in range(0, self.num_rows, _ROWS_AT_ONCE):
            self._flat.add(_of_length_one(self.index.features[start : start + _ROWS_AT_ONCE]))

    def _numbers(self, query: np.ndarray, count: int) -> list[list[int]]:
        return self._flat.search(_of_length_one(query), count)[1].tolist()


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
    return (FaissCollection if backend == "faiss" else FolderCollection)(name)


def _of_length_one(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.ascontiguousarray(features / np.maximum(norms, 1e-30), "<f4")
