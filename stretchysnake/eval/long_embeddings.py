"""Features of long videos on disk: one vector per file, with what is needed to trust them later."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from stretchysnake.eval.features.feature_table import write_feature_table
from stretchysnake.flexibility import Scale


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
    precision: str = "fp32"


def save_long_embeddings(folder: str | os.PathLike, embeddings: LongEmbeddings) -> None:
    """Write features.npy, meta.jsonl (one line per row) and manifest.json; the manifest comes last."""
    described = {
        "count": len(embeddings.paths),
        "width": embeddings.features.shape[1],
        "weights_sha256": embeddings.weights_sha256,
        "scale": asdict(embeddings.scale),
        "sampling": embeddings.sampling,
        "precision": embeddings.precision,
        "failures": [{"path": path, "reason": reason} for path, reason in embeddings.failures],
    }
    write_feature_table(
        Path(folder),
        embeddings.features.numpy(),
        [{"path": path, "repeated": path in embeddings.repeated} for path in embeddings.paths],
        width=embeddings.features.shape[1],
        manifest=lambda hashes: {**described, "sha256": hashes},
    )
