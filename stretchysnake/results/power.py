"""How many seeds and queries tell a difference of two trainings from zero: the power of `intervals.mean_interval`."""

from __future__ import annotations

import math
import statistics

from stretchysnake.results.intervals import t_quantile


def power(
    difference: float, *, scatter: float, query_error: float, num_seeds: int, alpha: float = 0.05
) -> float:
    """The chance that the interval of a mean over seeds lies above zero, where the true mean is `difference` > 0.

    scatter is the standard deviation over seeds of the paired difference, query_error the standard error over queries
    of its mean; both are taken as known and normal. The interval is that of `mean_interval` at level 1 - alpha, whose
    half-width itself varies with the seeds' own scatter; the integral is over that. With one seed it is blind to the
    scatter, and the power told here is not.
    """
    if num_seeds < 1 or scatter < 0 or query_error < 0:
        raise ValueError(
            f"num_seeds ({num_seeds}) must be at least 1, scatter ({scatter}) and query_error ({query_error}) at "
            "least 0"
        )
    normal = statistics.NormalDist()
    over_queries = normal.inv_cdf(1 - alpha / 2) * query_error
    spread = math.hypot(scatter / math.sqrt(num_seeds), query_error)

    def reached(half: float) -> float:
        return normal.cdf((difference - half) / spread) if spread else float(difference > half)

    df = num_seeds - 1
    if not df or not scatter:
        return reached(over_queries)
    times_error = t_quantile(alpha, df) * scatter / math.sqrt(num_seeds)
    # the seeds' own standard deviation is scatter * x / sqrt(df), x of the chi distribution with df degrees of freedom
    top, count = math.sqrt(df) + 8.0, 2000
    total = weight = 0.0
    for i in range(count):
        x = top * (i + 0.5) / count
        density = math.exp((df - 1) * math.log(x) - x * x / 2)
        weight += density
        total += density * reached(math.hypot(times_error * x / math.sqrt(df), over_queries))
    return total / weight


def seeds_needed(
    difference: float,
    *,
    scatter: float,
    query_error: float,
    alpha: float = 0.05,
    wanted: float = 0.8,
    most: int = 30,
) -> int | None:
    """The fewest seeds, two or more, at which `power` reaches `wanted`; None where `most` are not enough."""
    for num_seeds in range(2, most + 1):
        options = {"scatter": scatter, "query_error": query_error, "alpha": alpha}
        if power(difference, num_seeds=num_seeds, **options) >= wanted:
            return num_seeds
    return None
