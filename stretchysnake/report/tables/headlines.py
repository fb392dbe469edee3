"""The three headline numbers, and the sentence that says what came out, whichever way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stretchysnake.report.tables.cells import (
    CellMean,
    cells_of,
    label,
    main_dataset,
    percent,
    points,
)
from stretchysnake.results.comparison import Difference, mean_difference
from stretchysnake.results.rows import Row, select


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cheapest cell of the model at least as accurate as the baseline at its native cell."""

    native: CellMean
    cheapest: CellMean | None
    """None when no cell is as accurate."""
    times_fewer: float | None
    """GFLOPs of the native cell over those of the cheapest; below 1 means it costs more."""


@dataclass(frozen=True, kw_only=True)
class Headlines:
    """Three numbers of one data set; None where the rows do not hold them."""

    dataset: str
    baseline: str
    model: str
    away: Difference | None
    native: Difference | None
    cost: Cost | None


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One headline, worded: a number, what it is, and what it rests on."""

    value: str
    label: str
    detail: str
    verdict: str
    """`better`, `worse`, `unclear` (the interval holds zero) or `missing`."""


def headlines(
    rows: Sequence[Row],
    *,
    dataset: str | None = None,
    baseline: str = "vanilla",
    model: str = "static_tokens",
    metric: str = "top1",
) -> Headlines:
    """The gain away from the baseline's native cell, the gain at it, the cost of matching it."""
    dataset = main_dataset(rows) if dataset is None else dataset
    away, native = (
        mean_difference(rows, model, baseline, dataset=dataset, cells=cells, metric=metric)
        for cells in ("away", "native")
    )
    if not any(row.native for row in rows if row.dataset == dataset):
        away = None  # without a native cell nothing is away from it
    return Headlines(
        dataset=dataset,
        baseline=baseline,
        model=model,
        away=away,
        native=native,
        cost=_cost(rows, dataset=dataset, baseline=baseline, model=model, metric=metric),
    )


def _cost(rows, *, dataset: str, baseline: str, model: str, metric: str) -> Cost | None:
    pair = select(rows, model=(baseline, model))
    cells = cells_of(pair, dataset=dataset, metric=metric).values()
    native = [cell for cell in cells if cell.model == baseline and cell.native]
    measured = [
        c for c in cells if c.model == model and c.value is not None and c.gflops is not None
    ]
    if len(native) != 1 or native[0].value is None or not native[0].gflops or not measured:
        return None
    enough = [cell for cell in measured if cell.value >= native[0].value and cell.gflops > 0]
    cheapest = min(enough, key=lambda cell: (cell.gflops, -cell.value), default=None)
    times = native[0].gflops / cheapest.gflops if cheapest else None
    return Cost(native=native[0], cheapest=cheapest, times_fewer=times)


def verdict(difference: Difference | None) -> str:
    """`better` or `worse` when the interval excludes zero, else `unclear`; `missing`: no data."""
    if difference is None:
        return "missing"
    low, high = difference.interval or (difference.mean, difference.mean)
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def claim(headline: Headlines) -> str:
    """One sentence computed from the numbers, which says so when the model loses."""
    model, baseline = label(headline.model), label(headline.baseline)
    if headline.away is None:
        return (
            f"The comparison of {model} with {baseline} is not complete yet on {headline.dataset}."
        )
    away = headline.away
    where = f"on {headline.dataset}, shown clips at other scales than its own, the model trained at one scale"
    numbers = (
        f"{where} ({baseline}) finds the right class for {percent(away.mean_b)} % of them, the one trained at "
        f"many ({model}) for {percent(away.mean_a)} %: {points(away.mean)} points"
    )
    opening = {
        "better": f"{numbers[0].upper()}{numbers[1:]}.",
        "worse": f"In this run {model} lost: {numbers}.",
        "unclear": f"This run does not settle it: {numbers}, and the 95 % interval holds zero.",
    }[verdict(away)]
    if headline.native is None:
        return opening
    at_home = {
        "better": f"At vanilla's own scale {model} is ahead too ({points(headline.native.mean)}).",
        "worse": f"At vanilla's own scale {baseline} stays ahead "
        f"({model} {points(headline.native.mean)}).",
        "unclear": f"At vanilla's own scale the two are within the noise "
        f"({model} {points(headline.native.mean)}).",
    }
    if verdict(away) == "worse":
        at_home["better"] = at_home["better"].replace(" too", "")
    return f"{opening} {at_home[verdict(headline.native)]}"


def tiles(headline: Headlines) -> tuple[Tile, Tile, Tile]:
    """The three headlines in words, for the page and the terminal."""
    return (
        _difference_tile(headline.away, "points away from vanilla's training scale", headline),
        _difference_tile(headline.native, "points at vanilla's own training scale", headline),
        _cost_tile(headline),
    )


def _difference_tile(difference: Difference | None, meaning: str, headline: Headlines) -> Tile:
    if difference is None:
        return Tile(value="–", label=meaning, detail="not measured", verdict="missing")
    seeds = len(difference.seeds)
    interval = "no interval"
    if difference.interval is not None:
        low, high = difference.interval
        over = difference.interval_over.replace("seeds", f"{seeds} seeds")
        over += ", one seed" if seeds == 1 else ""
        interval = f"95 % interval {points(low)} to {points(high)} over {over}"
    cells = len(difference.cells)
    detail = (
        f"{label(headline.model)} {percent(difference.mean_a)} %, "
        f"{label(headline.baseline)} {percent(difference.mean_b)} %; "
        f"{interval}; {cells} cell{'s' if cells != 1 else ''}"
    )
    if difference.num_cells_left_out:
        detail += f", {difference.num_cells_left_out} left out (a value is missing)"
    return Tile(
        value=points(difference.mean), label=meaning, detail=detail, verdict=verdict(difference)
    )


def _cost_tile(headline: Headlines) -> Tile:
    meaning = "fewer GFLOPs, as accurate as vanilla at its own scale"
    if headline.cost is None:
        return Tile(value="–", label=meaning, detail="not measured", verdict="missing")
    native, cheapest = headline.cost.native, headline.cost.cheapest
    goal = f"{label(headline.baseline)} at its own scale: {percent(native.value)} %"
    if cheapest is None:
        return Tile(
            value="none",
            label="no scale as accurate as vanilla at its own",
            detail=f"{goal} for {_gflops(native.gflops)} GFLOPs; no cell of "
            f"{label(headline.model)} reaches it",
            verdict="worse",
        )
    times = headline.cost.times_fewer
    shown = f"{max(times, 1 / times):.1f}×"
    if shown == "1.0×":
        judged, words = "unclear", "the GFLOPs, as accurate as vanilla at its own scale"
    elif times > 1:
        judged, words = "better", meaning
    else:
        judged, words = "worse", "more GFLOPs to be as accurate as vanilla at its own scale"
    return Tile(
        value=shown,
        label=words,
        detail=f"{label(headline.model)} at T={cheapest.num_frames}, {cheapest.size} px: "
        f"{percent(cheapest.value)} % for {_gflops(cheapest.gflops)} GFLOPs; "
        f"{goal} for {_gflops(native.gflops)}",
        verdict=judged,
    )


def _gflops(number: float) -> str:
    return f"{number:.3g}"
