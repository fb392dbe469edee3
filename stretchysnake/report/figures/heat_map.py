"""Maps over (num_frames, size) drawn as squares with numbers on given axes."""

from __future__ import annotations

from collections.abc import Sequence

from stretchysnake.report.tables.cells import CellMean, label

NATIVE = "#D55E00"
_BEHIND, _EVEN, _AHEAD = (0, 0.447, 0.698), (0.957, 0.957, 0.949), (0, 0.62, 0.451)


def accuracy_map(axis, plt, cells: Sequence[Sequence[CellMean]], *, title: str) -> None:
    """One model's accuracies; cells by num_frames, then size. The colour scale is 0 to 100 %."""
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            text = {"oom": "OOM", "ok": f"{100 * (cell.value or 0):.0f}"}.get(cell.status, "–")
            fill = plt.get_cmap("viridis")(cell.value)[:3] if cell.value is not None else None
            _square(axis, plt, x, y, text, fill, trained=cell.trained, native=cell.native)
    _finish(axis, cells, title)


def difference_map(axis, plt, cells, others, *, title: str) -> None:
    """cells minus others: green ahead, blue behind, palest at no difference."""
    deltas = [
        [None if c.value is None or o.value is None else c.value - o.value for c, o in pairs]
        for pairs in (zip(*lines, strict=True) for lines in zip(cells, others, strict=True))
    ]
    most = max((abs(d) for line in deltas for d in line if d is not None), default=0) or 1
    for y, line in enumerate(deltas):
        for x, delta in enumerate(line):
            text, fill = "–", None
            if delta is not None:
                text = f"{round(100 * delta):+d}".replace("-", "−").replace("+0", "0")
                end, share = (_AHEAD if delta > 0 else _BEHIND), abs(delta) / most
                fill = tuple(e + share * (a - e) for e, a in zip(_EVEN, end, strict=True))
            _square(axis, plt, x, y, text, fill, trained=False, native=cells[y][x].native)
    _finish(axis, cells, title)


def label_axes(axis, frames: Sequence[int], sizes: Sequence[int]) -> None:
    axis.set_xticks(range(len(sizes)), sizes)
    axis.set_yticks(range(len(frames)), frames)
    axis.set_xlabel("size S (pixels)")
    axis.set_ylabel("frames T")


def difference_title(model: str, baseline: str) -> str:
    return f"Δ = {label(model)} − {label(baseline)}"


def readable_on(fill: Sequence[float]) -> str:
    """black or white, whichever stands out more on an sRGB colour; its contrast is at least 4.5 (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in fill]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "black" if luminance > 0.179 else "white"


def _square(axis, plt, x, y, text, fill, *, trained: bool, native: bool) -> None:
    ink = plt.rcParams["text.color"]
    patch = plt.Rectangle(
        (x - 0.45, y - 0.42),
        0.9,
        0.84,
        facecolor=fill or (ink, 0.07),
        edgecolor=NATIVE if native else ink if trained else "none",
        linewidth=3 if native else 1.6,
    )
    axis.add_patch(patch)
    colour = ink
    if fill is not None:
        colour = readable_on(fill)
    weight = "bold" if native else "normal"
    axis.text(x, y, text, ha="center", va="center", color=colour, weight=weight)


def _finish(axis, cells, title: str) -> None:
    axis.set_title(title, loc="left")
    axis.set_xlim(-0.55, len(cells[0]) - 0.45)
    axis.set_ylim(-0.55, len(cells) - 0.45)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
