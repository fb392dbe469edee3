"""Video retrieval: the nearest gallery video of each query, and how often its label is the query's.

Paper A.3: gallery = all training samples, query = all test samples, frozen features, top-1. Paper does not
say which similarity; we use cosine because [CLS] norms change with the scale. L2 is an option.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stretchysnake.eval.features import FeatureSet

METRICS = ("cosine", "l2")


def nearest(
    query: Tensor, gallery: Tensor, *, k: int = 1, metric: str = "cosine", chunk: int = 1024
) -> Tensor:
    """Indices (Q, k) of the nearest gallery rows, nearest first; (Q, C) against (G, C).

    Exact, fp32, in chunks of queries and gallery rows: at most chunk × (chunk + k) scores exist at
    a time. Equal scores go to the lower gallery index.
    """
    if metric not in METRICS:
        raise ValueError(f"metric ({metric!r}) must be one of: {', '.join(METRICS)}")
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k ({k}) must be between 1 and the gallery's size ({len(gallery)})")
    query, gallery = query.float(), gallery.float()
    if metric == "cosine":
        query, gallery = F.normalize(query, dim=1), F.normalize(gallery, dim=1)
    rows = []
    for q in query.split(chunk):
        scores = q.new_empty(len(q), 0)
        indices = torch.empty(len(q), 0, dtype=torch.int64, device=q.device)
        for start in range(0, len(gallery), chunk):
            part = gallery[start : start + chunk]
            score = q @ part.T
            if metric == "l2":
                score = 2.0 * score - part.square().sum(1)  # -|q - g|² without the query's own norm
            index = torch.arange(start, start + len(part), device=q.device).expand(len(q), -1)
            scores, indices = torch.cat([scores, score], 1), torch.cat([indices, index], 1)
            order = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
            scores, indices = scores.gather(1, order), indices.gather(1, order)
        rows.append(indices)
    return torch.cat(rows) if rows else torch.empty(0, k, dtype=torch.int64)


def hits(gallery: FeatureSet, queries: FeatureSet, *, metric: str = "cosine") -> Tensor:
    """(Q,) bool: whether the nearest gallery video of each query has the query's label (top-1)."""
    if gallery.scale != queries.scale:
        raise ValueError(
            f"gallery is at {gallery.scale}, queries at {queries.scale}; extract both at one scale"
        )
    return (
        gallery.labels[nearest(queries.features, gallery.features, metric=metric)[:, 0]]
        == queries.labels
    )
