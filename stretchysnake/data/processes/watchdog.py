"""Signs of life of a decoding process: the limit on time is for each second of video, not for a file.

What reads or decodes says so here, and a process of `decoder_pool.py` tells its parent, which gives up a file only when
no more second of it came within the limit. A long video may take as long as it is; one that hangs does not.
Covered: whatever stands still between two signs. Not covered: a file that gives signs for ever, as a stream without end
does, and work that gives none (one picture that takes longer than the limit counts as hanging).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_MOST_PER_SECOND = 240
"""Frames that count as a second at most: headers promise rates of 1,000 and 60,000 frames per second, wrongly."""

_tell: Callable[[], None] | None = None


def tell(function: Callable[[], None] | None) -> None:
    """Call `function` at every sign of life of this process from now on; None: nobody listens, as at the start."""
    global _tell
    _tell = function


def alive() -> None:
    """A second of video was decoded, or as much work done of another kind."""
    if _tell is not None:
        _tell()


def watched(items: Iterable[Item], per_second: float) -> Iterator[Item]:
    """Yield the packets or frames of a video; the first one after a seek and every second's worth of them are signs
    of life."""
    every = round(min(max(1, per_second), _MOST_PER_SECOND))
    for number, item in enumerate(items, 1):
        if number % every == 0 or number == 1:
            alive()
        yield item
