"""Patch activations laid over the frames of a video, sizes and models below each other (paper A22-A37)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stretchysnake.report.figures.picture import Picture
from stretchysnake.report.tables.cells import label

MOST_FRAMES = 8
BLACK = 16
"""Frames whose brightest pixel is not above it are black: the black level of video."""


def shown_frames(frames: np.ndarray) -> tuple[list[int], int]:
    """(places of the frames to draw, number of black ones left out) of frames (T, H, W, 3).

    As in the paper black frames are left out and every other frame is shown, in the interest of space;
    paper does not say what counts as black. We skip frames only where more than MOST_FRAMES are left, and
    then as many as it takes.
    """
    lit = [t for t in range(len(frames)) if frames[t].max() > BLACK] or list(range(len(frames)))
    step = -(-len(lit) // MOST_FRAMES)
    return lit[::step], len(frames) - len(lit)


def activation_picture(
    name: str,
    maps: Mapping[tuple[str, int], np.ndarray],
    frames: Mapping[tuple[str, int], np.ndarray],
    *,
    title: str,
    frame_numbers: Sequence[int] | None = None,
) -> Picture:
    """maps (t, h, w) and frames (T, S, S, 3) by (subject, size); t divides T.

    frame_numbers are the T frames' places in the video, by default 0 to T − 1. For each size a line of frames,
    then one for each subject with its activations over them. One colour scale for the whole picture, from
    its 1st to its 99th percentile.
    """
    subjects = list(dict.fromkeys(subject for subject, _ in maps))
    sizes = list(dict.fromkeys(size for _, size in maps))
    first = frames[subjects[0], sizes[-1]]
    places, black = shown_frames(first)
    numbers = range(len(first)) if frame_numbers is None else frame_numbers
    everything = np.concatenate([activation.ravel() for activation in maps.values()])
    low, high = (float(np.percentile(everything, q)) for q in (1, 99))

    def draw(plt):
        block = 1 + len(subjects)
        columns = len(places)
        width, left = 9.6, 1.5
        side = (width - left) / max(columns, 4)
        gaps = [0.16 if row % block == 0 else 0.03 for row in range(len(sizes) * block)]
        height = len(gaps) * side + sum(gaps) + 0.2 + 0.75
        figure = plt.figure(figsize=(width, height))
        top, mesh = height - 0.2, None
        for row, gap in enumerate(gaps):
            size, which = sizes[row // block], row % block
            subject = subjects[max(0, which - 1)]
            top -= gap + side
            box = (left / width, top / height, columns * side / width, side / height)
            axis = figure.add_axes(box)
            for column, t in enumerate(places):
                _frame(axis, frames[subject, size][t], column, grey=which > 0)
                if which:
                    activation = maps[subject, size]
                    activation = activation[
                        t * len(activation) // len(frames[subject, size])
                    ]  # t's tubelet
                    mesh = _overlay(axis, activation, column, low, high)
                if row == 0:
                    words = f"frame {numbers[t] + 1}"
                    axis.text(column + 0.49, -0.05, words, ha="center", va="bottom", fontsize=10)
            axis.set_xlim(0, columns)
            axis.set_ylim(1, 0)
            axis.set_axis_off()
            figure.text(
                (left - 0.08) / width,
                (top + side / 2) / height,
                label(subject) if which else f"S = {size} px",
                ha="right",
                va="center",
                fontsize=11,
                weight="normal" if which else "bold",
            )
        bar = figure.add_axes((0.3, 0.36 / height, 0.5, 0.13 / height))
        figure.colorbar(
            plt.cm.ScalarMappable(mesh.norm, mesh.cmap), cax=bar, orientation="horizontal"
        ).outline.set_visible(False)
        bar.tick_params(labelsize=10)
        bar.set_title("cosine of the patch with [CLS]", fontsize=10, weight="normal", pad=3)
        return figure

    left_out = f" {black} black frames are not shown." if black else ""
    return Picture(
        name=name,
        alt=f"Frames of {title} with the activation of every patch laid over them, for "
        f"{', '.join(map(label, subjects))} at {', '.join(map(str, sizes))} pixels.",
        draw=draw,
        caption=f"{title}: {len(places)} of {len(first)} frames at each size S, and over them the cosine of each patch "
        f"token of the last layer with the clip's [CLS] token, from {low:.2f} (dark) to {high:.2f} (bright); one "
        f"scale for the whole picture.{left_out}",
    )


def _frame(axis, frame: np.ndarray, column: int, *, grey: bool) -> None:
    """In colour, or in a narrow range of greys below a map: black and white would change the map's colours."""
    place = (column, column + 0.97, 0.97, 0)
    if not grey:
        axis.imshow(frame, extent=place, aspect="auto")
        return
    light = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    axis.imshow(light, cmap="gray", vmin=-200, vmax=455, extent=place, aspect="auto")


def _overlay(axis, activation: np.ndarray, column: int, low: float, high: float):
    """One frame's map (h, w), its patches with hard edges."""
    return axis.imshow(
        activation,
        cmap="inferno",
        vmin=low,
        vmax=high,
        alpha=0.7,
        extent=(column, column + 0.97, 0.97, 0),
        aspect="auto",
        interpolation="nearest",
    )
