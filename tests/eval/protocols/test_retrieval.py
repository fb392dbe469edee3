"""Retrieval on hand-made vectors, and against scikit-learn."""

import pytest
import torch

from stretchysnake import Scale
from stretchysnake.eval.features.extraction import FeatureSet
from stretchysnake.eval.protocols.retrieval import (
    average_precision,
    check_metrics,
    gallery_hits,
    retrieve,
)

SCALE = Scale(8, 32, 8)


def feature_set(features, labels, *, scale=SCALE, groups=None, model=""):
    n = len(features)
    return FeatureSet(
        torch.as_tensor(features),
        torch.as_tensor(labels),
        groups or [""] * n,
        [f"{i}.mp4" for i in range(n)],
        scale,
        n,
        model,
    )


def hits(gallery, queries, **settings):
    """Whether the nearest gallery video of each query has its label."""
    return retrieve(gallery, queries, **settings)["top1"]


def random_pair(classes=5, queries=40, gallery=150):
    return (
        feature_set(torch.randn(gallery, 6), torch.arange(gallery) % classes),
        feature_set(torch.randn(queries, 6), torch.arange(queries) % classes),
    )


def test_top1_counts_label_matches():
    gallery = feature_set([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [5, 6, 7])
    queries = feature_set([[0.9, 0.1], [0.1, 0.9], [0.5, -0.1]], [5, 6, 7])
    assert hits(gallery, queries).tolist() == [True, True, False]


def test_recall_knn_and_average_precision_by_hand():
    # On a line of angles the order of the gallery, seen from the query, is 0 1 2 3 4.
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    gallery = feature_set(torch.stack([angles.cos(), angles.sin()], 1), [1, 0, 0, 1, 2])
    query = feature_set([[1.0, 0.0]], [0])
    found = retrieve(gallery, query, ("top1", "recall@1", "recall@2", "knn@3", "knn@5", "map"))
    assert {name: value.item() for name, value in found.items()} == {
        "top1": False,
        "recall@1": False,
        "recall@2": True,
        "knn@3": True,
        "knn@5": True,  # two votes each for 0 and 1: the lower label wins
        "map": pytest.approx((1 / 2 + 2 / 3) / 2),
    }


def test_a_query_that_the_gallery_holds_does_not_find_itself_by_hand():
    angles = torch.tensor([0.0, 0.1, 1.0, 1.1])
    videos = feature_set(torch.stack([angles.cos(), angles.sin()], 1), [0, 1, 0, 1])
    assert hits(videos, videos).all()
    found = retrieve(videos, videos, ("top1", "recall@3", "map"), leave_out_self=True)
    assert found["top1"].tolist() == [False] * 4  # its neighbour is of the other class
    assert found["recall@3"].all()
    assert found["map"].tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 3, 1 / 2])


@pytest.mark.parametrize(("similarity", "metric"), [("cosine", "cosine"), ("l2", "euclidean")])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_knn_equals_scikit_learns(similarity, metric, k):
    from sklearn.neighbors import KNeighborsClassifier

    gallery, queries = random_pair()
    judge = KNeighborsClassifier(k, metric=metric, algorithm="brute")
    judge.fit(gallery.features.numpy(), gallery.labels.numpy())
    wanted = judge.predict(queries.features.numpy()) == queries.labels.numpy()
    found = retrieve(gallery, queries, (f"knn@{k}",), similarity=similarity)[f"knn@{k}"]
    assert found.tolist() == wanted.tolist()
    if k == 1:
        assert hits(gallery, queries, similarity=similarity).tolist() == wanted.tolist()


