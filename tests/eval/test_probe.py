"""The linear probe against scikit-learn's logistic regression, and on hand-made vectors."""

import pytest
import torch

from stretchysnake import Scale
from stretchysnake.eval.features import FeatureSet
from stretchysnake.eval.probe import choose_strength, fit, held_out, probe


def clouds(n, *, classes=4, width=6, spread=1.0, seed=0, groups=None):
    """Gaussian clouds around fixed centres, one for each class."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    features = centres[labels] + spread * torch.randn(n, width, generator=generator)
    groups = groups or [""] * n
    return FeatureSet(
        features, 3 * labels + 1, groups, [f"{i}" for i in range(n)], Scale(8, 32, 8), n
    )


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_fit_equals_scikit_learns_logistic_regression(strength):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    train, test = clouds(120, seed=1), clouds(200, seed=2)
    fitted = fit(train.features, train.labels, strength=strength)
    scaler = StandardScaler().fit(train.features.double().numpy())
    judge = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000)
    judge.fit(scaler.transform(train.features.double().numpy()), train.labels.numpy())
    x = scaler.transform(test.features.double().numpy())
    probabilities = fitted.logits(test.features).softmax(1)
    torch.testing.assert_close(
        probabilities, torch.from_numpy(judge.predict_proba(x)), rtol=1e-4, atol=1e-5
    )
    assert fitted.predict(test.features).tolist() == judge.predict(x).tolist()


def test_a_feature_that_never_changes_is_harmless():
    train = clouds(60)
    features = torch.cat([train.features, torch.full((60, 1), 7.0)], 1)
    fitted = fit(features, train.labels, strength=1.0)
    assert fitted.logits(features).isfinite().all()


def test_strength_is_chosen_on_training_videos_alone():
    train = clouds(200, spread=3.0)
    strength, accuracy = choose_strength(train)
    assert 0.25 < accuracy < 1
    test = clouds(300, spread=3.0, seed=5)
    right, note = probe(train, test)
    assert note.startswith(f"C {strength:g}, held-out {100 * accuracy:.1f} %")
    assert 0.3 < right.double().mean() < 0.9
    shuffled = FeatureSet(
        test.features, test.labels[torch.randperm(300)], test.groups, test.paths, test.scale, 300
    )
    assert probe(train, shuffled)[1] == note  # the queries' labels chose nothing


def test_separable_classes_are_learnt():
    right, _ = probe(clouds(80, spread=0.01), clouds(40, spread=0.01, seed=3))
    assert right.all()


def test_held_out_keeps_groups_whole_and_every_class_taught():
    labels = torch.arange(100) % 5
    groups = [f"g{i // 10}" for i in range(100)]
    held = held_out(labels, groups)
    assert held.sum() == 20
    assert {groups[i] for i in range(100) if held[i]}.isdisjoint(
        groups[i] for i in range(100) if not held[i]
    )
    assert set(labels[~held].tolist()) == set(range(5))
    single = held_out(torch.tensor([0, 1, 2, 2]), ["", "", "", ""])
    assert single.tolist()[:2] == [False, False] and single.sum() == 1


def test_what_cannot_be_learnt_is_refused():
    one = clouds(8, classes=1)
    with pytest.raises(ValueError, match=r"labels hold one class \(\[1\]\)"):
        fit(one.features, one.labels, strength=1.0)
    with pytest.raises(ValueError, match="gallery holds one class"):
        probe(one, one)
    few = clouds(4)
    with pytest.raises(ValueError, match="must have two videos, of two groups, in some class"):
        probe(few, few)
    with pytest.raises(ValueError, match=r"strength \(0\) must be positive"):
        fit(one.features, one.labels, strength=0)
    with pytest.raises(ValueError, match="non-finite"):
        fit(torch.tensor([[float("nan")], [1.0]]), torch.tensor([0, 1]), strength=1.0)
