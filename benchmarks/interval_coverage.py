"""How often a 95 % interval of the difference of two models holds the true one, simulated; writes JSON.

    python benchmarks/interval_coverage.py [--trials 4000] [--out benchmarks/results/interval_coverage.json]

Two models, S trainings of each, one sample of Q queries answered in C cells. Whether training s of model m answers
query q rightly in cell c is a coin of probability Φ(mean_m + training + query + model·query + training·query +
cell·query), each term normal with a standard deviation of its own, so the true difference (over all trainings and all
queries) is known: Φ(mean_a/σ) - Φ(mean_b/σ) with σ² = 1 + the sum of the variances. Three ways to give the interval:

    seeds           Student's t over the S differences: what earlier versions printed
    satterthwaite   the variances over seeds and over queries added, degrees of freedom by Satterthwaite
    ours            half-widths added in quadrature (intervals.mean_interval, comparison.query_error)

Wanted: at least 93 % wherever 95 is said.
"""

import argparse
import json
import math
import statistics
from itertools import product
from pathlib import Path

import numpy as np

from stretchysnake.results.intervals import mean_interval, t_quantile
from stretchysnake.results.rows import environment

SETTINGS = [  # seeds, queries, cells
    (3, 300, 1),
    (3, 300, 14),
    (2, 300, 14),
    (5, 300, 14),
    (3, 100, 14),
]
TRAININGS = (0.0, 0.05, 0.2, 0.6)
"""Standard deviation of a training's own level, on the probit scale: none, as on short, as on long, wild."""
MEANS = ((0.0, 0.0), (-0.6, -0.2), (0.8, 1.6))


def answers(rng, seeds, queries, cells, training, means):
    """(2, S, C, Q) bool: which queries each model answers rightly, and the true difference of the models."""
    deviations = {"query": 0.8, "model": 0.5, "both": 0.3, "cell": 0.4}
    spread = math.sqrt(1 + training**2 + sum(d * d for d in deviations.values()))
    level = np.array(means)[:, None, None, None]
    level = level + training * rng.standard_normal((2, seeds, 1, 1))
    level = level + deviations["query"] * rng.standard_normal((1, 1, 1, queries))
    level = level + deviations["model"] * rng.standard_normal((2, 1, 1, queries))
    level = level + deviations["both"] * rng.standard_normal((2, seeds, 1, queries))
    level = level + deviations["cell"] * rng.standard_normal((1, 1, cells, queries))
    right = rng.standard_normal((2, seeds, cells, queries)) < level
    share = statistics.NormalDist().cdf
    return right, share(means[0] / spread) - share(means[1] / spread)


def satterthwaite(per_seed, error) -> tuple[float, float]:
    seeds = len(per_seed)
    mean, one = statistics.fmean(per_seed), statistics.variance(per_seed) / seeds
    total = one + error**2
    df = max(1, math.floor(total**2 / (one**2 / (seeds - 1)))) if one else 10**6
    half = t_quantile(0.05, min(df, 10**3)) * math.sqrt(total)
    return mean - half, mean + half


def coverage(rng, seeds, queries, cells, training, means, trials) -> dict:
    held = {"seeds": 0, "satterthwaite": 0, "ours": 0}
    widths = {name: [] for name in held}
    for _ in range(trials):
        right, truth = answers(rng, seeds, queries, cells, training, means)
        gains = right[0].mean(1) - right[1].mean(1)  # (S, Q)
        per_seed = gains.mean(1).tolist()
        error = gains.mean(0).std(ddof=1) / math.sqrt(queries)
        for name, (low, high) in (
            ("seeds", mean_interval(per_seed, None)),
            ("satterthwaite", satterthwaite(per_seed, error)),
            ("ours", mean_interval(per_seed, error)),
        ):
            held[name] += low <= truth <= high
            widths[name].append((high - low) / 2)
    return {
        f"{name}_{what}": value
        for name in held
        for what, value in (
            ("coverage", round(held[name] / trials, 4)),
            ("half_width_points", round(100 * statistics.median(widths[name]), 2)),
        )
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/interval_coverage.json")
    )
    options = parser.parse_args()
    rows = []
    for (seeds, queries, cells), training, means in product(SETTINGS, TRAININGS, MEANS):
        rng = np.random.default_rng([options.seed, len(rows)])
        place = {"seeds": seeds, "queries": queries, "cells": cells, "training_sd": training}
        found = coverage(rng, seeds, queries, cells, training, means, options.trials)
        rows.append({**place, "means": means, **found})
        shown = "  ".join(
            f"{name} {rows[-1][f'{name}_coverage']:.3f} (± {rows[-1][f'{name}_half_width_points']:.1f})"
            for name in ("seeds", "satterthwaite", "ours")
        )
        print(f"S={seeds} Q={queries} C={cells} training {training} means {means}: {shown}")
    lowest = min(rows, key=lambda row: row["ours_coverage"])
    print(f"lowest of ours: {lowest}")
    assert lowest["ours_coverage"] >= 0.93, "ours covers less than is said"
    written = {"environment": environment(), "trials": options.trials, "rows": rows}
    options.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
