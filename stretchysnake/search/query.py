"""Search by example: the videos of one or several collections that are nearest to a video."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.data.processes.nursery import LANCEDB, nursery
from stretchysnake.eval.features.passes import features_of
from stretchysnake.eval.features.placement import Placement
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.protocols.nearest import scores
from stretchysnake.models.backbone import Backbone
from stretchysnake.models.weights.published.named import weights_file
from stretchysnake.search.decoding import Unreadable, Video, decoded, rows_at_once
from stretchysnake.search.index import IndexRow, IndexSettings, VideoFile, made_otherwise
from stretchysnake.search.named_videos import group_of
from stretchysnake.search.stores.collection import Collection
from stretchysnake.search.stores.found_indexes import matching_indexes, renewal
from stretchysnake.search.stores.opening import open_collection
from stretchysnake.search.stores.score_spread import NUM_ROWS, ScoreSpread, score_spread
from stretchysnake.whole_file import sha256_of

_FP32 = 1e-4
"""More than the error of a cosine in fp32: candidates are asked for until the k-th video is that clear of the rest."""

_CANDIDATES = 256
"""At least so many rows are asked for at once: of an index of windows many of the nearest rows are of one video."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A video found, at its best place."""

    index: str
    row: IndexRow
    score: float
    """Cosine similarity, in [-1, 1]."""
    query_start: float
    query_end: float | None
    """The part of the query that matched, seconds; (0, None) is all of it."""
    marks: tuple[str, ...] = ()
    """"same video" (equal content), "same path", "same group (NAME)"."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The nearest videos of a query, nearest first."""

    query: VideoFile
    hits: list[Hit]
    settings: IndexSettings
    num_rows: int
    """Rows searched, over all collections."""
    notes: tuple[str, ...] = ()
    """Indexes of a folder that were passed over; those of earlier versions, whose frames had other pixels than the
    query's."""
    spread: ScoreSpread | None = None
    """How pairs of different videos of the indexes score, which tells what a hit's score means; None for one video."""


