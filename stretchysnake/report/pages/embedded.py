"""What a page carries inside itself, as data URLs below a limit, and the addresses of this machine's files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

PAGE_BYTES = 10_000_000
"""What may be left out of a page is left out beyond this, and the page says of how many: a browser opens it at once."""


def data_url(content: bytes, kind: str) -> str:
    """Content of a media type (image/png, video/mp4) inside a page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def embedded_bytes(content: bytes) -> int:
    """The bytes that content takes in a page."""
    return 4 * -(-len(content) // 3)


def that_fit(sizes: Sequence[int], *, taken: int = 0, page_bytes: int = PAGE_BYTES) -> list[bool]:
    """Which of these, in order, still fit into a page of which `taken` bytes are used; later small ones may."""
    fits = []
    for size in sizes:
        fits.append(taken + size <= page_bytes)
        taken += size if fits[-1] else 0
    return fits


def file_uri(path: str, start: float = 0.0, end: float | None = None) -> str:
    """The address of a video of this machine, which a browser plays from `start` to `end` (seconds)."""
    uri = Path(path).absolute().as_uri()
    if start == 0 and end is None:
        return uri
    return f"{uri}#t={start:g}" if end is None else f"{uri}#t={start:g},{end:g}"
