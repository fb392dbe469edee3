"""Rows of features as three files of a folder: an array, what each row is of, and a manifest that knows both.

features.npy    (rows, C) fp32; readable with np.load(mmap_mode="r")
meta.jsonl      one line per row
manifest.json   written last: without it the others are not finished; holds their SHA-256
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from stretchysnake.whole_file import sha256_of, unfinished_file, write_whole

FEATURES, META, MANIFEST = "features.npy", "meta.jsonl", "manifest.json"


def write_feature_table(
    folder: Path,
    features: Iterable[np.ndarray],
    meta: Sequence[dict],
    *,
    width: int,
    manifest: Callable[[dict[str, str]], dict],
) -> None:
    """Write the three files; `features` gives row after row, and manifest({name: SHA-256}) the manifest's content."""
    (folder / MANIFEST).unlink(missing_ok=True)
    with unfinished_file(folder / FEATURES) as part, open(part, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(meta), width)}
        np.lib.format.write_array_header_1_0(file, header)
        for row in features:
            file.write(np.ascontiguousarray(row, "<f4").tobytes())
    lines = (json.dumps({"row": number, **values}) + "\n" for number, values in enumerate(meta))
    write_whole(folder / META, "".join(lines))
    content = manifest({name: sha256_of(folder / name) for name in (FEATURES, META)})
    write_whole(folder / MANIFEST, json.dumps(content, indent=1))
