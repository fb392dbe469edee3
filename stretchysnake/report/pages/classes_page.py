"""One self-contained HTML page of classified videos: the most probable classes, and the frames looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stretchysnake.report.pages.embedded import (
    PAGE_BYTES,
    data_url,
    embedded_bytes,
    file_uri,
    that_fit,
)
from stretchysnake.report.pages.template import filled
from stretchysnake.whole_file import write_whole


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
    sizes = [sum(embedded_bytes(jpeg) for _, jpeg in video.strips) for video in videos]
    kept = [
        video if fits else replace(video, strips=[])
        for video, fits in zip(videos, that_fit(sizes, page_bytes=page_bytes), strict=True)
    ]
    without = sum(bool(v.strips) and not k.strips for v, k in zip(videos, kept, strict=True))
    filters = {"name": lambda text: Path(text).name, "data_url": data_url, "uri": file_uri}
    page = filled(
        "classes_page.html.j2",
        filters,
        videos=kept,
        facts=facts,
        failures=failures,
        without=without,
    )
    write_whole(path, page)
