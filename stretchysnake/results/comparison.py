"""What measured rows say beyond their values: intervals, paired tests, differences of two models."""

from __future__ import annotations

import base64
import math
import operator
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stretchysnake.results.intervals import Interval, mean_interval, p_value
from stretchysnake.results.rows import Row, latest, native_cells, select


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean over cells of model_a - model_b, and what it rests on; fractions, not percentages."""

    model_a: str
    model_b: str
    mean: float
    mean_a: float
    mean_b: float
    interval: Interval | None
    """95 % interval of `mean`; None when it cannot be given (one seed, no query counts)."""
    p_value: float | None
    """Two-sided, of the same scatter as the interval; not corrected for other comparisons."""
    interval_over: str
    """`seeds and queries` (intervals.mean_interval), `queries` (one seed) or `seeds` (the rows count no queries)."""
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    cells: tuple[tuple[int, int], ...]
    """(num_frames, size) of the cells averaged over."""
    num_cells_left_out: int
    """Cells that one of the models, or one of the seeds, has no value for."""
    query_error: float | None = None
    """Standard error of `mean` over queries (`query_error`)."""


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
    bits = f"{int.from_bytes(packed, 'big'):0{8 * len(packed)}b}" if packed else ""
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
    the same cells. The interval holds the scatter of the seeds and that of the queries; with one seed
    it is over queries alone, blind to the spread between trainings. None when no cell is shared.
    """
    if cells not in ("all", "native", "away"):
        raise ValueError(f"cells ({cells!r}) must be all, native or away.")
    rows = select(rows, dataset=dataset, metric=metric, protocol=protocol)
    return _compared(rows, (model_a,), (model_b,), cells=cells)


def gain_difference(
    rows: Sequence[Row],
    ours: tuple[str, str],
    theirs: tuple[str, str],
    *,
    dataset: str,
    metric: str = "top1",
    protocol: str = "retrieval",
) -> Difference | None:
    """How much more the first of `ours` gains on the second than the first of `theirs` on its second: a difference of
    differences, over the cells that all four have.

    As `mean_difference` otherwise: in each seed, then over seeds, the queries paired over all four; mean_a and mean_b
    are the two gains.
    """
    rows = select(rows, dataset=dataset, metric=metric, protocol=protocol)
    return _compared(rows, ours, theirs, cells="all")


def _compared(
    rows: Sequence[Row], ours: tuple[str, ...], theirs: tuple[str, ...], *, cells: str
) -> Difference | None:
    """Two sides of the same length: a model each, or a model and the one that its gain is measured against."""
    rows, models = latest(rows), (*ours, *theirs)
    native = native_cells(rows)
    measured: dict[str, dict[int, dict[tuple[int, int], Row]]] = {model: {} for model in models}
    offered = set()
    for row in select(rows, model=models):
        cell = (row.num_frames, row.size)
        if cells == "all" or (cell in native) == (cells == "native"):
            offered.add(cell)
            if row.value is not None:
                measured[row.model].setdefault(row.seed, {})[cell] = row
    seeds = sorted(set.intersection(*(set(measured[model]) for model in models)))
    sides = [measured[model][seed] for model in models for seed in seeds]
    shared = sorted(set.intersection(*map(set, sides))) if sides else []
    if not shared:
        return None

    def mean(model: str, seed: int) -> float:
        return statistics.fmean(measured[model][seed][cell].value for cell in shared)

    def level(side: tuple[str, ...], seed: int) -> float:
        return mean(side[0], seed) - sum(mean(model, seed) for model in side[1:])

    def rows_of(*models: str) -> list[list[Row]]:
        return [[measured[m][seed][cell] for m in models for cell in shared] for seed in seeds]

    per_seed = tuple(level(ours, seed) - level(theirs, seed) for seed in seeds)
    # what our side is measured against counts as theirs does, and the other way round; means over so many models
    error = query_error(rows_of(ours[0], *theirs[1:]), rows_of(theirs[0], *ours[1:]))
    error = None if error is None else len(ours) * error
    return Difference(
        model_a=" − ".join(ours),
        model_b=" − ".join(theirs),
        mean=statistics.fmean(per_seed),
        mean_a=statistics.fmean(level(ours, seed) for seed in seeds),
        mean_b=statistics.fmean(level(theirs, seed) for seed in seeds),
        interval=mean_interval(per_seed, error),
        p_value=p_value(per_seed, error),
        interval_over=scatter_of(len(seeds), error),
        seeds=tuple(seeds),
        per_seed=per_seed,
        cells=tuple(shared),
        num_cells_left_out=len(offered) - len(shared),
        query_error=error,
    )


def scatter_of(num_seeds: int, error: float | None) -> str:
    """What `mean_interval` rests on, in words."""
    if error is None:
        return "seeds"
    return "seeds and queries" if num_seeds >= 2 else "queries"


def query_error(
    ours: Sequence[Sequence[Row]], theirs: Sequence[Sequence[Row]] = ()
) -> float | None:
    """Standard error over queries of the mean over seeds and cells of ours, less that of theirs where given.

    Each side holds, for each seed, the rows of its cells. Where all rows hold which of the same queries were right,
    each query has one number, its mean over seeds and cells, and the error is that of their mean: queries shared by
    cells, seeds and models are taken as they are. Else cells and seeds are taken as fully correlated and the two
    models as independent, wider than the truth. None where a row counts no queries.
    """
    mine, other = ([row for seed in side for row in seed] for side in (ours, theirs))
    rows = [*mine, *other]
    if any(row.num_queries < 1 for row in rows):
        return None
    n = rows[0].num_queries
    same = {(row.queries, row.num_queries) for row in rows} == {(rows[0].queries, n)}
    if rows[0].queries and n > 1 and same and all(row.correct for row in rows):
        sums = [0] * n
        for side, add in ((mine, operator.add), (other, operator.sub)):
            for row in side:
                sums = list(map(add, sums, unpack_correct(row.correct, n)))
        # whole numbers, so that nothing is lost in the difference
        scatter = n * sum(x * x for x in sums) - sum(sums) ** 2
        return math.sqrt(scatter / (n - 1)) / n / len(mine)
    errors = [
        statistics.fmean(math.sqrt(_spread(row) / row.num_queries) for row in side)
        for side in (mine, other)
        if side
    ]
    return math.hypot(*errors)


def _spread(row: Row) -> float:
    """The variance of one query's answer: of a share as it is, of another mean in [0, 1] at most that."""
    return row.value * (1 - row.value)
