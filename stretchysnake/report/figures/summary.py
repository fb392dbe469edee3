"""One number for each model and data set: radar and intervals (paper Fig. 1, right)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stretchysnake.report.figures.picture import (
    Picture,
    colour_of,
    dash_of,
    legend,
    marker_of,
    names_of,
)
from stretchysnake.report.tables.best_cell import BestCell, best_cell
from stretchysnake.report.tables.cells import datasets_of, models_of, of_shared_seeds
from stretchysnake.results.rows import Row, select


def chosen_cells(
    rows: Sequence[Row], *, protocol: str = "retrieval"
) -> tuple[str, dict[tuple[str, str], BestCell]]:
    """(`gallery_top1` or `top1`, the cell so chosen by (data set, model)).

    The cell is chosen inside the gallery where every model and data set has gallery_top1; otherwise on the
    test queries, as the paper does.
    """
    rows = select(rows, protocol=protocol, metric=("top1", "gallery_top1"), status="ok")
    rows = of_shared_seeds(rows)
    places = [
        (dataset, model)
        for dataset in datasets_of(rows)
        for model in models_of(select(rows, dataset=dataset))
    ]
    for chosen_by in ("gallery_top1", "top1"):
        best_cells = {
            (dataset, model): best_cell(
                rows, model, dataset=dataset, chosen_by=chosen_by, protocol=protocol
            )
            for dataset, model in places
        }
        if all(best_cells.values()):
            break
    return chosen_by, {place: best for place, best in best_cells.items() if best is not None}


def summary(rows: Sequence[Row], *, protocol: str = "retrieval") -> Picture | None:
    """A radar over data sets where there are three or more, beside each number with its interval.

    None when fewer than two numbers are there: nothing to compare.
    """
    chosen_by, best_cells = chosen_cells(rows, protocol=protocol)
    if len(best_cells) < 2:
        return None
    datasets = list(dict.fromkeys(dataset for dataset, _ in best_cells))
    models = models_of([row for row in rows if any(row.model == model for _, model in best_cells)])
    round_ = len(datasets) >= 3

    def draw(plt):
        height = max(4.6 if round_ else 2.2, 1.3 + len(datasets) * (0.24 * len(models) + 0.3))
        figure = plt.figure(figsize=(9.6 if round_ else 6.2, height), layout="constrained")
        columns = figure.add_gridspec(
            1, 2 if round_ else 1, width_ratios=(1.05, 1) if round_ else None
        )
        if round_:
            _radar(figure.add_subplot(columns[0], polar=True), plt, best_cells, datasets, models)
        _dots(figure.add_subplot(columns[-1]), plt, best_cells, datasets, models)
        legend(figure, plt, models, one_each=True, columns=None if round_ else 3)
        return figure

    how = {
        "gallery_top1": "chosen by leave-one-out retrieval inside the gallery, without the test queries",
        "top1": "chosen on the test queries, as the paper's Table 2 does, and so a little flattered",
    }[chosen_by]
    seeds = max(len(best.seeds) for best in best_cells.values())
    over = f"over {seeds} seeds and the queries" if seeds > 1 else "over queries (Wilson), one seed"
    return Picture(
        name="summary",
        alt=f"{protocol} top1 of {names_of(models)} on {', '.join(datasets)}, one number each with its interval.",
        draw=draw,
        caption=f"{protocol.capitalize()} top1 of each model's one cell on each data set; the cell is {how}. "
        f"Bars: 95 % interval {over}.",
    )


def _radar(axis, plt, best_cells, datasets, models) -> None:
    angles = [2 * math.pi * index / len(datasets) for index in range(len(datasets))]
    for model in models:
        values = [
            100 * best_cells[d, model].value if (d, model) in best_cells else math.nan
            for d in datasets
        ]
        axis.plot(
            [*angles, angles[0]],
            [*values, values[0]],
            color=colour_of(model),
            linestyle=dash_of(model),
            marker=marker_of(model),
            linewidth=2,
            markersize=6,
        )
    ink = plt.rcParams["text.color"]
    axis.set_theta_offset(math.pi / 2)
    axis.set_theta_direction(-1)
    axis.set_xticks(angles, [name.split("/")[-1] for name in datasets])
    axis.tick_params(axis="x", pad=8)
    highest = max(100 * best.value for best in best_cells.values())
    axis.set_ylim(0, min(100, 1.08 * highest))
    rings = [ring for ring in (20, 40, 60, 80) if ring < 1.08 * highest]
    axis.set_yticks(rings, [str(ring) for ring in rings], fontsize=10)
    axis.set_rlabel_position(180 / len(datasets))
    axis.grid(color=ink, alpha=0.2)
    axis.spines["polar"].set_alpha(0.3)


def _dots(axis, plt, best_cells, datasets, models) -> None:
    step = min(0.18, 0.72 / max(1, len(models) - 1))
    for row, dataset in enumerate(datasets):
        for index, model in enumerate(models):
            best = best_cells.get((dataset, model))
            if best is None:
                continue
            y = row + (index - (len(models) - 1) / 2) * step
            low, high = (100 * min(1.0, max(0.0, end)) for end in best.interval)
            look = {"color": colour_of(model), "linewidth": 2}
            axis.plot([low, high], [y, y], **look)
            axis.plot(
                100 * best.value, y, marker=marker_of(model), markersize=7, color=look["color"]
            )
    for between in range(1, len(datasets)):
        axis.axhline(between - 0.5, color=plt.rcParams["text.color"], alpha=0.25, linewidth=0.8)
    axis.set_yticks(range(len(datasets)), [name.split("/")[-1] for name in datasets])
    axis.set_ylim(len(datasets) - 0.45, -0.55)
    axis.set_xlim(0, 100)
    axis.set_xlabel("top1 (%)")
    axis.grid(axis="x", color=plt.rcParams["text.color"], alpha=0.12)
    axis.tick_params(axis="y", length=0)
