"""Features of long videos on disk: one vector per file, with what is needed to trust them later."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from stretchysnake.flexibility import Scale
from stretchysnake.whole_file import unfinished_file, write_whole


@dataclass(frozen=True)
class LongEmbeddings:
    """features (n, C) fp32, the paths they belong to, the scale used, and the files that could not be read."""

    features: Tensor
    paths: list[str]
    scale: Scale
    failures: list[tuple[str, str]]
    """(path, reason) of each file left out."""
    repeated: list[str]
    """Videos with fewer frames than asked for, whose frames were repeated."""
    weights_sha256: str
    sampling: str


def save_long_embeddings(folder: str | os.PathLike, embeddings: LongEmbeddings) -> None:
    """Write features.npy, meta.jsonl (one line per row) and manifest.json; the manifest comes last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "count": len(embeddings.paths),
        "width": embeddings.features.shape[1],
        "weights_sha256": embeddings.weights_sha256,
        "scale": asdict(embeddings.scale),
        "sampling": embeddings.sampling,
        "failures": [{"path": path, "reason": reason} for path, reason in embeddings.failures],
    }
    meta = "".join(
        json.dumps({"row": row, "path": path, "repeated": path in embeddings.repeated}) + "\n"
        for row, path in enumerate(embeddings.paths)
    )
    (folder / "manifest.json").unlink(missing_ok=True)
    with unfinished_file(folder / "features.npy") as part:
        np.save(part, embeddings.features.numpy())
    write_whole(folder / "meta.jsonl", meta)
    write_whole(folder / "manifest.json", json.dumps(manifest, indent=1))
