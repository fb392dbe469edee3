"""One number per model, both ways: its best cell on the test queries, and the cell chosen without them.

The paper's Table 2 prints StretchySnake's best cell over its grid, a choice made on the test queries. The
honest twin chooses the cell by leave-one-out retrieval inside the gallery (metric gallery_top1).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from stretchysnake.comparison import Interval, seed_interval, wilson_interval
from stretchysnake.report.cells import label, models_of, percent, points
from stretchysnake.report.paper import paper_numbers
from stretchysnake.report.plain_table import PlainTable
from stretchysnake.results import Row, latest, select


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
    interval = seed_interval(values)
    if interval is None:
        (row,) = picked
        interval = wilson_interval(row.value * row.num_queries, row.num_queries)
    return BestCell(
        model=model,
        value=statistics.fmean(values),
        interval=interval,
        cells=tuple((row.num_frames, row.size) for row in picked),
        seeds=tuple(row.seed for row in picked),
    )


def best_cell_table(
    rows: Sequence[Row], *, dataset: str, protocol: str = "retrieval"
) -> PlainTable:
    """Table 2 for one data set: both choices for every model, and the paper's number where it has one."""
    theirs = {
        n.model: n.value for n in paper_numbers("2") + paper_numbers("A1") if n.dataset == dataset
    }
    lines = []
    for model in models_of(select(rows, dataset=dataset, protocol=protocol)):
        kwargs = {"dataset": dataset, "protocol": protocol}
        ours = best_cell(rows, model, chosen_by="top1", **kwargs)
        honest = best_cell(rows, model, chosen_by="gallery_top1", **kwargs)
        paper = theirs.get(model)
        difference = "–"
        if ours is not None and paper is not None:
            difference = points(ours.value - paper / 100)
        lines.append(
            (
                label(model),
                *_printed(ours, "no cell measured"),
                *_printed(honest, "gallery_top1 not measured"),
                "not in the paper" if paper is None else f"{paper:.1f}",
                difference,
            )
        )
    return PlainTable(
        title=f"{dataset}: one cell for each model, {protocol} top1, percent",
        head=("model", "best on test", "its T, S", "chosen on gallery", "its T, S", "paper", "ours − paper"),
        rows=tuple(lines),
        note="Best on test: the cell is chosen on the test queries, as in the paper's Table 2, and so flattered. "
        "Chosen on gallery: by leave-one-out retrieval inside the gallery; no test query takes part. "
        "Brackets: 95 % interval, over seeds where there are two or more, else over queries.",
    )  # fmt: skip


def _printed(found: BestCell | None, reason: str) -> tuple[str, str]:
    if found is None:
        return f"– ({reason})", "–"
    low, high = (percent(end) for end in found.interval)
    cells = ", ".join(f"{t} × {s} px" for t, s in dict.fromkeys(found.cells))
    return f"{percent(found.value)} [{low}, {high}]", cells
