"""One self-contained HTML page of classified videos: the most probable classes, and the frames looked at."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stretchysnake.report.pages.template import filled
from stretchysnake.whole_file import write_whole

PAGE_BYTES = 10_000_000
"""Frames are left out of a page beyond this, and it says of how many videos: a browser opens it at once."""


@dataclass(frozen=True, kw_only=True)
class ShownClasses:
    """A video with its most probable classes, as the page and the terminal show them."""

    path: str
    best: list[tuple[str, float]]
    """(class, probability), most probable first."""
    strips: list[tuple[str, bytes]] = field(default_factory=list)
    """(what, JPEG) of each clip looked at, its frames in order of time."""


def write_classes_page(
    path: str | Path,
    videos: Sequence[ShownClasses],
    *,
    facts: Sequence[tuple[str, str]],
    failures: Sequence[str] = (),
    page_bytes: int = PAGE_BYTES,
) -> None:
    """Write the page, whole or not at all; `facts` are (name, value) lines at its foot, `failures` what was skipped."""
    left, kept = page_bytes, []
    for video in videos:
        size = sum(4 * len(jpeg) // 3 for _, jpeg in video.strips)
        fits = size <= left
        left -= size if fits else 0
        kept.append(video if fits else replace(video, strips=[]))
    without = sum(bool(v.strips) and not k.strips for v, k in zip(videos, kept, strict=True))
    filters = {"name": lambda text: Path(text).name, "jpeg": _data_url, "uri": file_uri}
    page = filled(
        "classes_page.html.j2",
        filters,
        videos=kept,
        facts=facts,
        failures=failures,
        without=without,
    )
    write_whole(path, page)


def file_uri(path: str, start: float | None = None, end: float | None = None) -> str:
    """The address of a file of this machine for a browser, which plays a part of a video where start (seconds) is."""
    uri = Path(path).absolute().as_uri()
    if start is None:
        return uri
    return f"{uri}#t={start:g}" if end is None else f"{uri}#t={start:g},{end:g}"


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
