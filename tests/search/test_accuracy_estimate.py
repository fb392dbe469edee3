"""Estimates: the truth kept where it is certain, chance taken out where it is not."""

import numpy as np
import pytest

from stretchysnake.search.accuracy_estimate import estimated

PLACES = [(t, s) for t in (4, 8, 16) for s in (16, 24, 32, 48, 64)]


def test_an_additive_truth_is_found_again():
    cells = {(t, s): (0.5 + 0.01 * t - 0.002 * s, 100) for t, s in PLACES}
    assert estimated(cells) == pytest.approx({place: value for place, (value, _) in cells.items()})


def test_with_many_queries_the_measurement_counts():
    rng = np.random.default_rng(0)
    cells = {place: (rng.uniform(0.2, 0.9), 10**7) for place in PLACES}
    assert estimated(cells) == pytest.approx({p: v for p, (v, _) in cells.items()}, abs=1e-5)


def test_with_few_queries_the_choice_is_better_than_by_the_largest_measurement():
    rng = np.random.default_rng(0)
    truth = {(t, s): 0.7 + 0.02 * np.log2(t) - 0.03 * abs(np.log2(s / 32)) for t, s in PLACES}
    lost = {"estimate": 0.0, "measurement": 0.0}
    for _ in range(200):
        measured = {p: (rng.normal(v, (0.3 * 0.21 / 150) ** 0.5), 150) for p, v in truth.items()}
        found = estimated(measured)
        lost["estimate"] += max(truth.values()) - truth[max(found, key=found.get)]
        lost["measurement"] += (
            max(truth.values()) - truth[max(measured, key=lambda p: measured[p][0])]
        )
    assert lost["estimate"] < 0.8 * lost["measurement"]


@pytest.mark.parametrize("places", [PLACES[:1], PLACES[:5], [(4, 16), (8, 24)]])
def test_few_cells_are_left_as_they_are(places):
    cells = {place: (0.1 * (i + 1), 50) for i, place in enumerate(places)}
    assert estimated(cells) == {place: value for place, (value, _) in cells.items()}
