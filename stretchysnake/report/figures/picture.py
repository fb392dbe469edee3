"""A picture: drawn once, given as SVG inside a page, as an SVG file and as PNG. The only matplotlib user."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from stretchysnake.report.figures.svg import inline_svg
from stretchysnake.report.file_names import file_name
from stretchysnake.report.tables.cells import label

# Six colours found by search: any two stay apart (CIE Lab distance >= 18) for normal sight, protanopia,
# deuteranopia and tritanopia, and each has a contrast >= 3 with the light and the dark page.
COLOURS = {
    "vanilla": "#0E6CB9",
    "static_tokens": "#009B60",
    "temporal": "#BC8A00",
    "static_patch": "#CD6592",
    "flexivit": "#C6402C",
    "flex_all": "#3996FF",
}
_OTHER = "#8A6D3B"
_MODEL_MARKERS = {
    "vanilla": "o",
    "static_tokens": "D",
    "temporal": "^",
    "static_patch": "s",
    "flexivit": "v",
    "flex_all": "P",
}
_MODEL_DASHES = {
    "vanilla": (0, (6, 2)),
    "static_tokens": "solid",
    "temporal": (0, (1.5, 1.5)),
    "static_patch": (0, (6, 2, 1, 2)),
    "flexivit": (0, (3, 1.5)),
    "flex_all": (0, (8, 2, 1, 2, 1, 2)),
}
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("solid", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)))
# Tol's muted palette for classes, so that no class has the colour of a model.
CLASS_COLOURS = (
    "#332288", "#CC6677", "#117733", "#DDCC77", "#882255",
    "#88CCEE", "#44AA99", "#999933", "#AA4499", "#6E6E6E",
)  # fmt: skip
INK = "#123456"  # replaced by currentColor, so that figures follow the page's light or dark text
_PAPER_INK, _PAPER_GROUND = "#1b2430", "white"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with its words; `draw(plt)` gives a matplotlib figure in the current style."""

    name: str
    """Name of its files, and prefix of its ids in the page."""
    alt: str
    """What is to be seen, for those who do not see it."""
    draw: Callable
    dataset: str = ""
    """The data set it is about; "" for several."""
    caption: str = ""
    """What the marks mean and what the numbers rest on."""

    def inline(self) -> str:
        """An <svg> element for a page: in the page's text colour, without a ground."""
        return self._drawn

    @cached_property
    def _drawn(self) -> str:
        text = self._saved(INK, "none", format="svg", metadata={"Date": None})
        return inline_svg(text.decode(), name=self.name, alt=self.alt, ink=INK)

    def svg(self) -> str:
        """An SVG file's text: dark on white, with alt as its description."""
        opening, body = self._drawn.split(">", 1)
        body = body.replace("currentColor", _PAPER_INK)
        ground = f'<rect width="100%" height="100%" fill="{_PAPER_GROUND}"/>'
        return f'<?xml version="1.0" encoding="utf-8"?>\n{opening}>{ground}{body}\n'

    def png(self, *, dpi: int = 120) -> bytes:
        """PNG bytes, dark on white; without a date, so that the same rows give the same bytes."""
        return self._saved(
            _PAPER_INK, _PAPER_GROUND, format="png", dpi=dpi, metadata={"Software": None}
        )

    def _saved(self, ink: str, ground: str, **how) -> bytes:
        out = io.BytesIO()
        with style(ink) as plt:
            figure = self.draw(plt)
            figure.savefig(out, bbox_inches="tight", pad_inches=0.06, facecolor=ground, **how)
            plt.close(figure)
        return out.getvalue()

    @property
    def file_name(self) -> str:
        """`name` with everything but letters, digits, dots and _ made a dash."""
        return file_name(self.name, otherwise="picture")


def pyplot():
    """matplotlib.pyplot drawing to memory; RuntimeError says what to install."""
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
def style(ink: str):
    """pyplot in our style, with texts and axes in the colour ink."""
    plt = pyplot()
    colours = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings = dict.fromkeys(colours, ink) | {
        "font.size": 12,
        "font.family": "DejaVu Sans",
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "legend.frameon": False,
        "legend.fontsize": 11,
        "svg.fonttype": "path",
        "svg.hashsalt": "stretchysnake",
        "text.parse_math": False,  # a $ in a data set's name is a dollar
    }
    with plt.rc_context({**plt.rcParamsDefault, **settings, "backend": "Agg"}):
        yield plt


def colour_of(model: str) -> str:
    """The model's colour, the same in every picture."""
    return COLOURS.get(model, _OTHER)


def marker_of(model: str) -> str:
    return _MODEL_MARKERS.get(model, "X")


def dash_of(model: str):
    return _MODEL_DASHES.get(model, (0, (1, 1)))


def names_of(models: Sequence[str]) -> str:
    """vanilla, temporal and static tokens"""
    words = [label(name) for name in models]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def legend(
    figure,
    plt,
    models,
    frames=(),
    *,
    chance: float | None = None,
    one_each=False,
    columns: int | None = None,
) -> None:
    """Below the figure: the models, then num_frames, then chance. one_each: a model has its own marker and dash."""
    handles = []
    for model in models:
        line_style = {"linestyle": dash_of(model), "marker": marker_of(model), "lw": 2, "ms": 7}
        look = line_style if one_each else {"lw": 3.5}
        handles.append(plt.Line2D([], [], color=colour_of(model), label=label(model), **look))
    ink = plt.rcParams["text.color"]
    for index, t in enumerate(frames):
        look = {"linestyle": DASHES[index % len(DASHES)], "marker": MARKERS[index % len(MARKERS)]}
        handles.append(plt.Line2D([], [], color=ink, label=f"T = {t}", **look))
    if chance is not None:
        handles.append(plt.Line2D([], [], color=ink, linestyle=":", label="chance"))
    columns = columns or (len(handles) if len(handles) <= 6 else 4)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        handlelength=3,
        columnspacing=1.4,
    )


def log_ticks(axis) -> None:
    """1, 2, 5 of each decade as plain numbers on a logarithmic x axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if axis.get_xscale() == "log":
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
