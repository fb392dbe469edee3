"""The indexes that a path names: itself, or those that lie in it and fit a query."""

import os
from collections.abc import Sequence
from pathlib import Path

from stretchysnake.search.index import Index, is_index, read_index
from stretchysnake.whole_file import sha256_of


def indexes_in(path: str) -> list[str]:
    """[path] of an index, a store or what is not there; of a folder of indexes those, by name."""
    folder = Path(path)
    if path.startswith("lancedb:") or is_index(folder) or not folder.is_dir():
        return [path]
    inside = sorted(str(one) for one in folder.iterdir() if is_index(one))
    return inside or [path]


def matching_indexes(
    paths: Sequence[str],
    *,
    weights: str | os.PathLike | None = None,
    num_frames: int | None = None,
    size: int | None = None,
) -> tuple[list[str], list[str]]:
    """(the indexes to search, which others were passed over and why).

    A path that is an index is taken as it is. Of a folder of indexes those are taken that fit the weights, if given,
    and num_frames and size, if given, and are otherwise made as the first that fits. ValueError where none of a folder
    fits, or where num_frames or size are given without a folder to choose from.
    """
    chosen: list[str] = []
    notes: list[str] = []
    first: Index | None = None
    sha256 = None
    inside = {path: indexes_in(path) for path in paths}
    folders = [path for path in paths if inside[path] != [path]]
    for name, value in (("num_frames", num_frames), ("size", size)):
        if value is not None and not folders:
            raise ValueError(
                f"{name} ({value}) chooses among the indexes of a folder, and {', '.join(paths)} is none; leave it out"
            )
    if not folders:
        return list(paths), []
    if weights is not None and Path(weights).is_file():
        sha256 = sha256_of(weights)
    for path in paths:
        if path not in folders:
            chosen.append(path)
            if first is None and is_index(path):
                first = read_index(path)
            continue
        fitting, passed = [], []
        for name in inside[path]:
            index = read_index(name)
            why = _unlike(index, first, sha256, num_frames, size)
            if why:
                passed.append(f"{name} ({why})")
            else:
                fitting.append(name)
                first = first or index
        if not fitting:
            raise ValueError(
                f"of the indexes in {path} none fits: {'; '.join(passed)}; choose others with --weights, --frames or "
                "--size, or embed the videos again"
            )
        chosen += fitting
        notes += [f"passed over {one}" for one in passed]
    if notes:
        notes.append("choose others with --weights, --frames or --size")
    return chosen, notes


def _unlike(
    index: Index, first: Index | None, sha256: str | None, num_frames: int | None, size: int | None
) -> str:
    """Why an index is not searched; "" where it is."""
    settings = index.settings
    if sha256 is not None and settings.weights_sha256 != sha256:
        return f"of other weights, {settings.weights_sha256[:12]}; to renew it: {renewal(index.folder)}"
    for name, wanted, found in (
        ("num_frames", num_frames, settings.scale.num_frames),
        ("size", size, settings.scale.size),
    ):
        if wanted is not None and wanted != found:
            return f"{name} {found} instead of {wanted}"
    return "" if first is None else settings.differences(first.settings)


def renewal(index: str, weights: str = "WEIGHTS") -> str:
    """The commands that make the index anew with other weights."""
    if index.startswith("lancedb:"):
        return f"stretchysnake embed VIDEOS --weights {weights} -o NEW --store {index}"
    return (
        f"stretchysnake index list {index} -o videos.jsonl && stretchysnake embed videos.jsonl "
        f"--weights {weights} -o NEW"
    )
