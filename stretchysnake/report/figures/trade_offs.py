"""Maps over scales, the loss, and the README's picture; further figures have files of their own."""

from __future__ import annotations

import io
from collections.abc import Sequence

from stretchysnake.report.figures.heat_map import (
    accuracy_map,
    difference_map,
    difference_title,
    label_axes,
)
from stretchysnake.report.figures.picture import (
    Picture,
    colour_of,
    dash_of,
    legend,
    names_of,
    style,
)
from stretchysnake.report.figures.size_curves import finish_size_axis, size_lines
from stretchysnake.report.pages.context import TrainingInfo
from stretchysnake.report.tables.cells import cells_of, label, main_dataset, models_of
from stretchysnake.results.rows import Row, select


def heat_maps(
    rows: Sequence[Row],
    *,
    dataset: str,
    baseline: str = "vanilla",
    model: str = "static_tokens",
    metric: str = "top1",
) -> Picture | None:
    """Accuracy over (num_frames, size), a map for each of two models, and their difference; over the seeds both have.

    None when neither model was measured: there would be an empty axis.
    """
    grid = cells_of(select(rows, model=(baseline, model)), dataset=dataset, metric=metric)
    frames, sizes = (sorted({key[i] for key in grid}) for i in (1, 2))
    maps = [name for name in (baseline, model) if any(key[0] == name for key in grid)]
    if not maps:
        return None
    cells = {m: [[grid[m, t, s] for s in sizes] for t in frames] for m in maps}
    seeds = max(cell.num_seeds for cell in grid.values())
    meant = f", means of {seeds} seeds," if seeds > 1 else ""

    def draw(plt):
        panels = len(maps) + (len(maps) == 2)
        shape = (panels, 1) if len(sizes) > 5 else (1, panels)
        figure, axes = plt.subplots(
            *shape,
            figsize=(9.6, (1.0 + 0.5 * len(frames)) * shape[0]),
            squeeze=False,
            layout="constrained",
        )
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        for axis, name in zip(axes.flat, maps, strict=False):
            accuracy_map(axis, plt, cells[name], title=label(name))
        if len(maps) == 2:
            title = difference_title(model, baseline)
            difference_map(axes.flat[2], plt, cells[model], cells[baseline], title=title)
        for axis in axes.flat:
            label_axes(axis, frames, sizes)
            axis.label_outer()
        return figure

    return Picture(
        name=f"heat-{dataset}",
        dataset=dataset,
        alt=f"Heat maps of {metric} on {dataset} over frames and size for {names_of(maps)}.",
        draw=draw,
        caption=f"Accuracy on {dataset} in percent{meant} over frames T and size S, brighter is better, and the "
        "difference: green static tokens ahead, blue vanilla ahead. Orange outline: vanilla's training scale; thin "
        "outline: scales that model saw in training; OOM: out of memory; –: not measured.",
    )


def loss_curves(training: Sequence[TrainingInfo]) -> Picture | None:
    """Loss over steps of the trainings that recorded it, a line for each; None without any."""
    recorded = [info for info in training if len(info.loss_curve) > 1]
    if not recorded:
        return None
    named = sorted({info.model for info in recorded})

    def draw(plt):
        figure, axis = plt.subplots(figsize=(9.6, 3.6), layout="constrained")
        for info in recorded:
            look = {"color": colour_of(info.model), "linestyle": dash_of(info.model)}
            axis.plot(*zip(*info.loss_curve, strict=True), linewidth=1.5, alpha=0.85, **look)
        axis.set_xlabel("training step")
        axis.set_ylabel("loss")
        axis.grid(axis="y", color=plt.rcParams["text.color"], alpha=0.12)
        legend(figure, plt, named)
        return figure

    return Picture(
        name="loss",
        alt=f"Training loss over steps of {names_of(named)}.",
        draw=draw,
        caption="Training loss, a line for each training. Models that see changing scales have the harder task, so a "
        "higher loss is expected and says little about the features.",
    )


def overview_png(
    rows: Sequence[Row], *, dataset: str | None = None, chance: float | None = None
) -> bytes:
    """The README's picture: accuracy over size beside the map of differences, on white."""
    dataset = main_dataset(rows) if dataset is None else dataset
    rows = select(rows, dataset=dataset, model=("vanilla", "static_tokens"), metric="top1")
    with style("#1b2430") as plt:
        grid = cells_of(rows, dataset=dataset)
        frames, sizes = (sorted({key[i] for key in grid}) for i in (1, 2))
        models = models_of(rows)
        both = len(models) == 2
        figure, axes = plt.subplots(
            1, 1 + both, figsize=(12, 4.8), layout="constrained", squeeze=False,
            width_ratios=(1.15, 1) if both else None,
        )  # fmt: skip
        left = axes.flat[0]
        figure.set_facecolor("white")
        size_lines(left, grid, models, frames, frames, one_each=False)
        finish_size_axis(left, plt, grid, chance, "top1")
        left.set_title(f"{dataset}: retrieval accuracy", loc="left")
        if both:
            base, mine = ([[grid[m, t, s] for s in sizes] for t in frames] for m in models)
            difference_map(axes.flat[1], plt, mine, base, title=difference_title(*reversed(models)))
            label_axes(axes.flat[1], frames, sizes)
        legend(figure, plt, models, frames, chance=chance)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
        plt.close(figure)
    return out.getvalue()
