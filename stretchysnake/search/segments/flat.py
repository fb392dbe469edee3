"""An index as earlier versions wrote it: one array and a line of JSON per row, for tools that know nothing of segments.

    features.npy    (rows, C) fp32, sorted by path and time
    meta.jsonl      one line per row: path, start, end (seconds), group, class, size and SHA-256 of the file
    manifest.json   as that of an index, with the SHA-256 of these two files

It is read whole, checked, whenever it is opened, and `stretchysnake index export` still writes it.
"""

import json
from pathlib import Path

import numpy as np

from stretchysnake.eval.features.feature_table import FEATURES, META
from stretchysnake.search.segments.rows import IndexRow
from stretchysnake.search.segments.segment import Segment, refuse_changed
from stretchysnake.search.segments.writing import collected
from stretchysnake.whole_file import Damaged

FLAT_FORMAT = "stretchysnake-index-1"


def check_flat(folder: Path, manifest: dict) -> None:
    """Damaged where one of the two files is not the one that the manifest names."""
    for name in (FEATURES, META):
        refuse_changed(folder, name, manifest["sha256"][name])


def flat_segment(folder: Path, width: int) -> Segment:
    """Its rows as a segment without a name: the features mapped, the columns in memory."""
    lines = (folder / META).read_text(encoding="utf-8").splitlines()
    rows = [IndexRow.from_dict(json.loads(line)) for line in lines]
    features = np.load(folder / FEATURES, mmap_mode="c")
    if features.shape != (len(rows), width):
        raise Damaged(f"index ({folder}): features are {features.shape}; embed the videos again")
    videos: dict[str, list[IndexRow]] = {}
    for row in rows:
        videos.setdefault(row.file.path, []).append(row)
    return Segment(entry={}, features=features, columns=collected(videos.values()))