def test_average_precision_equals_scikit_learns():
    from sklearn.metrics import average_precision_score

    gallery, queries = random_pair()
    score = torch.nn.functional.cosine_similarity(
        queries.features[:, None], gallery.features[None], dim=2
    )
    wanted = [
        average_precision_score((gallery.labels == label).numpy(), score[i].numpy())
        for i, label in enumerate(queries.labels)
    ]
    found = average_precision(gallery, queries, chunk=7)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_group_safe_drops_the_gallery_of_the_querys_group():
    gallery = feature_set(
        [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], [0, 1, 0], groups=["anna", "ben", "ben"]
    )
    queries = feature_set([[1.0, 0.01], [1.0, 0.01]], [0, 0], groups=["anna", ""])
    assert hits(gallery, queries).tolist() == [True, True]
    safe = retrieve(gallery, queries, ("top1", "recall@2", "map"), group_safe=True)
    assert safe["top1"].tolist() == [False, True]  # no group: nothing is dropped
    assert safe["recall@2"].tolist() == [True, True]
    assert safe["map"].tolist() == pytest.approx([1 / 2, (1 + 2 / 3) / 2])


def test_gallery_hits_leave_the_video_or_its_group_out():
    gallery = feature_set(
        [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [1.0, 0.5]],
        [0, 0, 1, 1, 1],
        groups=["a", "a", "b", "c", ""],
    )
    assert gallery_hits(gallery).tolist() == [True, True, True, True, False]
    assert gallery_hits(gallery, group_safe=True).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize(
    ("gallery", "queries", "text"),
    [
        (([[1.0]], [0]), ([[1.0]], [0], Scale(4, 32, 8)), "extract both at one scale"),
        (([[1.0], [2.0]], [3, 3]), ([[1.0]], [3]), r"gallery holds one class \(label 3\)"),
        (
            ([[1.0], [2.0]], [0, 1]),
            ([[1.0]] * 3, [7, 0, 9]),
            r"labels \(7, 9\) of 2 queries occur in no",
        ),
        (([[1.0], [2.0]], [0, 1]), (torch.empty(0, 1), []), r"queries \(0 of 0 videos\) must hold"),
        ((torch.empty(0, 1), []), ([[1.0]], [0]), r"gallery \(0 of 0 videos\) must hold"),
        (([[1.0, 1.0]] * 2, [0, 1]), ([[1.0]], [0]), "gallery features have 2 numbers, queries 1"),
    ],
)
def test_numbers_without_meaning_are_refused(gallery, queries, text):
    scale = queries[2] if len(queries) > 2 else SCALE
    labels = torch.tensor(queries[1], dtype=torch.int64)
    with pytest.raises(ValueError, match=text):
        retrieve(
            feature_set(gallery[0], torch.tensor(gallery[1], dtype=torch.int64)),
            feature_set(queries[0], labels, scale=scale),
        )


def test_features_of_two_models_do_not_mix():
    gallery = feature_set([[1.0], [2.0]], [0, 1], model="aaaa")
    with pytest.raises(ValueError, match=r"of model aaaa, queries of bbbb; extract both"):
        hits(gallery, feature_set([[1.0]], [0], model="bbbb"))


def test_group_safe_refuses_what_it_cannot_answer():
    plain = feature_set([[1.0], [2.0]], [0, 1])
    with pytest.raises(ValueError, match="needs groups, and no clip has one"):
        hits(plain, plain, group_safe=True)
    gallery = feature_set([[1.0], [2.0]], [0, 1], groups=["a", "b"])
    with pytest.raises(
        ValueError, match=r"0.mp4: every gallery video of its class \(label 0\) is of"
    ):
        hits(gallery, feature_set([[1.0]], [0], groups=["a"]), group_safe=True)


def test_metrics_are_checked_by_name():
    with pytest.raises(ValueError, match=r"metric \('recall@0'\) must be one of: top1, recall@K"):
        check_metrics(["recall@0"])
    with pytest.raises(ValueError, match=r"knn@20\) asks for more .* \(12\); nearest: knn@12"):
        check_metrics(["top1", "knn@20"], num_gallery=12)
    with pytest.raises(ValueError, match=r"metrics \(none\)"):
        check_metrics([])


def test_non_finite_features_are_refused():
    with pytest.raises(ValueError, match=r"non-finite values, first in row 1 \(1.mp4\)"):
        feature_set([[0.0], [float("nan")]], [0, 0])
