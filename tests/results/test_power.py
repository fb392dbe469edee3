"""Power: against a simulation that draws seeds and queries, and by hand where the normal distribution says it."""

import random
from statistics import NormalDist

import pytest

from stretchysnake.results.intervals import mean_interval
from stretchysnake.results.power import power, seeds_needed


@pytest.mark.parametrize("difference, scatter, error, seeds", [(4, 2, 1, 4), (3, 0.5, 1, 2)])
def test_power_is_the_share_of_simulated_intervals_above_zero(difference, scatter, error, seeds):
    rng, above, draws = random.Random(0), 0, 3000
    for _ in range(draws):
        queries = rng.gauss(0, error)  # shared by the seeds
        per_seed = [difference + queries + rng.gauss(0, scatter) for _ in range(seeds)]
        above += mean_interval(per_seed, error).low > 0
    found = power(difference, scatter=scatter, query_error=error, num_seeds=seeds)
    assert found == pytest.approx(above / draws, abs=0.025)
    assert 0.1 < found < 0.95  # neither end, where anything would agree


def test_power_without_scatter_of_seeds_is_that_of_a_normal_test():
    error = 1.5
    for difference, wanted in ((1.959964 * error, 0.5), ((1.959964 + 0.841621) * error, 0.8)):
        assert power(difference, scatter=0, query_error=error, num_seeds=3) == pytest.approx(
            wanted, abs=1e-5
        )
    one = power(3, scatter=2, query_error=1, num_seeds=1)  # half-width 1.96, true spread sqrt(5)
    assert one == pytest.approx(NormalDist().cdf((3 - 1.959964) / 5**0.5), abs=1e-6)


def test_seeds_needed_is_the_first_number_that_reaches_the_power_asked_for():
    options = {"scatter": 2.0, "query_error": 0.5}
    found = seeds_needed(3, **options)
    assert power(3, num_seeds=found, **options) >= 0.8 > power(3, num_seeds=found - 1, **options)
    assert seeds_needed(3, **options, alpha=0.05 / 18) > found
    assert (
        seeds_needed(1, scatter=0.1, query_error=1.0) is None
    )  # no number of seeds makes up for queries
    with pytest.raises(ValueError, match=r"num_seeds \(0\) must be at least 1"):
        power(1, scatter=1, query_error=1, num_seeds=0)
