"""Accuracy over frame size, a line for each model and number of frames (paper Fig. 3 and A13)."""

from __future__ import annotations

from collections.abc import Sequence

from stretchysnake.report.figures.picture import (
    DASHES,
    MARKERS,
    Picture,
    colour_of,
    dash_of,
    legend,
    marker_of,
    names_of,
)
from stretchysnake.report.tables.cells import cells_of, models_of
from stretchysnake.results.rows import Row


def accuracy_over_size(
    rows: Sequence[Row],
    *,
    dataset: str,
    chance: float | None = None,
    metric: str = "top1",
    name: str = "size",
) -> Picture | None:
    """Colour is the model; one or two models share a panel for all T, more get a panel for each T.

    Shades are ± one standard deviation over seeds. None when nothing was measured: an axis would be empty.
    """
    grid = cells_of(rows, dataset=dataset, metric=metric)
    models = models_of([row for row in rows if row.dataset == dataset])
    frames = sorted({key[1] for key in grid if any(_measured(grid, frames=key[1]))})
    if not frames:
        return None
    apart = len(models) > 2  # a panel for each T keeps lines countable
    panels = [[t] for t in frames] if apart else [frames]

    def draw(plt):
        columns = min(2, len(panels))
        lines = -(-len(panels) // columns)
        figure, axes = plt.subplots(
            lines,
            columns,
            figsize=(9.6, 4.6 if lines == 1 else 3.6 * lines),
            squeeze=False,
            sharey=True,
            layout="constrained",
        )
        for axis, shown in zip(axes.flat, panels, strict=False):
            size_lines(axis, grid, models, shown, frames, one_each=apart)
            finish_size_axis(axis, plt, grid, chance, metric)
            if apart:
                axis.set_title(f"T = {shown[0]}", loc="left")
            axis.label_outer(remove_inner_ticks=False)
            axis.tick_params(labelbottom=True)
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        legend(figure, plt, models, [] if apart else frames, chance=chance, one_each=apart)
        return figure

    seeds = {row.seed for row in rows if row.dataset == dataset}
    bands = ", shades are ± one standard deviation over seeds" if len(seeds) > 1 else ""
    marks = "Colour, line and marker: model" if apart else "Colour: model; line and marker: frames"
    return Picture(
        name=f"{name}-{dataset}",
        dataset=dataset,
        alt=f"Lines of {metric} over frame size on {dataset} for {names_of(models)}.",
        draw=draw,
        caption=f"Accuracy over picture size on {dataset}. {marks}. Filled markers: scale seen in training, hollow: "
        f"never seen. The blue band is vanilla's training size{bands}"
        f"{', the dotted line is chance' if chance is not None else ''}.",
    )


def _measured(grid, *, frames: int):
    return (cell.value is not None for key, cell in grid.items() if key[1] == frames)


def size_lines(axis, grid, models, shown, frames, *, one_each: bool) -> None:
    """The lines of models at each num_frames of shown; frames fixes which dash a num_frames has."""
    for name in models:
        for t in shown:
            cells = [c for (m, f, _), c in grid.items() if (m, f) == (name, t)]
            cells = sorted((c for c in cells if c.value is not None), key=lambda c: c.size)
            index, colour = frames.index(t), colour_of(name)
            dash = dash_of(name) if one_each else DASHES[index % len(DASHES)]
            marker = marker_of(name) if one_each else MARKERS[index % len(MARKERS)]
            sizes = [c.size for c in cells]
            values = [100 * c.value for c in cells]
            axis.plot(sizes, values, color=colour, linestyle=dash, linewidth=2)
            banded = [c for c in cells if c.spread is not None]
            axis.fill_between(
                [c.size for c in banded],
                [100 * (c.value - c.spread) for c in banded],
                [100 * (c.value + c.spread) for c in banded],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
            for cell in cells:
                axis.plot(
                    cell.size,
                    100 * cell.value,
                    marker=marker,
                    color=colour,
                    markersize=7,
                    markeredgewidth=1.6,
                    fillstyle="full" if cell.trained else "none",
                    linestyle="none",
                )


def finish_size_axis(axis, plt, grid, chance: float | None, metric: str) -> None:
    """Ticks at the sizes measured, vanilla's training size as a band, chance as a dotted line."""
    sizes = sorted({key[2] for key in grid})
    ink = plt.rcParams["text.color"]
    axis.set_xscale("log", base=2)  # the paper's sizes crowd at the small end
    axis.minorticks_off()
    axis.set_xticks(sizes, sizes, rotation=45 if len(sizes) > 6 else 0)
    axis.set_xlabel("size S (pixels)")
    axis.set_ylabel(f"{metric} (%)")
    highest = max((c.value + (c.spread or 0) for c in grid.values() if c.status == "ok"), default=0)
    axis.set_ylim(0, max(5, min(108 * highest, 104)))
    axis.grid(axis="y", color=ink, alpha=0.12)
    for size in sorted({c.size for c in grid.values() if c.native}):
        axis.axvline(size, color=colour_of("vanilla"), alpha=0.16, linewidth=12, zorder=0)
    if chance is not None:
        axis.axhline(100 * chance, color=ink, linestyle=":", linewidth=1.4)
