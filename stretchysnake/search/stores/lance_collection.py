"""Search in a LanceDB store: over all its indexes that can be compared, or those named."""

import heapq
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stretchysnake.search.index import IndexRow
from stretchysnake.search.stores.candidate import Candidate, drawn_numbers
from stretchysnake.search.stores.lance_store import FIELDS
from stretchysnake.search.stores.lance_tables import HeldIndex, connect, held_indexes, holds_none
from stretchysnake.shown import first_line

_RUN = 32


class LanceCollection:
    """The indexes of a store as one collection: searched by scan, exact in fp32, under an optional SQL filter.

    index_name: one name or several; without it all of the store, which must then be of one model at one scale. A video
    that several indexes hold is one video. ValueError lists what the store holds where that cannot be searched.
    """

    def __init__(
        self, uri: str, *, where: str | None = None, index_name: str | Sequence[str] | None = None
    ):
        self.name, self._where = f"lancedb:{uri}", where
        indexes = _chosen(uri, index_name)
        first = indexes[0]
        self.settings = first.settings
        here = [one for one in indexes if Path(one.weights).is_file()]
        self.weights = (here or indexes)[0].weights  # each writer knows its own machine's
        self._tables = [one.table for one in indexes]
        try:
            counts = [table.count_rows(where) for table in self._tables]
        except (ValueError, RuntimeError, OSError) as error:
            raise ValueError(
                f"where ({where}) is no filter of {self.name}: {first_line(error, 200)}; "
                f"columns: {', '.join(FIELDS.values())}"
            ) from None
        self.num_rows = sum(counts)

    def nearest(self, query: np.ndarray, count: int) -> list[list[Candidate]]:
        return [self._nearest(vector, count) for vector in query]

    def drawn(self, count: int) -> list[Candidate]:
        """Runs of rows from all over the tables: a store reads them block by block."""
        places = drawn_numbers(max(1, self.num_rows // _RUN), max(1, count // _RUN))
        drawn, first = [], 0
        for table in self._tables:
            held = table.count_rows(self._where)
            for start in (place * _RUN - first for place in places):
                if 0 <= start < held:
                    request = table.search().limit(_RUN).offset(start)
                    if self._where is not None:
                        request = request.where(self._where)
                    drawn += _candidates(request.to_arrow())
            first += held
        return drawn[:count]

    def _nearest(self, vector: np.ndarray, count: int) -> list[Candidate]:
        pairs = [pair for table in self._tables for pair in self._nearest_of(table, vector, count)]
        best = heapq.nsmallest(count, pairs, key=lambda pair: (pair[0], pair[1].order))
        return [candidate for _, candidate in best]

    def _nearest_of(self, table, vector: np.ndarray, count: int) -> list[tuple[float, Candidate]]:
        request = table.search(vector.astype("<f4"), vector_column_name="features")
        request = request.distance_type("cosine").limit(count)
        if self._where is not None:
            request = request.where(self._where, prefilter=True)
        hits = request.to_arrow()
        return list(zip(hits["_distance"].to_pylist(), _candidates(hits), strict=True))


def _candidates(hits) -> list[Candidate]:
    """The rows of an Arrow table."""
    features = np.stack(hits["features"].to_numpy()) if len(hits) else np.empty((0, 0), "<f4")
    listed = hits.select(list(FIELDS.values())).to_pylist()
    rows = (
        IndexRow.from_dict({ours: values[theirs] for ours, theirs in FIELDS.items()})
        for values in listed
    )
    return [Candidate((row.file.path, row.start), row, features[i]) for i, row in enumerate(rows)]


def _chosen(uri: str, index_name: str | Sequence[str] | None) -> list[HeldIndex]:
    """The indexes asked for, all of one model at one scale."""
    held = held_indexes(uri, connect(uri, create=False))
    if not held:
        raise ValueError(holds_none(uri))
    holds = f"the store holds: {'; '.join(map(str, held))}"
    if index_name is not None:
        names = [index_name] if isinstance(index_name, str) else list(dict.fromkeys(index_name))
        by_name = {one.name: one for one in held}
        for name in names:
            if name not in by_name:
                raise ValueError(f"index_name ({name}) is not in lancedb:{uri}; {holds}")
        held = [by_name[name] for name in names]
    way_out = f"choose with --index_name; {holds}"
    for one in held:
        if one.settings is None:
            raise ValueError(f"store (lancedb:{uri}) holds an index to leave out, {one}; {way_out}")
        if difference := held[0].settings.differences(one.settings):
            raise ValueError(
                f"store (lancedb:{uri}) holds indexes that cannot be compared ({held[0].name} and {one.name}: "
                f"{difference}); {way_out}"
            )
    return held
