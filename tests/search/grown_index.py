"""Indexes grown by hand: no model, no video; the features of a video follow from a seed."""

import numpy as np

from stretchysnake import Scale
from stretchysnake.search.index import IndexRow, IndexSettings, VideoFile, read_index
from stretchysnake.search.journal import Journal

WIDTH = 6
SETTINGS = IndexSettings(weights_sha256="w", width=WIDTH, scale=Scale(4, 32, 8))


def rows_of(path, seed, count=1):
    """The rows of a video with `count` windows, and their features."""
    file = VideoFile(
        path=path, size=seed, mtime_ns=seed * 7, sha256=f"{seed:064x}", group=f"g{seed % 3}"
    )
    rows = [
        IndexRow(file=file, start=float(i), end=i + 1.5 if count > 1 else None)
        for i in range(count)
    ]
    return rows, np.random.default_rng(seed).normal(size=(count, WIDTH)).astype("<f4")


def change(folder, added=(), dropped=(), failures=()):
    """Bring an index up to date: added are (path, seed) or (path, seed, count)."""
    with Journal(folder, SETTINGS, "weights") as journal:
        for one in added:
            journal.add(*rows_of(*one))
        journal.finish(failures, dropped)


def content(folder):
    """Path -> (rows, features) of every video, by way of the sequence of all rows."""
    index, found = read_index(folder), {}
    for row, features in zip(index.rows, index.features, strict=True):
        found.setdefault(row.file.path, []).append((row, features.tolist()))
    return found


def expected(videos):
    return {
        path: list(zip(rows, features.tolist(), strict=True))
        for path, (rows, features) in videos.items()
    }
