"""t-SNE of [CLS] features, a panel for each size and model (paper A14-A21)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stretchysnake.report.figures.picture import CLASS_COLOURS, MARKERS, Picture
from stretchysnake.report.tables.cells import label

LOOKS = len(CLASS_COLOURS) * len(MARKERS)


@dataclass(frozen=True)
class PlanePoints:
    """One panel: places (n, 2) of the videos and their labels (n,)."""

    places: np.ndarray
    labels: np.ndarray
    top1: float
    """Share of videos whose nearest other video has the same class, in the features themselves."""


def feature_map_picture(
    name: str,
    panels: Mapping[tuple[str, int], PlanePoints],
    *,
    class_names: Mapping[int, str],
    num_expected: int,
    title: str,
    settings: str,
) -> Picture:
    """panels by (subject, size): a row for each subject, a column for each size.

    class_names by label. A class has one colour and marker in every panel; with more classes than both make,
    LOOKS, they repeat and there is no legend.
    """
    subjects = list(dict.fromkeys(subject for subject, _ in panels))
    sizes = list(dict.fromkeys(size for _, size in panels))
    count = min(len(panel.labels) for panel in panels.values())
    again = f" {len(class_names)} classes: looks repeat." if len(class_names) > LOOKS else ""

    def draw(plt):
        columns = len(sizes)
        side = 9.6 / max(columns, 2)
        legend = len(class_names) <= LOOKS
        figure, axes = plt.subplots(
            len(subjects),
            columns,
            figsize=(side * columns, (side + 0.35) * len(subjects) + 0.5),
            squeeze=False,
            layout="constrained",
        )
        for row, subject in enumerate(subjects):
            for column, size in enumerate(sizes):
                axis = axes[row, column]
                _points(axis, panels[subject, size])
                axis.set_title(
                    f"{label(subject)}, S = {size}\nnearest is of its class: {100 * panels[subject, size].top1:.0f} %",
                    fontsize=9.5,
                    weight="normal",
                    loc="left",
                )
        if legend:
            handles = [
                plt.Line2D([], [], linestyle="none", markersize=7, label=text, **_look(number))
                for number, text in class_names.items()
            ]
            longest = max(map(len, class_names.values()), default=1)
            figure.legend(
                handles=handles,
                loc="outside lower center",
                ncols=max(1, min(10, len(handles), 90 // (longest + 4))),
                fontsize=10,
                handletextpad=0.2,
                columnspacing=1,
            )
        return figure

    return Picture(
        name=name,
        alt=f"t-SNE of the class tokens of {count} videos of {title} for {', '.join(map(label, subjects))} at "
        f"{', '.join(map(str, sizes))} pixels.",
        draw=draw,
        caption=f"t-SNE of the [CLS] features of {count} of {num_expected} videos of {title}; colour and marker: "
        f"class.{again} {settings} The percentage is measured in the features, by cosine, each video against all "
        "others. Distances between clusters in a t-SNE mean nothing.",
    )


def _look(number: int) -> dict:
    turn, place = divmod(number, len(CLASS_COLOURS))
    marker = MARKERS[(place + turn) % len(MARKERS)]
    return {"color": CLASS_COLOURS[place], "marker": marker}


def _points(axis, panel: PlanePoints) -> None:
    for number in np.unique(panel.labels):
        here = panel.places[panel.labels == number]
        axis.plot(
            *here.T,
            linestyle="none",
            markersize=4.5,
            markeredgecolor="#3a3a3a",
            markeredgewidth=0.3,
            **_look(int(number)),
        )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(True)
    axis.spines[:].set_alpha(0.35)
