"""The twin of the paper's Table 1 as plain data: every model at every scale, with differences to vanilla."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stretchysnake.report.tables.cells import (
    CellMean,
    cells_of,
    datasets_of,
    label,
    mean_of,
    models_of,
    of_shared_seeds,
    percent,
    points,
)
from stretchysnake.results.rows import Row, select

_WITHOUT_NUMBER = {
    "oom": "out of memory",
    "empty": "no query could be read",
    "refused": "the model cannot take this scale",
}


@dataclass(frozen=True, kw_only=True)
class PrintedCell:
    """One cell as printed: `text` and, where there is no number, the reason in `note`."""

    text: str
    spread: str = ""
    interval: str = ""
    """`low–high`, 95 %, in percent."""
    note: str = ""
    best: bool = False
    """The most accurate model of this (num_frames, size), ties included."""
    trained: bool = False
    native: bool = False
    cell: CellMean | None = None
    """None in a row of differences."""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One model at one num_frames, or its differences to the baseline (`is_difference`)."""

    model: str
    num_frames: int
    cells: tuple[PrintedCell, ...]
    is_difference: bool = False
    average_all: float | None = None
    """Mean difference to the baseline over the row's cells; None for the baseline itself."""
    average_away: float | None = None
    """The same without the baseline's native cell."""


@dataclass(frozen=True, kw_only=True)
class AccuracyTable:
    """Accuracy of every model (rows) at every size (columns), grouped by num_frames."""

    dataset: str
    metric: str
    baseline: str
    model: str
    sizes: tuple[int, ...]
    rows: tuple[TableRow, ...]
    averages: tuple[tuple[str, float | None, float | None], ...]
    """(model, mean difference over all cells, the same away from the native cell)."""
    seeds: tuple[int, ...]
    seeds_left_out: tuple[int, ...]
    """Those that some of its models lack."""
    num_queries: int
    """Fewest queries answered in any measured cell, of num_expected."""
    num_expected: int
    num_gallery: int


def accuracy_table(
    rows: Sequence[Row],
    *,
    dataset: str,
    baseline: str = "vanilla",
    model: str = "static_tokens",
    metric: str = "top1",
) -> AccuracyTable:
    """Table 1 for one data set; `model` is the one whose differences get a row of their own.

    Accuracies are means over seeds, ± is their standard deviation. A difference needs a value on
    both sides: cells out of memory or not measured enter no average.
    """
    chosen = select(rows, dataset=dataset, metric=metric)
    if not chosen:
        raise ValueError(
            f"dataset ({dataset!r}) has no {metric} rows; measured: "
            f"{', '.join(datasets_of(rows)) or 'nothing'}."
        )
    everything, chosen = chosen, of_shared_seeds(chosen)
    grid = cells_of(chosen, dataset=dataset, metric=metric)
    sizes = tuple(sorted({size for _, _, size in grid}))
    lines = []
    for num_frames in sorted({frames for _, frames, _ in grid}):
        home = [grid.get((baseline, num_frames, size)) for size in sizes]
        for name in models_of(chosen):
            cells = [grid[name, num_frames, size] for size in sizes]
            is_home = name == baseline
            gains = (None, None) if is_home else _mean_deltas(cells, home)
            averages = dict(zip(("average_all", "average_away"), gains, strict=True))
            printed = tuple(_printed(cell, grid) for cell in cells)
            lines.append(TableRow(model=name, num_frames=num_frames, cells=printed, **averages))
            if name == model and not is_home and any(home):
                printed = tuple(map(_printed_delta, cells, home))
                lines.append(
                    TableRow(
                        model=name,
                        num_frames=num_frames,
                        cells=printed,
                        is_difference=True,
                        **averages,
                    )
                )
    ok = [row for row in chosen if row.status == "ok"]
    return AccuracyTable(
        dataset=dataset,
        metric=metric,
        baseline=baseline,
        model=model,
        sizes=sizes,
        rows=tuple(lines),
        averages=_averages(grid, models_of(chosen), baseline),
        seeds=tuple(sorted({row.seed for row in chosen})),
        seeds_left_out=tuple(sorted({r.seed for r in everything} - {r.seed for r in chosen})),
        num_queries=min((row.num_queries for row in ok), default=0),
        num_expected=max(row.num_expected for row in chosen),
        num_gallery=max(row.num_gallery for row in chosen),
    )


def _averages(grid, models, baseline):
    averages = []
    for name in models:
        if name == baseline:
            continue
        cells = [cell for key, cell in grid.items() if key[0] == name]
        home = [grid.get((baseline, cell.num_frames, cell.size)) for cell in cells]
        averages.append((name, *_mean_deltas(cells, home)))
    return tuple(averages)


def _mean_deltas(
    cells: Sequence[CellMean], home: Sequence[CellMean | None]
) -> tuple[float | None, float | None]:
    """(mean difference of the pairs, the same without the baseline's native cell)."""
    deltas = list(map(_delta, cells, home))
    away = [delta for delta, cell in zip(deltas, cells, strict=True) if not cell.native]
    return mean_of(deltas), mean_of(away)


def _delta(cell: CellMean, other: CellMean | None) -> float | None:
    if other is None or cell.value is None or other.value is None:
        return None
    return cell.value - other.value


def _printed(cell: CellMean, grid: dict) -> PrintedCell:
    place = (cell.num_frames, cell.size)
    rivals = [other for key, other in grid.items() if key[1:] == place and other.status != "absent"]
    values = [other.value for other in rivals if other.value is not None]
    texts = {"oom": "OOM", "empty": "–", "absent": "–", "refused": "impossible"}
    reasons = _WITHOUT_NUMBER | {"absent": "not measured"}
    note = "; ".join(filter(None, [reasons.get(cell.status), cell.note]))
    return PrintedCell(
        text=texts.get(cell.status, percent(cell.value)),
        spread="" if cell.spread is None else percent(cell.spread),
        interval="" if cell.low is None else f"{percent(cell.low)}–{percent(cell.high)}",
        note="not measured" if cell.status == "absent" else note,
        best=cell.value is not None and len(rivals) > 1 and cell.value == max(values),
        trained=cell.trained,
        native=cell.native,
        cell=cell,
    )


def _printed_delta(cell: CellMean, other: CellMean | None) -> PrintedCell:
    delta, note = _delta(cell, other), ""
    if delta is None:
        missing = other if other is None or other.value is None else cell
        reason = _WITHOUT_NUMBER.get(missing.status if missing else "", "not measured")
        note = f"{label(missing.model) if missing else 'baseline'}: {reason}"
    return PrintedCell(text=points(delta), note=note, native=cell.native)
