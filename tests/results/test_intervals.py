"""Intervals and p-values against scipy, the textbook and a simulation."""

import math
import random
import statistics

import numpy as np
import pytest
from scipy import stats

from stretchysnake.results.intervals import (
    bootstrap_interval,
    holm,
    mean_interval,
    p_value,
    t_quantile,
    t_tails,
    wilson_interval,
)


def test_wilson_interval_matches_the_textbook_and_stays_inside():
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson_interval(1, 10) == pytest.approx((0.0179, 0.4042), abs=1e-4)
    assert wilson_interval(0, 20)[0] == 0
    assert wilson_interval(20, 20)[1] == 1
    with pytest.raises(ValueError, match="n \\(0\\)"):
        wilson_interval(0, 0)


def test_bootstrap_agrees_with_the_normal_interval_of_a_mean():
    values = [random.Random(i).gauss(0.5, 0.1) for i in range(400)]
    mean = sum(values) / 400
    half = 1.96 * math.sqrt(sum((v - mean) ** 2 for v in values) / 399 / 400)
    assert bootstrap_interval(values) == pytest.approx((mean - half, mean + half), abs=half / 10)
    assert bootstrap_interval([0.25]) == (0.25, 0.25)
    with pytest.raises(ValueError, match="at least one number"):
        bootstrap_interval([])


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 30])
def test_students_t_is_scipys(df):
    for t in (0.0, 0.5, 2.0, 4.3, 60.0):
        assert t_tails(t, df) == pytest.approx(2 * stats.t.sf(t, df), abs=1e-12)
    for alpha in (0.5, 0.05, 0.001):
        assert t_quantile(alpha, df) == pytest.approx(stats.t.isf(alpha / 2, df))


def test_t_needs_a_degree_of_freedom():
    with pytest.raises(ValueError, match=r"df \(0\) must be at least 1"):
        t_tails(1.0, 0)


def test_the_interval_of_a_mean_adds_seeds_and_queries_in_quadrature():
    assert mean_interval([0.5], None) is None
    half = 12.7062 * math.sqrt(0.02) / math.sqrt(2)  # by hand: t of one degree of freedom
    assert mean_interval([0.4, 0.6], None) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)
    assert mean_interval([0.5], 0.1) == pytest.approx((0.5 - 0.1959964, 0.5 + 0.1959964))
    both = math.hypot(half, 0.1959964)
    assert mean_interval([0.4, 0.6], 0.1) == pytest.approx((0.5 - both, 0.5 + both), abs=1e-5)
    narrow, wide = (mean_interval([0.4, 0.6], 0.1, level=level) for level in (0.8, 0.99))
    assert wide.low < 0.5 - both < narrow.low


def test_the_p_value_is_the_level_at_which_the_interval_reaches_zero():
    seeds, error = [0.05, 0.12, 0.1], 0.02
    p = p_value(seeds, error)
    assert mean_interval(seeds, error, level=1 - p).low == pytest.approx(0, abs=1e-9)
    over_seeds = stats.ttest_1samp(seeds, 0).pvalue  # scipy, where only seeds scatter
    assert p_value(seeds, None) == pytest.approx(over_seeds)
    assert p_value([-x for x in seeds], None) == pytest.approx(over_seeds)
    assert p_value([0.03], 0.01) == pytest.approx(2 * stats.norm.sf(3))
    assert p > over_seeds
    assert p_value([0.1], None) is None
    assert p_value([0.1, -0.1], None) == 1.0
    assert p_value([0.1, 0.1], 0.0) == 0.0


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.4: times 4, 3, 2, 1, never falling
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_95_percent_covers_where_the_seeds_alone_do_not():
    """3 seeds, 300 queries: the interval over seeds alone falls short when queries matter; ours does not."""
    rng, trials = np.random.default_rng(0), 2000
    covered = {"seeds": 0, "both": 0}
    for _ in range(trials):
        seeds = 0.01 * rng.standard_normal((3, 1))
        gains = seeds + 0.4 * rng.standard_normal(300) + 0.2 * rng.standard_normal((3, 300))
        per_seed = gains.mean(1).tolist()
        error = statistics.stdev(gains.mean(0)) / math.sqrt(300)
        for name, used in (("seeds", None), ("both", error)):
            low, high = mean_interval(per_seed, used)
            covered[name] += low < 0 < high
    assert covered["both"] / trials >= 0.93 > covered["seeds"] / trials
