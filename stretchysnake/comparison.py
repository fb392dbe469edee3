"""What measured rows say beyond their values: intervals, paired tests, differences of two models."""

from __future__ import annotations

import base64
import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stretchysnake.results import Row, latest, native_cells, select


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean over cells of model_a - model_b, and what it rests on; fractions, not percentages."""

    model_a: str
    model_b: str
    mean: float
    mean_a: float
    mean_b: float
    interval: Interval | None
    """95 % interval of `mean`; None when it cannot be given (no query counts)."""
    interval_over: str
    """`seeds` (Student t) or `queries` (normal, one seed only; paired where the rows allow it)."""
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    cells: tuple[tuple[int, int], ...]
    """(num_frames, size) of the cells averaged over."""
    num_cells_left_out: int
    """Cells that one of the two models, or one of the seeds, has no value for."""


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


def seed_interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean over seeds, Student's t; None with fewer than two seeds."""
    if len(values) < 2:
        return None
    times = _T_975[min(len(values) - 2, len(_T_975) - 1)]
    half = times * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return Interval(mean - half, mean + half)


def pack_correct(flags: Iterable[bool]) -> str:
    """One bit for each query, in order, as base64 text: 300 queries take 68 characters.

    >>> unpack_correct(pack_correct([True, False, True]), 3)
    [True, False, True]
    """
    bits = "".join("1" if flag else "0" for flag in flags)
    bits += "0" * (-len(bits) % 8)
    return base64.b64encode(bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))).decode()


def unpack_correct(text: str, num_queries: int) -> list[bool]:
    """The flags of `pack_correct`; ValueError when the text is not that of num_queries flags."""
    try:
        packed = base64.b64decode(text, validate=True)
    except ValueError:
        packed = b""
    if len(packed) != -(-num_queries // 8):
        raise ValueError(
            f"correct ({text[:20]!r}) must be base64 of {num_queries} bits; the row is damaged."
        )
    bits = "".join(f"{byte:08b}" for byte in packed)
    return [bit == "1" for bit in bits[:num_queries]]


class PairedTest(NamedTuple):
    """Two models on the same queries."""

    only_a: int
    """Queries that a alone answered rightly."""
    only_b: int
    num_queries: int
    difference: float
    """Accuracy of a minus accuracy of b."""
    interval: Interval
    """95 % interval of the difference, paired and normal."""
    p_value: float
    """Exact McNemar test, two-sided."""


def paired_test(a: Row, b: Row) -> PairedTest:
    """Exact McNemar test of two rows measured on the same queries, in the same order.

    Only queries that the two answer differently count: under equality each is a fair coin.
    ValueError when the rows do not hold which queries were right, or hold different queries.
    """
    for row in (a, b):
        if not row.correct:
            raise ValueError(
                f"row of {row.model} at T={row.num_frames} S={row.size} does not hold which queries were "
                "right; measure it again with this version."
            )
    if a.queries != b.queries or a.num_queries != b.num_queries:
        raise ValueError(
            f"queries ({a.queries or 'unknown'} and {b.queries or 'unknown'}) must be the same to be paired; "
            "measure both models on one list."
        )
    n = a.num_queries
    pairs = list(zip(unpack_correct(a.correct, n), unpack_correct(b.correct, n), strict=True))
    only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
    difference = (only_a - only_b) / n
    half = 1.96 * math.sqrt(max(0.0, (only_a + only_b) / n - difference**2) / n)
    return PairedTest(
        only_a,
        only_b,
        n,
        difference,
        Interval(max(-1.0, difference - half), min(1.0, difference + half)),
        mcnemar_p(only_a, only_b),
    )


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value of McNemar's test: a binomial test of the discordant pairs against 1/2."""
    total = only_a + only_b
    term = tail = 1
    for i in range(min(only_a, only_b)):
        term = term * (total - i) // (i + 1)  # exact: binomial coefficients
        tail += term
    return min(1.0, 2 * tail / 2**total) if total < 1000 else min(1.0, _ratio(2 * tail, total))


def _ratio(number: int, power: int) -> float:
    """number / 2**power for integers beyond the range of floats."""
    shift = max(0, number.bit_length() - 64)
    return math.ldexp(float(number >> shift), shift - power)


# 97.5 % quantiles of Student's t for 1 to 12 degrees of freedom; the last serves beyond.
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)


