"""An approximate index beside an exact one: faiss's inverted lists (IVF) of 8-bit rows, with the recall it was found
to have.

Rows are put into about sqrt(rows) lists by k-means; a query reads the rows of the `num_probes` nearest lists, from the
mapped file; its candidates are scored again in fp64 from the features themselves. Rows of other lists are missed:
how much, is measured when the lists are built, on rows of the index that are asked for their nearest others, against
the exact answer, and stored. Segments without lists (new, small, or joined since) are searched exactly.

IVF: Jegou et al., Product quantization for nearest neighbor search, 2011, section V, without the product quantizer.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stretchysnake.eval.features.feature_table import MANIFEST
from stretchysnake.search.index import Index, read_index, write_manifest
from stretchysnake.search.segments.commit import commit, refuse_unfinished, written_index
from stretchysnake.search.segments.segment import Segment
from stretchysnake.search.stores.collection import (
    FolderCollection,
    non_finite,
    of_length_one,
)
from stretchysnake.whole_file import Damaged, sha256_of, unfinished_file

SMALLEST = 2**12
"""Rows; a smaller segment is searched exactly, which takes milliseconds."""
_NEIGHBOURS = 10
_TRAINED_ON = 64
"""Rows per list that k-means sees."""
_BLOCK = 2**14


def build_lists(
    folder: str | os.PathLike,
    *,
    recall: float = 0.95,
    sample: int = 200,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Build the lists of an index and measure them; what the manifest then says of them.

    num_probes is the smallest power of two with at least this recall of the 10 nearest on the sample, or all lists.
    RuntimeError without faiss; ValueError for an index whose segments are all small.
    """
    faiss = _faiss()
    if not 0 < recall <= 1:
        raise ValueError(f"recall ({recall}) must be more than 0 and at most 1, e.g. 0.95")
    if sample < 1:
        raise ValueError(f"sample ({sample}) must be at least 1 row")
    folder = Path(folder)
    read_index(folder)
    with written_index(folder) as place:
        refuse_unfinished(place, folder)
        index = read_index(folder)
        large = [one for one in index.segments if one.name and one.num_rows >= SMALLEST]
        if not large:
            raise ValueError(
                f"index ({folder}) has no segment of {SMALLEST} rows or more, and smaller ones are searched exactly in "
                "milliseconds; where it is of many small ones: stretchysnake index compact"
            )
        files, hashes, lists = {}, {}, {}
        for number, segment in enumerate(large, 1):
            if progress is not None:
                progress(f"lists of segment {number} of {len(large)}, {segment.num_rows} rows")
            built = _built(faiss, segment, index, seed)
            files[segment.name], lists[segment.name] = f"ivf-{segment.name}.faiss", built.nlist
            with unfinished_file(folder / files[segment.name]) as part:
                faiss.write_index(built, str(part))
            hashes[segment.name] = sha256_of(folder / files[segment.name])
        about = {"files": files, "sha256": hashes, "lists": lists, "rows": len(index.rows)}
        found = {**about, **_measured(folder, index, about, recall, sample, seed, progress)}
        entries = [segment.entry for segment in index.segments]
        write_manifest(
            place / MANIFEST, index.settings, index.weights, entries, index.failures, before=[index],
            approximate=found,
        )  # fmt: skip
        commit(folder)
    return found


