"""Nearest neighbours on hand-made vectors."""

import pytest
import torch

from stretchysnake import Scale
from stretchysnake.eval.features import FeatureSet
from stretchysnake.eval.retrieval import hits, nearest

SCALE = Scale(8, 32, 8)


def feature_set(features, labels, scale=SCALE):
    n = len(features)
    return FeatureSet(
        torch.tensor(features), torch.tensor(labels), [""] * n, [str(i) for i in range(n)], scale, n
    )


def test_cosine_ignores_length_and_l2_does_not():
    gallery = torch.tensor([[10.0, 1.0], [0.0, 1.0]])
    query = torch.tensor([[1.0, 0.2]])
    assert nearest(query, gallery).tolist() == [[0]]
    assert nearest(query, gallery, metric="l2").tolist() == [[1]]


def test_top1_counts_label_matches():
    gallery = feature_set([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [5, 6, 7])
    queries = feature_set([[0.9, 0.1], [0.1, 0.9], [0.5, -0.1]], [5, 6, 7])
    assert hits(gallery, queries).tolist() == [True, True, False]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunks_change_nothing(metric, chunk):
    query, gallery = torch.randn(11, 6), torch.randn(23, 6)
    if metric == "cosine":
        distance = -torch.nn.functional.cosine_similarity(query[:, None], gallery[None], dim=2)
    else:
        distance = torch.cdist(query, gallery)
    wanted = distance.argsort(dim=1, stable=True)[:, :5]
    assert torch.equal(nearest(query, gallery, k=5, metric=metric, chunk=chunk), wanted)


def test_ties_go_to_the_lower_index():
    gallery = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    assert nearest(torch.tensor([[1.0, 0.0]]), gallery, k=3, chunk=2).tolist() == [[1, 2, 3]]


def test_scales_must_agree():
    with pytest.raises(ValueError, match="extract both at one scale"):
        hits(feature_set([[1.0]], [0]), feature_set([[1.0]], [0], Scale(4, 32, 8)))


def test_wrong_arguments_are_named():
    vectors = torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"metric \('dot'\) must be one of: cosine, l2"):
        nearest(vectors, vectors, metric="dot")
    with pytest.raises(ValueError, match=r"k \(3\) must be between 1 and the gallery's size \(2\)"):
        nearest(vectors, vectors, k=3)


def test_non_finite_features_are_refused():
    with pytest.raises(ValueError, match="non-finite"):
        feature_set([[float("nan")]], [0])
