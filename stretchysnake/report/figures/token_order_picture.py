"""How patches of frames become one sequence, and both directions of the scan."""

from __future__ import annotations

from collections.abc import Sequence

from stretchysnake.report.figures.picture import Picture

Patch = tuple[int, int, int]
"""Frame, row, column."""
# One tint for each frame, lighter than any ink, and a grey for the class token.
_TINTS = ("#9CC9EC", "#F2C879", "#A6DDB7", "#E7B3CE", "#CFC7F0", "#F3B29F")
_CLS = "#D5D8DC"
_TINTED_INK = "#1b2430"


def token_order_picture(
    order: Sequence[Patch | None], scans: dict[str, Sequence[int]], *, name: str = "token-order"
) -> Picture:
    """order: the patch of every token, None for [CLS]; scans: direction -> tokens in the order they are read.

    Every token's box has an id `token-PLACE-tT-hH-wW` (`token-PLACE-cls`) in the SVG, each scan an id
    `scan-NAME-from-FIRST-to-LAST`, so that a test can read the drawing.
    """
    patches = [patch for patch in order if patch is not None]
    frames, rows, columns = (max(patch[axis] for patch in patches) + 1 for axis in range(3))

    def draw(plt):
        length = len(order)
        figure, axis = plt.subplots(figsize=(9.6, 9.6 * (5.3 + rows) / length))
        axis.set_xlim(-0.15, length + 0.15)
        axis.set_ylim(0.3, 5.6 + rows)
        axis.set_aspect("equal")
        axis.set_axis_off()
        strip = 2.0
        for place, patch in enumerate(order):
            gid = f"token-{place}-" + ("cls" if patch is None else "t{}-h{}-w{}".format(*patch))
            words = "CLS" if patch is None else "{},{},{}".format(*patch)
            _box(axis, plt, place, strip, patch, str(place), gid=gid)
            axis.text(place + 0.48, strip - 0.12, words, ha="center", va="top", fontsize=9)
        words = "below each token: frame t, row h, column w of its patch"
        axis.text(0, strip - 0.55, words, ha="left", va="top", fontsize=10)
        bottom = strip + 2.35
        step = max(columns + 1.6, (length - columns) / max(1, frames - 1) * 0.62)
        start = (length - (step * (frames - 1) + columns)) / 2
        for place, patch in enumerate(order):
            if patch is not None:
                t, h, w = patch
                _box(axis, plt, start + t * step + w, bottom + rows - 1 - h, patch, str(place))
        for t in range(frames):
            middle, above = start + t * step + columns / 2, bottom + rows
            words = f"each + E_pos[h, w] + E_temp[{t}]"
            axis.text(middle, above + 0.1, words, ha="center", va="bottom", fontsize=10)
            axis.text(
                middle, above + 0.5, f"frame t = {t}", ha="center", va="bottom", weight="bold"
            )
        ink = plt.rcParams["text.color"]
        for line, (direction, read) in enumerate(scans.items()):
            y = strip + 1.45 if line == 0 else strip - 1.25
            gid = f"scan-{direction}-from-{read[0]}-to-{read[-1]}"
            axis.annotate(
                "",
                (read[-1] + 0.48, y),
                xytext=(read[0] + 0.48, y),
                arrowprops={"arrowstyle": "-|>", "color": ink, "lw": 2, "mutation_scale": 18},
                gid=gid,
            )
            ends = [
                "[CLS]" if order[end] is None else f"token {end}" for end in (read[0], read[-1])
            ]
            words = f"{direction} scan: {ends[0]} first, {ends[1]} last"
            offset, side = (0.12, "bottom") if line == 0 else (-0.15, "top")
            axis.text(
                length / 2, y + offset, words, ha="center", va=side, fontsize=11, gid=f"{gid}-words"
            )
        return figure

    return Picture(
        name=name,
        alt=f"{frames} frames of {rows} by {columns} patches, numbered in the order of the sequence: [CLS] is token 0, "
        "then frame after frame, row by row. One arrow reads the sequence forwards, one backwards.",
        draw=draw,
        caption="The number of a patch is its place in the sequence.",
    )


def _box(axis, plt, x: float, y: float, patch: Patch | None, words: str, gid: str | None = None):
    face = _CLS if patch is None else _TINTS[patch[0] % len(_TINTS)]
    box = plt.Rectangle(
        (x, y), 0.96, 0.96, facecolor=face, edgecolor="#5a6675", linewidth=0.8, gid=gid
    )
    axis.add_patch(box)
    centre = (x + 0.48, y + 0.48)
    axis.text(*centre, words, ha="center", va="center", fontsize=13, color=_TINTED_INK)
