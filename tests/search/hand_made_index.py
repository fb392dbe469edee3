"""Indexes without videos or models: random features under made-up paths, for tests of what holds them."""

from pathlib import Path

import numpy as np

from stretchysnake.flexibility import Scale
from stretchysnake.search.index import (
    Index,
    IndexRow,
    IndexSettings,
    VideoFile,
)
from stretchysnake.search.segments.merging import write_index

WIDTH = 8


def hand_made(
    folder: Path, videos: dict[str, int], *, size: int = 32, weights: str = "a" * 64
) -> Index:
    """The index of these videos (path -> seed of its features), written to `folder` and read again."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        IndexRow(
            file=VideoFile(
                path=path, size=seed, mtime_ns=seed, sha256=f"{seed:064x}", group=f"g{seed % 3}"
            )
        )
        for path, seed in sorted(videos.items())
    ]
    features = [np.random.default_rng(row.file.size).normal(size=WIDTH) for row in rows]
    settings = IndexSettings(
        weights_sha256=weights,
        width=WIDTH,
        scale=Scale(num_frames=8, size=size, patch_size=8),
    )
    made = [([row], one[None]) for row, one in zip(rows, features, strict=True)]
    return write_index(folder, settings, "/nowhere/w.safetensors", made, [], num_rows=len(rows))


def numbered(first: int, last: int, *, changed: int = 0) -> dict[str, int]:
    """Videos first to last - 1; `changed` makes other content under the same paths."""
    return {f"/videos/{i}.mp4": i + changed for i in range(first, last)}
