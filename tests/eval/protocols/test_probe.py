"""The linear probe against scikit-learn's logistic regression, and on hand-made vectors."""

import pytest
import torch

from stretchysnake import Scale
from stretchysnake.eval.features.extraction import FeatureSet
from stretchysnake.eval.protocols.probe import choose_strength, fit, held_out, probe


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


def test_of_equally_good_strengths_the_strongest_regularisation_is_chosen():
    train = clouds(200, spread=1.5)
    strengths = (10.0, 1e-4, 1.0, 100.0, 1e-2)
    alone = {strength: choose_strength(train, (strength,))[1] for strength in sorted(strengths)}
    best = max(alone.values())
    tied = [strength for strength, accuracy in alone.items() if accuracy == best]
    assert len(tied) > 1  # else this tests nothing
    assert choose_strength(train, strengths) == (tied[0], best)


def test_held_out_videos_do_not_enter_the_standardisation():
    """Class 0 is at 0 and class 1, a quarter of the videos, at 1; held-out videos of class 0 lie far out.

    Were they in the standardisation, 0 and 1 would lie so close that the regularised probe says 0 to all.
    """
    labels = (torch.arange(80) % 4 == 0).long()
    held = held_out(labels, [""] * 80)
    features = labels[:, None].float().clone()
    features[held & (labels == 0)] = -1000.0
    assert labels[held].sum() > 0
    gallery = FeatureSet(
        features, labels, [""] * 80, [str(i) for i in range(80)], Scale(8, 32, 8), 80
    )
    assert choose_strength(gallery, (1.0,)) == (1.0, 1.0)


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


@pytest.mark.parametrize("strength", [1e-2, 1.0])
def test_accuracy_of_a_strength_is_that_of_a_fit_on_the_rest(strength):
    train = clouds(150, spread=2.5)
    held = held_out(train.labels, train.groups)
    rest = fit(train.features[~held], train.labels[~held], strength=strength)
    right = rest.predict(train.features[held]) == train.labels[held]
    assert 0.2 < right.double().mean() < 0.95
    assert choose_strength(train, (strength,)) == (strength, right.double().mean().item())


def test_probe_is_fitted_on_all_videos_with_the_strength_chosen():
    """Regularised this much, it says the class of most videos; at strength 1 it would not."""
    many, few = torch.randn(40, 3), torch.randn(8, 3) + 1.5
    labels = torch.tensor([0] * 40 + [1] * 8)
    train = FeatureSet(
        torch.cat([many, few]), labels, [""] * 48, [str(i) for i in range(48)], Scale(8, 32, 8), 48
    )
    right, note = probe(train, train, strengths=(1e-4,))
    assert right.tolist() == (labels == 0).tolist() and note.startswith("C 0.0001,")
    right, _ = probe(train, train, strengths=(10.0,))
    assert right[40:].sum() > 3