class ApproximateCollection(FolderCollection):
    """An index folder, searched by its lists; `recall` is what they were found to have when they were built."""

    def __init__(self, folder: str, *, about: dict | None = None):
        super().__init__(folder)
        faiss = _faiss()
        about = self.index.approximate if about is None else about
        if not about.get("files"):
            raise ValueError(
                f"index ({folder}) has no lists to search approximately; build them with: "
                f"stretchysnake index approximate {folder}"
            )
        self.num_probes = about.get("num_probes", 1)
        self.recall, self.sample = about.get("recall"), about.get("sample")
        self._lists = {}
        for name, file in about["files"].items():
            try:
                self._lists[name] = faiss.read_index(str(Path(folder) / file), faiss.IO_FLAG_MMAP)
            except RuntimeError as error:
                raise Damaged(
                    f"index ({folder}): {file} cannot be read ({str(error).splitlines()[0][:120]}); build it again: "
                    f"stretchysnake index approximate {folder}"
                ) from None
        exact = [segment for segment in self.index.segments if segment.name not in self._lists]
        self.num_exact = sum(segment.num_rows for segment in exact)

    @property
    def note(self) -> str:
        """What a user has to know of the answers."""
        exact = f"; {self.num_exact} of its {self.num_rows} rows are searched exactly" * bool(
            self.num_exact
        )
        return (
            f"index ({self.name}) is searched approximately: {self.recall:.1%} of the {_NEIGHBOURS} nearest were found "
            f"for {self.sample} of its rows when its lists were built{exact}"
        )

    def _numbers(self, query: np.ndarray, count: int) -> list[list[int]]:
        vectors, first = of_length_one(query), 0
        exact = [segment for segment in self.index.segments if segment.name not in self._lists]
        parts = [tuple(part.numpy() for part in self._compared(query, count, exact))]
        for segment in self.index.segments:
            if (lists := self._lists.get(segment.name)) is not None:
                lists.nprobe = min(self.num_probes, lists.nlist)
                scores, rows = lists.search(vectors, min(count, len(segment.features)))
                gone = [np.arange(removed.start, removed.stop) for removed in segment.removed_rows]
                scores[np.isin(rows, np.concatenate([[-1], *gone]))] = -np.inf  # -1: no more
                parts.append((scores, rows + first))
            first += len(segment.features)
        scores, numbers = (np.concatenate(part, 1) for part in zip(*parts, strict=True))
        order = np.argsort(-scores, 1, kind="stable")[:, :count]
        return [
            [int(numbers[q, i]) for i in places if scores[q, i] > -np.inf]
            for q, places in enumerate(order)
        ]


def _built(faiss, segment: Segment, index: Index, seed: int):
    counts, width = segment.counts(), index.settings.width
    num_lists = int(len(counts) ** 0.5)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(counts, min(len(counts), _TRAINED_ON * num_lists), replace=False))
    quantizer = faiss.IndexFlatIP(width)
    lists = faiss.IndexIVFScalarQuantizer(
        quantizer, width, num_lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    lists.cp.seed, lists.cp.max_points_per_centroid = seed + 1, _TRAINED_ON
    trained_on = of_length_one(segment.features[chosen])
    if not np.isfinite(trained_on).all():
        raise Damaged(non_finite(index.folder))
    lists.train(trained_on)
    for start in range(0, len(counts), _BLOCK):
        rows = counts[start : start + _BLOCK]
        lists.add_with_ids(of_length_one(segment.features[rows]), rows)
    return lists


def _measured(
    folder: Path, index: Index, about: dict, recall: float, sample: int, seed: int, progress
) -> dict:
    """Recall of the 10 nearest other rows, of rows of the index, for as many probes as it takes."""
    rng = np.random.default_rng([seed, 1])
    sample = min(sample, len(index.rows))
    chosen = np.sort(rng.choice(len(index.rows), sample, replace=False)).tolist()
    queries = index.features_at(chosen)
    wanted = min(_NEIGHBOURS + 1, len(index.rows))
    exact = FolderCollection(str(folder))._numbers(queries, wanted)
    collection = ApproximateCollection(str(folder), about=about)
    own = [_stored_number(index, number) for number in chosen]
    most = max(about["lists"].values())
    num_probes, found = 1, 0.0
    while True:
        collection.num_probes = num_probes
        if progress is not None:
            progress(f"recall of {sample} rows with {num_probes} of {most} lists")
        answers = collection._numbers(queries, wanted)
        shares = []
        for mine, truth, itself in zip(answers, exact, own, strict=True):
            others = set(truth) - {itself}
            shares.append(len(others & set(mine)) / max(1, len(others)))
        found = float(np.mean(shares))
        if found >= recall or num_probes >= most:
            break
        num_probes = min(2 * num_probes, most)
    return {
        "num_probes": num_probes,
        "recall": round(found, 4),
        "nearest": _NEIGHBOURS,
        "sample": sample,
    }


def _stored_number(index: Index, number: int) -> int:
    """A row's number over all segments, removed rows counted too."""
    segment, row = index.rows.place(number)
    place = next(i for i, one in enumerate(index.segments) if one is segment)
    return sum(len(one.features) for one in index.segments[:place]) + row


def _faiss():
    try:
        import faiss
    except ImportError:
        raise RuntimeError(
            "faiss is not installed; approximate search needs it: pip install 'stretchysnake[faiss]'"
        ) from None
    return faiss
