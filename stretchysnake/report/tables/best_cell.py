"""One number per model, both ways: its best cell on the test queries, and the cell chosen without them.

The paper's Table 2 prints StretchySnake's best cell over its grid, a choice made on the test queries. The
honest twin chooses the cell by leave-one-out retrieval inside the gallery (metric gallery_top1).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from stretchysnake.report.tables.beside_paper import difference_to_paper, printed_number
from stretchysnake.report.tables.cells import label, models_of, of_shared_seeds, percent
from stretchysnake.report.tables.paper import PaperNumber, paper_numbers
from stretchysnake.report.tables.plain_table import PlainTable
from stretchysnake.results.comparison import query_error
from stretchysnake.results.intervals import Interval, mean_interval, wilson_interval
from stretchysnake.results.rows import Row, latest, select


@dataclass(frozen=True, kw_only=True)
class BestCell:
    """Test accuracy of one model's chosen cells, averaged over seeds."""

    model: str
    value: float
    interval: Interval
    """95 %: over seeds with two or more (Student t), else over queries (Wilson)."""
    cells: tuple[tuple[int, int], ...]
    """(num_frames, size) chosen in each seed."""
    seeds: tuple[int, ...]
    num_queries: int
    """Fewest queries answered in any of the chosen cells, of num_expected."""
    num_expected: int


def best_cell(
    rows: Sequence[Row], model: str, *, dataset: str, chosen_by: str, protocol: str = "retrieval"
) -> BestCell | None:
    """The cell of each seed with the largest chosen_by, and its top1; None where a metric is missing.

    chosen_by is `top1` (as the paper) or `gallery_top1` (gallery videos alone). Ties go to the cheaper
    cell. With `gallery_top1` a cell counts when it has both metrics.
    """
    if chosen_by not in ("top1", "gallery_top1"):
        raise ValueError(f"chosen_by ({chosen_by!r}) must be top1 or gallery_top1.")
    rows = latest(select(rows, dataset=dataset, model=model, protocol=protocol, status="ok"))
    picked = []
    for seed in sorted({row.seed for row in rows}):
        tests = {(r.num_frames, r.size): r for r in select(rows, seed=seed, metric="top1")}
        guides = [
            r for r in select(rows, seed=seed, metric=chosen_by) if (r.num_frames, r.size) in tests
        ]
        if guides:
            guide = min(guides, key=lambda r: (-r.value, r.gflops or 0.0, r.num_frames, r.size))
            picked.append(tests[guide.num_frames, guide.size])
    if not picked:
        return None
    values = [row.value for row in picked]
    if len(picked) > 1:
        interval = mean_interval(values, query_error([[row] for row in picked]))
    else:
        (row,) = picked
        interval = wilson_interval(row.value * row.num_queries, row.num_queries)
    return BestCell(
        model=model,
        value=statistics.fmean(values),
        interval=interval,
        cells=tuple((row.num_frames, row.size) for row in picked),
        seeds=tuple(row.seed for row in picked),
        num_queries=min(row.num_queries for row in picked),
        num_expected=max(row.num_expected for row in picked),
    )


def best_cell_table(
    rows: Sequence[Row], *, dataset: str, protocol: str = "retrieval"
) -> PlainTable:
    """Tables 2 and A1 for one data set: both choices for every model, over the seeds all have, and the paper's."""
    theirs = _theirs(dataset)
    lines, rows = [], of_shared_seeds(select(rows, dataset=dataset, protocol=protocol))
    for model in models_of(rows):
        kwargs = {"dataset": dataset, "protocol": protocol}
        ours = best_cell(rows, model, chosen_by="top1", **kwargs)
        honest = best_cell(rows, model, chosen_by="gallery_top1", **kwargs)
        paper = theirs.get(model)
        lines.append(
            (
                label(model),
                *_printed(ours, "no cell measured"),
                *_printed(honest, "no gallery_top1"),
                _counted(ours),
                str(len(ours.seeds)) if ours else "0",
            )
        )
        if theirs:
            apart = (difference_to_paper(one, paper) for one in (ours, honest))
            lines[-1] += (printed_number(paper), *apart)
    head = (
        "model",
        "best on test",
        "its T, S",
        "chosen on gallery",
        "its T, S",
        "queries",
        "seeds",
    )
    if theirs:
        head += ("paper", "best − paper", "gallery − paper")
    return PlainTable(
        name=f"table-2-{dataset}",
        title=f"{dataset}: one cell for each model, {protocol} top1, percent",
        head=head,
        rows=tuple(lines),
        note=_TWO_WAYS
        + (
            "" if theirs else f" {dataset} is not in the paper: no number of theirs, no difference."
        ),
    )


