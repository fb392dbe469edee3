"""One self-contained HTML page of search results: the query, and each hit with its place, score and frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stretchysnake.report.pages.embedded import (
    PAGE_BYTES,
    data_url,
    embedded_bytes,
    file_uri,
    that_fit,
)
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
    preview_mp4: bytes | None = None
    """Some seconds of it to play inside the page."""
    preview_start: float = 0.0
    preview_end: float | None = None


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
    share_below: float | None = None
    """The share of random pairs of the index that score less; None where it is not known."""

    @property
    def meaning(self) -> str:
        """What the score means for these weights, in words; "" where that is not known."""
        if self.share_below is None:
            return ""
        if self.share_below >= 1:
            return "higher than every random pair of the index"
        return f"higher than {100 * self.share_below:.1f} % of random pairs of the index"


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
    query: ShownVideo,
    hits: Sequence[ShownHit],
    *,
    facts: Sequence[tuple[str, str]],
    spread: str = "",
    page_bytes: int = PAGE_BYTES,
) -> str:
    """The page as HTML text; every text is escaped, nothing outside the file is loaded.

    `spread` says in words how random pairs score. Previews are inside while the page stays below page_bytes, those of
    the query and of the nearest hits first.
    """
    videos = [query, *(hit.video for hit in hits)]
    strips = sum(embedded_bytes(video.strip_png or b"") for video in videos)
    sizes = [embedded_bytes(video.preview_mp4 or b"") for video in videos]
    videos = [
        video if fits else replace(video, preview_mp4=None)
        for video, fits in zip(
            videos, that_fit(sizes, taken=strips, page_bytes=page_bytes), strict=True
        )
    ]
    query, hits = videos[0], [replace(h, video=v) for h, v in zip(hits, videos[1:], strict=True)]
    filters = {
        "clock": clock,
        "name": lambda path: Path(path).name,
        "data_url": data_url,
        "uri": file_uri,
    }
    shown_values = {"query": query, "hits": hits, "facts": facts, "spread": spread}
    return filled("search_page.html.j2", filters, **shown_values, time_range=time_range)


def write_search_page(
    path: str | Path,
    query: ShownVideo,
    hits: Sequence[ShownHit],
    *,
    facts: Sequence[tuple[str, str]],
    spread: str = "",
) -> None:
    """Write the page, whole or not at all; `facts` are (name, value) lines at its foot."""
    write_whole(path, render_search_page(query, hits, facts=facts, spread=spread))