@nursery(holds_threads=LANCEDB)
def search(
    indexes: str | Sequence[str],
    query: str | os.PathLike,
    *,
    k: int = 5,
    weights: str | os.PathLike | None = None,
    group: str = "",
    hide_same: bool = False,
    backend: str = "torch",
    where: str | None = None,
    index_name: str | Sequence[str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    num_frames: int | None = None,
    size: int | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> SearchResult:
    """The k videos nearest to the query by cosine, of index folders or lancedb:URI stores.

    A video with several rows counts with its best one; so does a query that is cut into windows. The ranking is that
    of fp64 arithmetic; equal scores go in the order of the indexes given, path and time. Hits that are the query
    itself, or of its group, are marked; hide_same leaves them out. Of a store that holds several indexes, index_name
    chooses one or several; without it all are searched, if they can be compared. A folder of several indexes stands
    for those that fit `weights` and the scale asked for, or else the first of them; `notes` say what was passed over.
    ValueError for an index of other weights, of another scale than the first one's, of an older format, or damaged. The
    model computes on `device`, in the index's precision, batch_size windows of the query at a time (None: as many as
    2^14 tokens).
    """
    if k < 1:
        raise ValueError(f"k ({k}) must be at least 1")
    weights = None if weights is None else weights_file(weights)
    asked = [indexes] if isinstance(indexes, str) else list(indexes)
    names, passed_over = matching_indexes(asked, weights=weights, num_frames=num_frames, size=size)
    collections = [
        open_collection(name, backend=backend, where=where, index_name=index_name) for name in names
    ]
    first = collections[0]
    for other in collections[1:]:
        if difference := first.settings.differences(other.settings):
            raise ValueError(
                f"indexes ({first.name}, {other.name}) differ ({difference}), so their scores cannot be "
                "compared; embed both with one model at one scale"
            )
    placement = Placement(device=device, precision=first.settings.precision)
    model = _model(first, weights, placement)
    file, rows, features = _embed_query(
        model,
        first.settings,
        os.fspath(query),
        batch_size or rows_at_once(first.settings.scale),
        num_workers=1,
        timeout_seconds=timeout_seconds,
    )
    group = group or group_of(file.path)
    hits = _ranked(collections, features, rows, k, lambda hit: _marks(hit, file, group), hide_same)
    return SearchResult(
        query=replace(file, group=group),
        hits=hits,
        settings=first.settings,
        num_rows=sum(collection.num_rows for collection in collections),
        notes=(*passed_over, *_notes(collections)),
        spread=_spread(collections),
    )


def _spread(collections: Sequence[Collection]) -> ScoreSpread | None:
    """Of rows of all collections, of each as many as it has a share of them."""
    total = sum(collection.num_rows for collection in collections)
    shares = (max(1, round(NUM_ROWS * c.num_rows / max(1, total))) for c in collections)
    rows = [row for c, share in zip(collections, shares, strict=True) for row in c.drawn(share)]
    return score_spread(rows)


def _notes(collections: Sequence[Collection]) -> Iterator[str]:
    for collection in collections:
        if note := getattr(collection, "note", ""):
            yield note
        if said := made_otherwise(collection.settings, getattr(collection, "av", "")):
            yield (
                f"index ({collection.name}) is an earlier version's ({said}), so equal videos score less than 1; "
                f"to renew it, embed the videos again into a new folder: {renewal(collection.name)}"
            )


def _model(
    collection: Collection, weights: str | os.PathLike | None, placement: Placement
) -> Backbone:
    """The model that made a collection; ValueError for any other."""
    path = Path(collection.weights if weights is None else weights)
    wanted = collection.settings.weights_sha256
    if weights is None and not path.is_file():
        raise ValueError(
            f"weights ({path}) that made {collection.name} are not there any more; give them with --weights"
        )
    model, _, _ = read_subject(path, placement)
    if (sha256 := sha256_of(path)) != wanted:
        made_by = ", ".join(filter(None, [collection.settings.architecture, wanted[:12]]))
        raise ValueError(
            f"weights ({path}, {model.config.architecture}, SHA-256 {sha256[:12]}) are not the ones of "
            f"{collection.name} ({made_by}); give those, or embed the videos again with these: "
            f"{renewal(collection.name, str(path))}"
        )
    return model


def _embed_query(
    model: Backbone,
    settings: IndexSettings,
    path: str,
    batch_size: int,
    **limits,
) -> tuple[VideoFile, list[IndexRow], np.ndarray]:
    """(the file, its rows, features (rows, C)), read as the videos of the index were."""
    rows, blocks, file = [], [], None
    for part in decoded([Video(path=path)], settings, **limits):
        if isinstance(part, Unreadable):
            raise part.error
        file, rows = part.file, [*rows, *part.rows]
        blocks.append(features_of(model, settings.scale, part.frames, batch_size=batch_size))
    return file, rows, np.concatenate(blocks)


def _ranked(
    collections: Sequence[Collection],
    features: np.ndarray,
    rows: Sequence[IndexRow],
    k: int,
    marks: Callable[[Hit], tuple[str, ...]],
    hide_same: bool,
) -> list[Hit]:
    """The k best videos. Candidates are asked for until no row outside them can be among these."""
    count = max(4 * k + 16, _CANDIDATES)
    while True:
        best: dict[tuple[int, str], tuple] = {}
        bound = -np.inf
        for place, collection in enumerate(collections):
            for number, candidates in enumerate(collection.nearest(features, count)):
                if not candidates:
                    continue
                matrix = torch.from_numpy(np.stack([c.features for c in candidates]))
                vector = torch.from_numpy(features[number : number + 1])
                similarities = scores(vector, matrix)[0].tolist()
                if len(candidates) == count < collection.num_rows:  # there are more
                    bound = max(bound, min(similarities) + _FP32)
                for score, candidate in zip(similarities, candidates, strict=True):
                    rank = (-score, place, candidate.order, number)
                    key = (place, candidate.row.file.path)
                    if key not in best or rank < best[key][0]:
                        best[key] = (rank, candidate.row)
        hits = []
        for (minus, place, _, number), row in sorted(best.values(), key=lambda one: one[0]):
            hit = Hit(
                index=collections[place].name,
                row=row,
                score=-minus,
                query_start=rows[number].start,
                query_end=rows[number].end,
            )
            hit = replace(hit, marks=marks(hit))
            if not (hide_same and hit.marks):
                hits.append(hit)
        if bound == -np.inf or (len(hits) >= k and hits[k - 1].score > bound):
            return hits[:k]
        count *= 8


def _marks(hit: Hit, query: VideoFile, group: str) -> tuple[str, ...]:
    file, marks = hit.row.file, []
    if file.sha256 == query.sha256:
        marks.append("same video")
    elif os.path.abspath(query.path) == file.path:
        marks.append("same path, changed since")
    if group and file.group == group:
        marks.append(f"same group ({group})")
    return tuple(marks)
