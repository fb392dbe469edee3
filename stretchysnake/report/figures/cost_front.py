"""Accuracy against GFLOPs with the Pareto front (paper Fig. 1, left)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stretchysnake.report.figures.heat_map import NATIVE
from stretchysnake.report.figures.picture import (
    Picture,
    colour_of,
    dash_of,
    legend,
    log_ticks,
    marker_of,
    names_of,
)
from stretchysnake.report.tables.cells import CellMean, cells_of, label, models_of
from stretchysnake.report.tables.headlines import headlines
from stretchysnake.results.rows import Row


def pareto_front(cells: Iterable[CellMean]) -> list[CellMean]:
    """Cells that no cheaper or equally dear cell beats or equals, by rising GFLOPs; cells without both are left out."""
    measured = [c for c in cells if c.value is not None and c.gflops]
    front: list[CellMean] = []
    for cell in sorted(measured, key=lambda c: (c.gflops, -c.value)):
        if not front or cell.value > front[-1].value:
            front.append(cell)
    return front


def accuracy_over_cost(
    rows: Sequence[Row], *, dataset: str, chance: float | None = None, metric: str = "top1"
) -> Picture | None:
    """Each cell a point over the GFLOPs of one clip (log), each model's front a line, the front of all ringed.

    None when no cell has both an accuracy and GFLOPs: there would be an empty axis.
    """
    grid = cells_of(rows, dataset=dataset, metric=metric)
    models = models_of([row for row in rows if row.dataset == dataset])
    overall = pareto_front(grid.values())
    if not overall:
        return None
    cost = headlines(rows, dataset=dataset, metric=metric).cost

    def draw(plt):
        figure, axis = plt.subplots(figsize=(9.6, 5.2), layout="constrained")
        ink = plt.rcParams["text.color"]
        for name in models:
            cells = [
                c for c in grid.values() if c.model == name and c.value is not None and c.gflops
            ]
            look = {"color": colour_of(name), "marker": marker_of(name)}
            _plot(axis, cells, linestyle="none", markersize=5.5, alpha=0.4, **look)
            line = {"linestyle": dash_of(name), "linewidth": 2.2, "markersize": 7}
            _plot(axis, pareto_front(cells), **line, **look)
        ring = {"marker": "o", "markersize": 13, "fillstyle": "none", "markeredgewidth": 1.2}
        _plot(axis, overall, color=ink, linestyle="none", **ring)
        named = []
        if cost is not None:
            axis.axhline(
                100 * cost.native.value, color=colour_of("vanilla"), linestyle="--", linewidth=1.2
            )
            named.append(_name_cell(axis, cost.native, "*", 17, "its own scale"))
            if cost.cheapest is not None:
                words = "cheapest as accurate"
                named.append(_name_cell(axis, cost.cheapest, "D", 9, words))
        if named:
            axis.legend(handles=named, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        axis.set_xscale("log")
        log_ticks(axis)
        axis.set_xlabel("GFLOPs of one clip (log scale)")
        axis.set_ylabel(f"{metric} (%)")
        axis.margins(x=0.09, y=0.12)
        axis.set_ylim(bottom=0)
        axis.grid(color=ink, alpha=0.12)
        if chance is not None:
            axis.axhline(100 * chance, color=ink, linestyle=":", linewidth=1.4)
        legend(figure, plt, models, chance=chance, one_each=True)
        return figure

    marks = " The dashed line is as accurate as vanilla at its own training scale." if cost else ""
    return Picture(
        name=f"cost-{dataset}",
        dataset=dataset,
        alt=f"{metric} on {dataset} against the GFLOPs of a clip for {names_of(models)}.",
        draw=draw,
        caption=f"Each point is one scale (T, S) of one model on {dataset}; up and to the left is better. Lines join a "
        f"model's best cells for their cost (its Pareto front), ringed points are the front of all models.{marks} "
        "GFLOPs count one forward pass of one clip, the selective scan included.",
    )


def _plot(axis, cells: Sequence[CellMean], **look) -> None:
    axis.plot([c.gflops for c in cells], [100 * c.value for c in cells], **look)


def _name_cell(axis, cell: CellMean, marker: str, markersize: float, words: str):
    """A mark on the cell, and its line for the legend: beside the mark a name would lie on other marks."""
    text = f"{label(cell.model)}, {words}: T={cell.num_frames}, {cell.size} px"
    at, look = (cell.gflops, 100 * cell.value), {"linestyle": "none", "color": NATIVE, "zorder": 5}
    (line,) = axis.plot(*at, marker=marker, markersize=markersize, label=text, **look)
    return line