def mean_difference(
    rows: Sequence[Row],
    model_a: str,
    model_b: str,
    *,
    dataset: str,
    cells: str = "all",
    metric: str = "top1",
    protocol: str = "retrieval",
) -> Difference | None:
    """Mean over cells of model_a - model_b in each seed, then over seeds, with a 95 % interval.

    cells is `all`, `native` (vanilla's own training cell) or `away` (all but that one). A cell
    counts when both models have a value there in every shared seed, so that each seed averages
    the same cells. With two or more seeds the interval is Student's t over them. With one it is
    a normal interval over queries, blind to the spread between trainings: paired by query where
    the rows hold which queries were right, else one that takes the cells as fully correlated (they
    share their queries) and the models as independent, wider than the truth. None when no cell is shared.
    """
    if cells not in ("all", "native", "away"):
        raise ValueError(f"cells ({cells!r}) must be all, native or away.")
    rows = latest(select(rows, dataset=dataset, metric=metric, protocol=protocol))
    native = native_cells(rows)
    found: dict[str, dict[int, dict[tuple[int, int], Row]]] = {model_a: {}, model_b: {}}
    offered = set()
    for row in select(rows, model=(model_a, model_b)):
        cell = (row.num_frames, row.size)
        if cells == "all" or (cell in native) == (cells == "native"):
            offered.add(cell)
            if row.value is not None:
                found[row.model].setdefault(row.seed, {})[cell] = row
    seeds = sorted(found[model_a].keys() & found[model_b].keys())
    sides = [found[model][seed] for model in (model_a, model_b) for seed in seeds]
    shared = sorted(set.intersection(*map(set, sides))) if sides else []
    if not shared:
        return None

    def mean(model: str, seed: int) -> float:
        return statistics.fmean(found[model][seed][cell].value for cell in shared)

    per_seed = tuple(mean(model_a, seed) - mean(model_b, seed) for seed in seeds)
    average = statistics.fmean(per_seed)
    interval = seed_interval(per_seed)
    if interval is None:
        pairs = [(found[model_a][seeds[0]][c], found[model_b][seeds[0]][c]) for c in shared]
        half = _half_over_queries(pairs)
        interval = None if half is None else Interval(average - half, average + half)
    return Difference(
        model_a=model_a,
        model_b=model_b,
        mean=average,
        mean_a=statistics.fmean(mean(model_a, seed) for seed in seeds),
        mean_b=statistics.fmean(mean(model_b, seed) for seed in seeds),
        interval=interval,
        interval_over="seeds" if len(seeds) >= 2 else "queries",
        seeds=tuple(seeds),
        per_seed=per_seed,
        cells=tuple(shared),
        num_cells_left_out=len(offered) - len(shared),
    )


def _half_over_queries(pairs: Sequence[tuple[Row, Row]]) -> float | None:
    """Half of a 95 % interval, over queries, of the mean over cells of the differences a - b."""
    rows = [row for pair in pairs for row in pair]
    if any(row.num_queries < 1 for row in rows):
        return None
    n = rows[0].num_queries
    if rows[0].queries and n > 1 and all(r.correct and r.queries == rows[0].queries for r in rows):
        gains = [0] * n
        for a, b in pairs:
            right = zip(unpack_correct(a.correct, n), unpack_correct(b.correct, n), strict=True)
            gains = [gain + mine - other for gain, (mine, other) in zip(gains, right, strict=True)]
        return 1.96 * statistics.stdev(gain / len(pairs) for gain in gains) / math.sqrt(n)
    return 1.96 * statistics.fmean(
        math.sqrt(sum(r.value * (1 - r.value) / r.num_queries for r in pair)) for pair in pairs
    )
