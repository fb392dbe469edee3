"""[CLS] features laid out in a plane by t-SNE (paper A.7.2, Figs. A14-A21). Needs scikit-learn."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from stretchysnake.eval.features.extraction import FeatureSet
from stretchysnake.eval.protocols.nearest import nearest

PERPLEXITY = 30.0
FEWEST = 5


@dataclass(frozen=True)
class FeatureMap:
    """A FeatureSet in the plane: places (n, 2) with labels (n,) and paths, and how separate its classes are."""

    places: np.ndarray
    labels: np.ndarray
    paths: list[str]
    top1: float
    """Leave-one-out nearest neighbour (cosine) in the features themselves, not in the plane."""
    perplexity: float


def feature_map(features: FeatureSet, *, seed: int = 0) -> FeatureMap:
    """The t-SNE of a FeatureSet; the same features and seed give the same places.

    Paper does not give t-SNE's settings; we use unit-length features (distance then follows the cosine of
    retrieval), perplexity 30 or a third of the videos where there are fewer than 90, and a PCA start.
    ValueError for fewer than five videos.
    """
    count = len(features.paths)
    TSNE = checked_tsne(count)
    unit = F.normalize(features.features, dim=1).numpy().astype(np.float64)
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    places = TSNE(
        n_components=2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1
    ).fit_transform(unit)
    return FeatureMap(
        places.astype(np.float32),
        features.labels.numpy(),
        features.paths,
        leave_one_out_top1(features),
        perplexity,
    )


def checked_tsne(count: int) -> type:
    """scikit-learn's TSNE; an error where it is not installed or count videos are too few."""
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise RuntimeError(
            "scikit-learn is not installed; t-SNE needs it: pip install 'stretchysnake[probe]'"
        ) from None
    if count < FEWEST:
        raise ValueError(
            f"videos for t-SNE ({count} that can be read) must be at least {FEWEST}; give more"
        )
    return TSNE


def leave_one_out_top1(features: FeatureSet) -> float:
    """Share of videos whose nearest other video, by cosine, has the same label."""
    ids = torch.arange(len(features.paths))
    index = nearest(features.features, features.features, k=1, exclude=(ids, ids))[:, 0]
    return float((features.labels[index] == features.labels).double().mean())
