"""Intervals and p-values of numbers: shares of queries, means over seeds, both at once, several tests together."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple


class Interval(NamedTuple):
    low: float
    high: float


def wilson_interval(successes: float, n: int, z: float = 1.96) -> Interval:
    """Wilson score interval of a proportion; stays in [0, 1] and is honest near 0 and 1."""
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"successes ({successes}) must lie in [0, n] and n ({n}) be positive.")
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def bootstrap_interval(
    values: Sequence[float], *, seed: int = 0, resamples: int = 2000
) -> Interval:
    """95 % percentile bootstrap of the mean of values: for means that are no shares, as mean average precision."""
    if not values:
        raise ValueError("values (none) must hold at least one number.")
    rng, n = random.Random(seed), len(values)
    means = sorted(statistics.fmean(rng.choices(values, k=n)) for _ in range(resamples))
    return Interval(means[round(0.025 * (resamples - 1))], means[round(0.975 * (resamples - 1))])


def mean_interval(
    per_seed: Sequence[float], query_error: float | None, *, level: float = 0.95
) -> Interval | None:
    """Interval of a mean over seeds measured on one sample of queries; None where neither scatter is known.

    per_seed holds one value for each training; query_error is the standard error over queries of their mean (None:
    unknown). Trainings and queries are two samples, so both half-widths count, added in quadrature:
    √((t·s/√S)² + (z·query_error)²) with Student's t of S − 1 degrees of freedom (S seeds) and the normal z. With one
    seed only the queries speak, and the interval is blind to the luck of a training.

    Adding half-widths rather than variances is Howe's approximation (W. G. Howe, JASA 69, 1974; the MOVER of G. Y.
    Zou and A. Donner, Stat. Med. 27, 2008). It is on the wide side: query_error holds a share of the scatter of seed
    and query together, which s holds too. Simulated coverage of 95 % (`benchmarks/interval_coverage.py`): 94 to 99.7 %;
    seeds alone fall to 61 %, the sum of variances with Satterthwaite's degrees of freedom to 86 % (two seeds).
    """
    half = _half_width(per_seed, query_error, 1 - level)
    if half is None:
        return None
    mean = statistics.fmean(per_seed)
    return Interval(mean - half, mean + half)


def p_value(per_seed: Sequence[float], query_error: float | None) -> float | None:
    """Two-sided p-value of a mean of zero: 1 less the level at which `mean_interval` just reaches zero."""
    mean = abs(statistics.fmean(per_seed))
    widest = _half_width(per_seed, query_error, 1e-12)
    if widest is None or mean == 0:
        return None if widest is None else 1.0
    if widest <= mean:  # below 1e-12, or no scatter at all
        return 0.0
    low, high = math.log(1e-12), 0.0  # half-widths fall from `widest` to 0 between
    for _ in range(60):
        middle = (low + high) / 2
        if _half_width(per_seed, query_error, math.exp(middle)) > mean:
            low = middle
        else:
            high = middle
    return math.exp(high)


def _half_width(per_seed: Sequence[float], query_error: float | None, alpha: float) -> float | None:
    squares = []
    if (seeds := len(per_seed)) >= 2:
        error = statistics.stdev(per_seed) / math.sqrt(seeds)
        squares.append((error and t_quantile(alpha, seeds - 1) * error) ** 2)
    if query_error is not None:
        squares.append((statistics.NormalDist().inv_cdf(1 - alpha / 2) * query_error) ** 2)
    return math.sqrt(sum(squares)) if squares else None


@lru_cache(maxsize=1024)
def t_quantile(alpha: float, df: int) -> float:
    """The t beyond which Student's distribution of df degrees of freedom has alpha in both tails together."""
    low, high = 0.0, 2.0
    while t_tails(high, df) > alpha:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tails(middle, df) > alpha else (low, middle)
    return high


def t_tails(t: float, df: int) -> float:
    """P(|T| > t) of Student's distribution with df degrees of freedom: finite sums in cos²θ, θ = atan(t/√df)
    (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4)."""
    if df < 1:
        raise ValueError(f"df ({df}) must be at least 1: two seeds.")
    theta = math.atan2(t, math.sqrt(df))
    square = math.cos(theta) ** 2
    odd = df % 2
    term = total = math.cos(theta) if odd else 1.0
    for k in range(3 if odd else 2, df, 2):  # each power of cos²θ up to df - 2
        term *= square * (k - 1) / k
        total += term
    inside = math.sin(theta) * (total if df > 1 else 0.0)
    return max(0.0, 1 - (2 / math.pi * (theta + inside) if odd else inside))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for being looked at together: Holm's step-down (Scand. J. Statist. 6, 1979), in order.

    Rejecting where the result is at most 0.05 keeps the chance of any false rejection at 5 %, dependent or not.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
