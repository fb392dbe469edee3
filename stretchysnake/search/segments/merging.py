"""Indexes written anew from others: one segment of all rows, with the bytes of an index made at once."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stretchysnake.eval.features.feature_table import MANIFEST
from stretchysnake.search.index import Index, IndexSettings, is_index, read_index, write_manifest
from stretchysnake.search.segments.commit import commit, refuse_unfinished, written_index
from stretchysnake.search.segments.joining import in_order, never_twice, videos_of
from stretchysnake.search.segments.writing import WrittenVideo, write_segment


@dataclass(frozen=True, kw_only=True)
class MergeResult:
    """What `merge` did."""

    index: Index
    num_doubles: int
    """Videos that several of the indexes hold, with equal content; each counts once."""
    is_new: bool
    """False where the folder held all of it before."""


def write_index(
    folder: str | os.PathLike,
    settings: IndexSettings,
    weights: str,
    videos: Iterable[WrittenVideo],
    failures: Iterable[tuple[str, str]],
    *,
    num_rows: int,
) -> Index:
    """An index of videos that are sorted by path, num_rows rows in all, in the place of the one that was there."""
    with written_index(Path(folder)) as place:
        _write(place, Path(folder), settings, weights, videos, num_rows, failures, before=())
    return read_index(folder)


def compact(folder: str | os.PathLike) -> Index:
    """Join all segments of an index into one, and leave out what was removed. A kill at any moment harms nothing.

    It needs room for the index once more while it works. ValueError where an interrupted `embed` has to be finished.
    """
    folder = Path(folder)
    index = read_index(folder)
    with written_index(folder) as place:
        refuse_unfinished(place, folder)
        index = read_index(folder)
        if is_compact(index):
            return index
        videos = _all_videos([index])
        settings, weights, rows = index.settings, index.weights, len(index.rows)
        _write(place, folder, settings, weights, videos, rows, index.failures, before=[index])
    return read_index(folder)


def is_compact(index: Index) -> bool:
    """Whether nothing is left to join or to leave out."""
    return not index.is_flat and (
        not index.segments or (len(index.segments) == 1 and not len(index.segments[0].removed))
    )


def merge(
    sources: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    note: Callable[[str], None] | None = None,
) -> MergeResult:
    """One index, in the folder `out`, of all videos of several of equal settings; equal to one that was made at once.

    A video that several hold with equal content is there once; of an index that `out` holds already, what the sources
    have otherwise is replaced. ValueError for other settings, and for a video with another content in two sources. A
    killed call is done again by the same call; the sources are never changed. `note` is told of each source.
    """
    out = Path(out)
    if not sources:
        raise ValueError("indexes must name at least one folder of stretchysnake embed")
    opened: list[Index] = []
    for source in sources:
        opened.append(read_index(source))
        if note is not None:
            note(f"{source}: {opened[-1].num_videos} videos, {len(opened[-1].rows)} rows")
    if os.path.realpath(out) in map(os.path.realpath, sources):
        raise ValueError(f"out ({out}) is one of the indexes to merge; choose another folder")
    with written_index(out) as place:
        refuse_unfinished(place, out)
        there = read_index(out) if is_index(out) else None
        all_of = [*opened, there] if there is not None else opened
        first = opened[0]
        for other in all_of[1:]:
            if difference := first.settings.differences(other.settings):
                raise ValueError(
                    f"indexes ({first.folder}, {other.folder}) differ ({difference}), so they cannot be one; "
                    "embed both with one model at one scale"
                )
        settings = next(
            (one.settings for one in all_of if one.settings.architecture), first.settings
        )
        chosen = _Chosen(all_of, there)
        num_rows = sum(len(rows) for rows, _ in chosen.videos())
        failures = dict(pair for one in reversed(all_of) for pair in one.failures)
        failed = [(path, why) for path, why in failures.items() if not _holds(all_of, path)]
        here = [one.weights for one in all_of if os.path.isfile(one.weights)]
        weights = (here or [first.weights])[0]
        same = there is not None and is_compact(there) and _equal(there, chosen, num_rows)
        if not (same and (sorted(there.failures), there.weights) == (sorted(failed), weights)):
            same = False
            _write(place, out, settings, weights, chosen.videos(), num_rows, failed, before=all_of)
    return MergeResult(index=read_index(out), num_doubles=chosen.num_doubles, is_new=not same)


class _Chosen:
    """The videos of several indexes in order, one of each path: the first source's, before what is there already."""

    def __init__(self, indexes: Sequence[Index], there: Index | None):
        self.indexes, self.there, self.num_doubles = indexes, there, 0

    def videos(self) -> Iterator[WrittenVideo]:
        self.num_doubles = 0
        return _all_videos(self.indexes, same=self._same)

    def _same(self, videos: list[WrittenVideo]) -> WrittenVideo:
        first = videos[0]
        file = first[0][0].file
        sources = (
            videos if self.there is None or not _is_of(self.there, videos[-1]) else videos[:-1]
        )
        for rows, _ in sources[1:]:
            if rows[0].file.sha256 != file.sha256:
                folders = [one.folder for one in self.indexes if one.find(file.path) is not None]
                raise ValueError(
                    f"indexes ({', '.join(folders[: len(sources)])}) hold {file.path} with another content each, since "
                    "the file changed in between; bring them up to date with stretchysnake embed, then merge"
                )
        self.num_doubles += len(sources) > 1
        return first


def _is_of(index: Index, video: WrittenVideo) -> bool:
    """Whether a video's features are the mapped ones of this index."""
    return any(np.shares_memory(video[1], segment.features) for segment in index.segments)


def _holds(indexes: Sequence[Index], path: str) -> bool:
    return any(index.find(path) is not None for index in indexes)


def _equal(there: Index, chosen: _Chosen, num_rows: int) -> bool:
    """Whether an index holds the chosen videos and no other ones."""
    if len(there.rows) != num_rows:
        return False
    mine = _all_videos([there])
    return all(
        rows == wanted and np.array_equal(features, values)
        for (rows, features), (wanted, values) in zip(mine, chosen.videos(), strict=False)
    )


def _all_videos(
    indexes: Sequence[Index],
    *,
    same: Callable[[list[WrittenVideo]], WrittenVideo] = never_twice,
) -> Iterator[WrittenVideo]:
    sources = [videos_of(segment) for index in indexes for segment in index.segments]
    return in_order(sources, same=same)


def _write(
    place: Path,
    folder: Path,
    settings: IndexSettings,
    weights: str,
    videos: Iterable[WrittenVideo],
    num_rows: int,
    failures: Iterable[tuple[str, str]],
    *,
    before: Sequence[Index],
) -> None:
    entries = []
    if num_rows:
        size = {"num_rows": num_rows, "width": settings.width}
        entries = [write_segment(place, folder, videos, **size)]
    write_manifest(place / MANIFEST, settings, weights, entries, failures, before=before)
    commit(folder)
