"""Where rows to search lie: an index folder, searched exactly with torch or with faiss, or a LanceDB table.

Every collection answers `nearest(query, count)` with candidates; query.py scores them again in fp64, so that all give
the same neighbours.
"""

import mmap
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from stretchysnake.search.index import Index, IndexSettings, read_index
from stretchysnake.search.segments.segment import Segment
from stretchysnake.search.stores.candidate import Candidate, drawn_numbers
from stretchysnake.whole_file import Damaged

_ROWS_AT_ONCE = 2**14


class Collection(Protocol):
    """What query.py needs of a place that holds rows. One that is not exact has a `note` that says so."""

    name: str
    settings: IndexSettings
    weights: str
    num_rows: int

    def nearest(self, query: np.ndarray, count: int) -> list[list[Candidate]]:
        """For each query (Q, C) its `count` nearest rows by cosine, nearest first (fewer where no more are found)."""
        ...

    def drawn(self, count: int) -> list[Candidate]:
        """Some of the rows from all over it, at most `count`, the same ones at every call."""
        ...


class FolderCollection:
    """An index folder, searched with torch: every row is compared, whatever its size, and a part of it is in memory."""

    def __init__(self, folder: str):
        self.index: Index = read_index(folder)
        self.name, self.settings = folder, self.index.settings
        self.weights, self.num_rows = self.index.weights, len(self.index.rows)
        self.av = self.index.av

    def nearest(self, query: np.ndarray, count: int) -> list[list[Candidate]]:
        count = min(count, self.num_rows)
        if not count:
            return [[] for _ in query]
        return [[self._candidate(i) for i in numbers] for numbers in self._numbers(query, count)]

    def drawn(self, count: int) -> list[Candidate]:
        places = map(self.index.rows.place, drawn_numbers(self.num_rows, count))
        return [self._candidate_at(*place) for place in places]

    def _numbers(self, query: np.ndarray, count: int) -> list[list[int]]:
        """Stored rows, counted over all segments, those of removed videos included."""
        return self._compared(query, count, self.index.segments)[1].tolist()

    def _compared(
        self, query: np.ndarray, count: int, segments: Sequence[Segment]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(cosines, numbers), each (Q, count), best first, of all rows of these segments; -inf: there are fewer."""
        queries = torch.from_numpy(of_length_one(query))
        best = torch.full((len(query), count), -torch.inf)
        numbers = torch.zeros(len(query), count, dtype=torch.int64)
        first, names = 0, {segment.name for segment in segments}
        for segment in self.index.segments:
            blocks = row_blocks(segment, _ROWS_AT_ONCE) if segment.name in names else ()
            for start, block in blocks:
                found = _cosines(queries, block)
                if not found.isfinite().all():
                    raise Damaged(non_finite(self.index.folder))
                found[:, _removed(segment, start, len(block))] = -torch.inf
                if not (found.amax(1) > best[:, -1]).any():
                    continue
                here = first + start + torch.arange(len(block))
                both = torch.cat([best, found], 1).topk(count)
                numbers = torch.cat([numbers, here.expand(len(query), -1)], 1)
                best, numbers = both.values, numbers.gather(1, both.indices)
            first += len(segment.features)
        return best, numbers

    def _candidate(self, number: int) -> Candidate:
        for segment in self.index.segments:
            if number < len(segment.features):
                break
            number -= len(segment.features)
        return self._candidate_at(segment, number)

    def _candidate_at(self, segment: Segment, number: int) -> Candidate:
        row, features = segment.row(number), np.array(segment.features[number])
        # a system with large pages maps 2 MB around what is touched
        let_go(segment.features, 0, len(segment.features))
        for column in segment.columns.values():
            let_go(column, 0, len(column))
        return Candidate((row.file.path, row.start), row, features)


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
            for start in range(0, len(counts), _ROWS_AT_ONCE):
                rows = segment.features[counts[start : start + _ROWS_AT_ONCE]]
                self._flat.add(of_length_one(rows))
        self._stored = np.concatenate([np.empty(0, np.int64), *stored])

    def _numbers(self, query: np.ndarray, count: int) -> list[list[int]]:
        return self._stored[self._flat.search(of_length_one(query), count)[1]].tolist()


def row_blocks(segment: Segment, num_rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, features (n, C)) of num_rows rows at a time, removed ones included; each is let go of again."""
    for start in range(0, len(segment.features), num_rows):
        block = segment.features[start : start + num_rows]
        yield start, np.asarray(block)
        let_go(segment.features, start, len(block))


def let_go(array: np.ndarray, start: int, num_rows: int) -> None:
    """Give rows of a mapped file back to the system, which keeps them as long as it has room: memory stays flat."""
    mapped = array
    while isinstance(mapped, np.ndarray):
        mapped = mapped.base
    if not isinstance(mapped, mmap.mmap) or not hasattr(mapped, "madvise") or not array.size:
        return
    whole = np.frombuffer(mapped, "u1")
    row = array.strides[0]
    first = array.ctypes.data - whole.ctypes.data + start * row
    last = min(first + num_rows * row, len(mapped))
    first, last = (place // mmap.PAGESIZE * mmap.PAGESIZE for place in (first, last))
    if last > first:
        mapped.madvise(mmap.MADV_DONTNEED, first, last - first)


def non_finite(folder: str) -> str:
    """That an index holds what no model gave."""
    return (
        f"index ({folder}) holds a row that is not finite, so a file of it is damaged; "
        f"see: stretchysnake index check {folder}"
    )


def _cosines(query: torch.Tensor, block: np.ndarray) -> torch.Tensor:
    """(Q, rows) of queries of length one."""
    rows = torch.from_numpy(block)
    norms = torch.linalg.vector_norm(rows, dim=1)
    return torch.mm(query, rows.T).div_(norms.clamp_(min=1e-30))


def _removed(segment: Segment, start: int, count: int) -> torch.Tensor:
    """(count,) bool: which rows from start on do not count."""
    gone = torch.zeros(count, dtype=torch.bool)
    ends = [rows.stop for rows in segment.removed_rows]
    for rows in segment.removed_rows[bisect_right(ends, start) :]:
        if rows.start >= start + count:
            break
        gone[max(0, rows.start - start) : rows.stop - start] = True
    return gone


def of_length_one(features: np.ndarray) -> np.ndarray:
    """(n, C) fp32, each row divided by its norm."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.ascontiguousarray(features / np.maximum(norms, 1e-30), "<f4")
