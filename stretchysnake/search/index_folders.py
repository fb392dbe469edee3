"""A folder of indexes as one collection: those of one model at one scale, the others named and left out."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from stretchysnake.eval.features.feature_table import MANIFEST
from stretchysnake.search.index import IndexSettings, is_index
from stretchysnake.whole_file import sha256_of


def indexes_in(
    given: Sequence[str], *, weights: str | os.PathLike | None = None
) -> tuple[list[str], list[str]]:
    """(the indexes to search, a note for each that is left out) of indexes, stores, and folders that hold indexes.

    What is named itself stays, whatever it is. Of a folder's indexes those that can be compared are taken: made by
    `weights` where given, else by what most of them were made with (of equally many, the first by name).
    ValueError for a folder none of whose indexes fits.
    """
    found, notes = [], []
    for name in given:
        held = [] if name.startswith("lancedb:") or is_index(name) else _indexes_below(name)
        if not held:
            found.append(name)
            continue
        settings = {index: _settings(index) for index in held}
        wanted = _wanted(name, list(settings.values()), weights)
        for index, own in settings.items():
            if own == wanted:
                found.append(index)
            else:
                difference = (
                    "of a format that cannot be read" if own is None else wanted.differences(own)
                )
                notes.append(
                    f"index ({index}) is left out: {difference}; search it by itself, or to renew it embed its videos "
                    "with the same weights at the same scale into a new folder"
                )
    return found, notes


def _indexes_below(folder: str) -> list[str]:
    place = Path(folder)
    return [str(one) for one in sorted(place.iterdir()) if is_index(one)] if place.is_dir() else []


def _settings(index: str) -> IndexSettings | None:
    """What an index was made with, by its manifest alone; None where that cannot be read."""
    try:
        return IndexSettings.from_dict(json.loads(Path(index, MANIFEST).read_text())["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _wanted(
    folder: str, settings: Sequence[IndexSettings | None], weights: str | os.PathLike | None
) -> IndexSettings:
    readable = [one for one in settings if one is not None]
    if weights is not None and Path(weights).is_file():
        sha256 = sha256_of(Path(weights))
        if not any(one.weights_sha256 == sha256 for one in readable):
            held = ", ".join(sorted({one.weights_sha256[:12] for one in readable}))
            raise ValueError(
                f"weights ({weights}, SHA-256 {sha256[:12]}) made none of the indexes in {folder} (they are of "
                f"{held}); give those, or embed the videos with these: stretchysnake embed VIDEOS --weights "
                f"{weights} -o FOLDER"
            )
        readable = [one for one in readable if one.weights_sha256 == sha256]
    if not readable:
        raise ValueError(
            f"indexes in {folder} cannot be read by this version; embed the videos again into a new folder"
        )
    return max(readable, key=readable.count)
