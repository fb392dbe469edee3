"""Retrieval, linear probe and fine-tuning as bars (paper Fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence

from stretchysnake.report.figures.picture import Picture, colour_of, names_of
from stretchysnake.report.tables.cells import (
    CellMean,
    cells_of,
    datasets_of,
    label,
    models_of,
    percent,
)
from stretchysnake.report.tables.plain_table import PlainTable
from stretchysnake.results.rows import Row, native_cells, select

NAMES = {
    "retrieval": "retrieval",
    "probe": "linear probe",
    "probe-sgd": "linear probe by SGD",
    "finetune": "fine-tuning",
}
PROTOCOLS = tuple(NAMES)
_HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++")


def protocol_cells(rows: Sequence[Row]) -> dict[tuple[str, str, str], CellMean]:
    """top1 by (protocol, data set, model) at vanilla's training scale; where a protocol was not measured there,
    at its scale nearest to it that most models share.

    The paper fine-tunes at T = 16, S = 224, vanilla's scale, and does not name the probe's; we show all
    three at that one scale because a bar chart has room for one.
    """
    by_place = {}
    for protocol in PROTOCOLS:
        chosen = select(rows, protocol=protocol, metric="top1")
        for dataset in datasets_of(chosen):
            cells = {
                k: c for k, c in cells_of(chosen, dataset=dataset).items() if c.value is not None
            }
            place = _place(cells, native_cells(rows))
            for (model, *at), cell in cells.items():
                if tuple(at) == place:
                    by_place[protocol, dataset, model] = cell
    return by_place


def _place(cells: dict, native: set[tuple[int, int]]) -> tuple[int, int] | None:
    places = [key[1:] for key in cells]
    if not places:
        return None
    home = min(native) if native else None
    distance = {p: sum(abs(a - b) for a, b in zip(p, home or p, strict=True)) for p in set(places)}
    return min(distance, key=lambda p: (distance[p] > 0, -places.count(p), distance[p], p))


def protocol_bars(rows: Sequence[Row]) -> Picture | None:
    """A panel for each protocol, groups of bars for each data set; None with fewer than two protocols."""
    cells = protocol_cells(rows)
    protocols = [p for p in PROTOCOLS if any(key[0] == p for key in cells)]
    if len(protocols) < 2:
        return None
    datasets = list(dict.fromkeys(key[1] for key in cells))
    models = models_of([row for row in rows if any(row.model == key[2] for key in cells)])

    measured_with = {
        p: [m for m in models if any(key[::2] == (p, m) for key in cells)] for p in protocols
    }

    def draw(plt):
        wide = len(models) * len(datasets) > 8
        shape = (len(protocols), 1) if wide else (1, len(protocols))
        size = (9.6, 2.9 * len(protocols) + 0.6) if wide else (9.6, 4.6)
        figure, axes = plt.subplots(
            *shape, figsize=size, sharey=True, squeeze=False, layout="constrained"
        )
        for axis, protocol in zip(axes.flat, protocols, strict=True):
            measured = [d for d in datasets if any(k[:2] == (protocol, d) for k in cells)]
            _bars(axis, plt, cells, protocol, measured, models, measured_with[protocol])
            axis.set_title(NAMES[protocol], loc="left")
            axis.set_ylabel("top1 (%)")
            axis.label_outer(remove_inner_ticks=False)
            axis.tick_params(labelbottom=True)
        handles = [
            plt.Rectangle((0, 0), 1, 1, label=label(m), **_look(plt, models, m)) for m in models
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(models)))
        return figure

    partly = [
        f" {NAMES[p].capitalize()}: {names_of(measured_with[p])} alone."
        for p in protocols
        if measured_with[p] != models
    ]
    scales = sorted({(c.num_frames, c.size) for c in cells.values()})
    at = ", ".join(f"T = {t}, S = {s} px" for t, s in scales)
    return Picture(
        name="protocols",
        alt=f"Bars of top1 of {names_of(models)} for {', '.join(NAMES[p] for p in protocols)} "
        f"on {', '.join(datasets)}.",
        draw=draw,
        caption=f"top1 by protocol and data set, measured at {at}. Lines on the bars: 95 % interval, over seeds where "
        f"there are two or more, else over queries.{''.join(partly)}",
    )


def _look(plt, models, model) -> dict:
    return {
        "facecolor": colour_of(model),
        "edgecolor": "white",
        "hatch": _HATCHES[models.index(model) % len(_HATCHES)],
        "linewidth": 0,
    }


def _bars(axis, plt, cells, protocol, datasets, models, measured) -> None:
    """Bars of the measured ones of the models; a hole among them says so."""
    width = min(0.27, 0.8 / len(measured))
    ink = plt.rcParams["text.color"]
    many = len(measured) * len(datasets) > 18
    for group, dataset in enumerate(datasets):
        for index, model in enumerate(measured):
            cell = cells.get((protocol, dataset, model))
            x = group + (index - (len(measured) - 1) / 2) * width
            if cell is None:
                axis.annotate(
                    "not measured", (x, 2), rotation=90, ha="center", va="bottom", fontsize=9
                )
                continue
            axis.bar(x, 100 * cell.value, 0.92 * width, **_look(plt, models, model))
            top = 100 * cell.value
            if cell.low is not None:
                axis.plot([x, x], [100 * cell.low, 100 * cell.high], color=ink, linewidth=1.3)
                top = 100 * cell.high
            if not many:
                axis.annotate(
                    percent(cell.value),
                    (x, top),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    fontsize=9.5,
                )
    axis.set_xticks(range(len(datasets)), [name.split("/")[-1] for name in datasets])
    axis.tick_params(axis="x", length=0)
    axis.set_ylim(0, 105)
    axis.set_xlim(-0.5, len(datasets) - 0.5)
    axis.grid(axis="y", color=ink, alpha=0.12)
    axis.set_axisbelow(True)


def protocol_table(rows: Sequence[Row]) -> PlainTable | None:
    """The bars' numbers with their scale, queries, seeds and intervals; None with fewer than two protocols."""
    cells = protocol_cells(rows)
    if len({key[0] for key in cells}) < 2:
        return None
    datasets = datasets_of(rows)
    lines = [
        (
            dataset,
            NAMES[protocol],
            label(model),
            f"{cell.num_frames} × {cell.size} px",
            f"{percent(cell.value)} [{percent(cell.low)}, {percent(cell.high)}]",
            f"{cell.num_queries} of {cell.num_expected}",
            str(cell.num_seeds),
        )
        for (protocol, dataset, model), cell in cells.items()
    ]
    return PlainTable(
        name="figure-4",
        title="Retrieval, linear probe and fine-tuning, top1, percent (paper Fig. 4)",
        head=("data set", "protocol", "model", "T, S", "ours", "queries", "seeds"),
        rows=tuple(sorted(lines, key=lambda line: datasets.index(line[0]))),
        note="Brackets: 95 % interval, over seeds and queries, of one seed over queries alone. The paper's Figure 4 "
        "prints no numbers, so there is no difference to give.",
    )