_TWO_WAYS = (
    "Best on test: the cell is chosen on the test queries, as in the paper's Table 2, and so flattered. "
    "Chosen on gallery: by leave-one-out retrieval inside the gallery; no test query takes part. "
    "Brackets: 95 % interval, over seeds where there are two or more, else over queries."
)


def comparison_table(rows: Sequence[Row], table: str) -> PlainTable | None:
    """Table 2 or A1 whole: every method of the paper and of ours over its data sets, with the average.

    Ours are there both ways; None when no data set of the table was measured.
    """
    numbers = paper_numbers(table)
    datasets = list(dict.fromkeys(n.dataset for n in numbers))
    measured = select(rows, dataset=datasets, protocol="retrieval", metric="top1", status="ok")
    if not measured:
        return None
    lines = []
    for model in models_of(measured):
        for chosen_by, way in (("top1", "best on test"), ("gallery_top1", "chosen on gallery")):
            best = {d: best_cell(rows, model, dataset=d, chosen_by=chosen_by) for d in datasets}
            values = [best[d].value if best[d] else None for d in datasets]
            paper = {d: _theirs(d).get(model) for d in datasets}
            why = [
                "no gallery_top1" if select(measured, dataset=d, model=model) else "not measured"
                for d in datasets
            ]
            cells = [_printed(best[d], reason)[0] for d, reason in zip(datasets, why, strict=True)]
            lines.append((label(model), f"ours, {way}", *cells, _average(values)))
            if any(paper.values()):
                apart = [difference_to_paper(best[d], paper[d]) for d in datasets]
                lines.append((label(model), f"{way} − paper", *apart, ""))
    for model in dict.fromkeys(n.model for n in numbers):
        cells = {n.dataset: n.value for n in numbers if n.model == model}
        values = [cells[d] / 100 for d in datasets]
        lines.append(
            (label(model), "paper", *(f"{cells[d]:.1f}" for d in datasets), _average(values))
        )
    return PlainTable(
        name=f"table-{table.lower()}",
        title=f"The paper's Table {table}, retrieval top1, percent: ours and theirs",
        head=("model", "", *datasets, "Average"),
        rows=tuple(lines),
        note=_TWO_WAYS + " Averages are recomputed from the cells; one is given only where all cells are there. "
        "Methods without lines of ours were not measured by us; those without a difference are not in the paper.",
    )  # fmt: skip


def _theirs(dataset: str) -> dict[str, PaperNumber]:
    numbers = paper_numbers("2") + paper_numbers("A1")
    return {n.model: n for n in numbers if n.dataset == dataset}


def _average(values: Sequence[float | None]) -> str:
    if None in values:
        missing = sum(value is None for value in values)
        return f"– ({missing} of {len(values)} missing)"
    return percent(statistics.fmean(values))


def _counted(best: BestCell | None) -> str:
    return f"{best.num_queries} of {best.num_expected}" if best else "–"


def _printed(best: BestCell | None, reason: str) -> tuple[str, str]:
    if best is None:
        return f"– ({reason})", "–"
    low, high = (percent(min(1.0, max(0.0, end))) for end in best.interval)
    cells = ", ".join(f"{t} × {s} px" for t, s in dict.fromkeys(best.cells))
    return f"{percent(best.value)} [{low}, {high}]", cells
