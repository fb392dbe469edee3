"""One self-contained HTML page of search results: the query, and each hit with its place, score and frames."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stretchysnake.report.pages.template import filled
from stretchysnake.shown import shown
from stretchysnake.whole_file import write_whole


@dataclass(frozen=True, kw_only=True)
class ShownVideo:
    """A video, or a part of one, as the page and the terminal show it."""

    path: str
    start: float
    end: float | None
    """Seconds; None is the video's end."""
    strip_png: bytes | None
    """A few frames side by side; None where the file cannot be read now."""
    missing: str = ""
    """Why there is no strip."""


@dataclass(frozen=True, kw_only=True)
class ShownHit:
    """A hit with what is said of it."""

    video: ShownVideo
    score: float
    index: str
    class_name: str
    marks: tuple[str, ...]
    query_time: str
    """Which part of the query matched; "" for all of it."""


def clock(seconds: float) -> str:
    """Seconds as a player shows them: 0:07.5, 1:02:03."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"


def time_range(start: float, end: float | None) -> str:
    """The part of a video, in words."""
    if end is None:
        return "whole video" if start == 0 else f"{clock(start)} to the end"
    return f"{clock(start)} to {clock(end)}"


def text_lines(hits: Sequence[ShownHit]) -> list[str]:
    """The hits for a terminal, one line each."""
    lines = []
    for number, hit in enumerate(hits, 1):
        marks = f"  [{', '.join(hit.marks)}]" if hit.marks else ""
        place = time_range(hit.video.start, hit.video.end)
        lines.append(f"{number:>3}  {hit.score:.4f}  {shown(hit.video.path)}  {place}{marks}")
    return lines


def render_search_page(
    query: ShownVideo, hits: Sequence[ShownHit], *, facts: Sequence[tuple[str, str]]
) -> str:
    """The page as HTML text; every text is escaped, nothing outside the file is loaded."""
    filters = {"clock": clock, "name": lambda path: Path(path).name, "data_url": _data_url}
    return filled(
        "search_page.html.j2", filters, query=query, hits=hits, facts=facts, time_range=time_range
    )


def write_search_page(
    path: str | Path,
    query: ShownVideo,
    hits: Sequence[ShownHit],
    *,
    facts: Sequence[tuple[str, str]],
) -> None:
    """Write the page, whole or not at all; `facts` are (name, value) lines at its foot."""
    write_whole(path, render_search_page(query, hits, facts=facts))


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
