"""Figures as SVG strings and one PNG: the same rows give the same bytes. Only matplotlib user."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import contextmanager

from stretchysnake.report.cells import Cell, cells_of, label, main_dataset, models_of
from stretchysnake.report.headlines import headlines
from stretchysnake.report.heat_map import (
    NATIVE,
    accuracy_map,
    difference_map,
    difference_title,
    label_axes,
)
from stretchysnake.report.svg import inline_svg
from stretchysnake.results import Row, select

# Okabe and Ito's palette, told apart with every common kind of colour blindness.
COLOURS = {
    "vanilla": "#0072B2",
    "static_tokens": "#009E73",
    "temporal": "#E69F00",
    "static_patch": "#CC79A7",
    "flexivit": "#D55E00",
    "flex_all": "#56B4E9",
}
_OTHER = "#8A6D3B"
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("solid", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)))
_INK = "#123456"  # replaced by currentColor, so that figures follow the page's light or dark text


def _pyplot():
    try:
        import matplotlib
    except ImportError:
        raise RuntimeError(
            "matplotlib is not installed; figures need it: pip install 'stretchysnake[report]'"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


@contextmanager
def _style(ink: str):
    plt = _pyplot()
    colours = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style = dict.fromkeys(colours, ink) | {
        "font.size": 11,
        "font.family": "DejaVu Sans",
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "legend.frameon": False,
        "legend.fontsize": 10,
        "svg.fonttype": "path",
        "svg.hashsalt": "stretchysnake",
        "text.parse_math": False,  # a $ in a data set's name is a dollar
    }
    with plt.rc_context({**plt.rcParamsDefault, **style, "backend": "Agg"}):
        yield plt


def _ink() -> str:
    return _pyplot().rcParams["text.color"]


def _svg(figure, plt, *, name: str, alt: str) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", pad_inches=0.06, metadata={"Date": None})
    plt.close(figure)
    return inline_svg(out.getvalue(), name=name, alt=alt, ink=_INK)


def heat_maps(
    rows: Sequence[Row],
    *,
    dataset: str,
    baseline: str = "vanilla",
    model: str = "static_tokens",
    metric: str = "top1",
) -> str:
    """Accuracy over (num_frames, size), a map for each of two models, and their difference."""
    with _style(_INK) as plt:
        grid = cells_of(rows, dataset=dataset, metric=metric)
        frames, sizes = (sorted({key[i] for key in grid}) for i in (1, 2))
        maps = [name for name in (baseline, model) if any(key[0] == name for key in grid)]
        cells = {m: [[grid[m, t, s] for s in sizes] for t in frames] for m in maps}
        panels = len(maps) + (len(maps) == 2) or 1
        shape = (panels, 1) if len(sizes) > 5 else (1, panels)
        figure, axes = plt.subplots(
            *shape,
            figsize=(9.6, (0.9 + 0.46 * len(frames)) * shape[0]),
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
        alt = f"Heat maps of {metric} on {dataset} over frames and size for {_names(maps)}."
        return _svg(figure, plt, name=f"heat-{dataset}", alt=alt)


def _names(models: Sequence[str]) -> str:
    return " and ".join(label(name) for name in models)


def accuracy_over_size(
    rows: Sequence[Row], *, dataset: str, chance: float | None = None, metric: str = "top1"
) -> str:
    """Accuracy over size, a line for each model (colour) and num_frames (dash and marker)."""
    with _style(_INK) as plt:
        grid = cells_of(rows, dataset=dataset, metric=metric)
        models = list(dict.fromkeys(key[0] for key in grid))
        frames = sorted({key[1] for key in grid})
        apart = len(models) > 2 and len(frames) > 1  # a panel for each T keeps lines countable
        panels = [[t] for t in frames] if apart else [frames]
        columns = min(2, len(panels))
        lines = -(-len(panels) // columns)
        figure, axes = plt.subplots(
            lines,
            columns,
            figsize=(9.6, 4.4 if lines == 1 else 3.4 * lines),
            squeeze=False,
            sharex=True,
            sharey=True,
            layout="constrained",
        )
        for axis, shown in zip(axes.flat, panels, strict=False):
            _size_lines(axis, grid, models, shown, frames)
            _finish_size_axis(axis, grid, chance, metric)
            if apart:
                axis.set_title(f"T = {shown[0]}", loc="left")
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        _legend(figure, models, [] if apart else frames, chance=chance)
        alt = f"Lines of {metric} over frame size on {dataset} for {_names(models)}."
        return _svg(figure, plt, name=f"size-{dataset}", alt=alt)


def _size_lines(axis, grid, models, shown, frames) -> None:
    for name in models:
        for t in shown:
            cells = [c for (m, f, _), c in grid.items() if (m, f) == (name, t)]
            cells = sorted((c for c in cells if c.value is not None), key=lambda c: c.size)
            colour = COLOURS.get(name, _OTHER)
            index = frames.index(t)
            sizes = [c.size for c in cells]
            values = [100 * c.value for c in cells]
            axis.plot(
                sizes, values, color=colour, linestyle=_DASHES[index % len(_DASHES)], linewidth=2
            )
            if cells and all(c.spread is not None for c in cells):
                low = [100 * (c.value - c.spread) for c in cells]
                high = [100 * (c.value + c.spread) for c in cells]
                axis.fill_between(sizes, low, high, color=colour, alpha=0.14, linewidth=0)
            marker = _MARKERS[index % len(_MARKERS)]
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


def _finish_size_axis(axis, grid, chance: float | None, metric: str) -> None:
    sizes = sorted({key[2] for key in grid})
    axis.set_xticks(sizes, sizes)
    axis.set_xlabel("size S (pixels)")
    axis.set_ylabel(f"{metric} (%)")
    highest = max((c.value + (c.spread or 0) for c in grid.values() if c.status == "ok"), default=0)
    axis.set_ylim(0, max(5, min(108 * highest, 104)))
    axis.grid(axis="y", color=_ink(), alpha=0.12)
    for size in sorted({c.size for c in grid.values() if c.native}):
        axis.axvline(size, color=COLOURS["vanilla"], alpha=0.16, linewidth=12, zorder=0)
    if chance is not None:
        axis.axhline(100 * chance, color=_ink(), linestyle=":", linewidth=1.4)


def _legend(figure, models, frames, *, chance: float | None) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=COLOURS.get(m, _OTHER), lw=3, label=label(m)) for m in models]
    for index, t in enumerate(frames):
        marker, dash = _MARKERS[index % len(_MARKERS)], _DASHES[index % len(_DASHES)]
        style = {"color": _ink(), "linestyle": dash, "marker": marker}
        handles.append(Line2D([], [], **style, label=f"T = {t}"))
    if chance is not None:
        handles.append(Line2D([], [], color=_ink(), linestyle=":", label="chance"))
    columns = len(handles) if len(models) <= 2 and len(handles) <= 8 else 4
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def accuracy_over_cost(
    rows: Sequence[Row], *, dataset: str, chance: float | None = None, metric: str = "top1"
) -> str:
    """Accuracy over forward GFLOPs of a clip (log), each cell a point, the Pareto front a line."""
    with _style(_INK) as plt:
        grid = cells_of(rows, dataset=dataset, metric=metric)
        models = list(dict.fromkeys(key[0] for key in grid))
        figure, axis = plt.subplots(figsize=(9.6, 4.4), layout="constrained")
        for name in models:
            cells = [c for c in grid.values() if c.model == name and c.status == "ok" and c.gflops]
            colour = COLOURS.get(name, _OTHER)
            cells.sort(key=lambda c: (c.gflops, -c.value))
            cost, value = [c.gflops for c in cells], [100 * c.value for c in cells]
            axis.scatter(cost, value, s=34, color=colour, alpha=0.45, linewidths=0)
            front, best = [], -1.0
            for cell in cells:
                if cell.value > best:
                    best = cell.value
                    front.append(cell)
            x, y = [c.gflops for c in front], [100 * c.value for c in front]
            axis.plot(x, y, color=colour, linewidth=2.2, marker="o", markersize=6)
        found = headlines(rows, dataset=dataset, metric=metric).cost
        if found is not None:
            axis.axhline(
                100 * found.native.value, color=COLOURS["vanilla"], linestyle="--", linewidth=1.2
            )
            _name_cell(axis, found.native, "*", 15, (10, -18), "left")
            if found.cheapest is not None:
                _name_cell(axis, found.cheapest, "D", 8, (-9, 5), "right")
        if any(c.gflops for c in grid.values()):
            axis.set_xscale("log")
        _log_ticks(axis)
        axis.set_xlabel("GFLOPs of one clip (log scale)")
        axis.set_ylabel(f"{metric} (%)")
        axis.margins(x=0.09, y=0.12)
        axis.set_ylim(bottom=0)
        axis.grid(color=_ink(), alpha=0.12)
        if chance is not None:
            axis.axhline(100 * chance, color=_ink(), linestyle=":", linewidth=1.4)
        _legend(figure, models, [], chance=chance)
        alt = f"{metric} on {dataset} against the GFLOPs of a clip for {_names(models)}."
        return _svg(figure, plt, name=f"cost-{dataset}", alt=alt)


def _name_cell(axis, cell: Cell, marker: str, markersize: float, offset: tuple, side: str) -> None:
    at, colour = (cell.gflops, 100 * cell.value), COLOURS.get(cell.model, _OTHER)
    axis.plot(*at, marker=marker, markersize=markersize, color=NATIVE, zorder=5)
    text = f"{label(cell.model)}, T={cell.num_frames}, {cell.size} px"
    place = {"textcoords": "offset points", "ha": side, "fontsize": 10, "weight": "bold"}
    axis.annotate(text, at, xytext=offset, color=colour, **place)


def _log_ticks(axis) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if axis.get_xscale() == "log":
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())


def loss_curves(curves: Mapping[str, tuple[str, Sequence[tuple[int, float]]]]) -> str:
    """Training loss over steps; curves maps a name to (model, [(step, loss), ...])."""
    with _style(_INK) as plt:
        figure, axis = plt.subplots(figsize=(9.6, 3.4), layout="constrained")
        named = set()
        for model, points_ in curves.values():
            x, y = [step for step, _ in points_], [loss for _, loss in points_]
            text = label(model) if model not in named else None
            named.add(model)
            colour = COLOURS.get(model, _OTHER)
            axis.plot(x, y, color=colour, linewidth=1.6, alpha=0.85, label=text)
        axis.set_xlabel("training step")
        axis.set_ylabel("loss")
        axis.grid(axis="y", color=_ink(), alpha=0.12)
        if named:
            axis.legend(loc="upper right")
        return _svg(figure, plt, name="loss", alt=f"Training loss of {_names(sorted(named))}.")


def overview_png(
    rows: Sequence[Row], *, dataset: str | None = None, chance: float | None = None
) -> bytes:
    """The README's picture: accuracy over size beside the map of differences, on white."""
    dataset = main_dataset(rows) if dataset is None else dataset
    rows = select(rows, dataset=dataset, model=("vanilla", "static_tokens"), metric="top1")
    with _style("#1b2430") as plt:
        grid = cells_of(rows, dataset=dataset)
        frames, sizes = (sorted({key[i] for key in grid}) for i in (1, 2))
        models = models_of(rows)
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(12, 4.6), layout="constrained", width_ratios=(1.15, 1)
        )
        figure.set_facecolor("white")
        _size_lines(left, grid, models, frames, frames)
        _finish_size_axis(left, grid, chance, "top1")
        left.set_title(f"{dataset}: retrieval accuracy", loc="left")
        if len(models) == 2:
            base, mine = ([[grid[m, t, s] for s in sizes] for t in frames] for m in models)
            difference_map(right, plt, mine, base, title=difference_title(*reversed(models)))
            label_axes(right, frames, sizes)
        else:
            right.set_visible(False)
        _legend(figure, models, frames, chance=chance)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
        plt.close(figure)
    return out.getvalue()
