"""How others' words are shown: names and errors on one line, without what a terminal or a page would obey."""

from __future__ import annotations

import os
import re

_UNSHOWABLE = re.compile(
    "["
    "\0-\x1f\x7f-\x9f"  # control characters: line ends, tabs, escape sequences
    "\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff"  # they reorder or break a line
    "\ud800-\udfff"  # bytes of a name that is not UTF-8, as Python holds them
    "]"
)


def shown(name: object) -> str:
    """A path, class name or message as text that can be printed, written as UTF-8 and read; other characters stay.

    shown("a\\nb.mp4") is "a\\\\nb.mp4"; the byte 0xe9 of a name in Latin-1 is shown as \\udce9, as in our JSON files.
    The file is opened by its true name, never by this one.
    """
    text = os.fspath(name) if isinstance(name, os.PathLike) else str(name)
    return _UNSHOWABLE.sub(_escaped, text)


def shown_lines(text: object) -> str:
    """A text of ours that holds names of others: its line ends stay, each line as `shown` has it."""
    return "\n".join(map(shown, str(text).split("\n")))


def first_line(error: BaseException, most: int | None = None) -> str:
    """The first line of an error's text that is not blank, cut to `most` characters; its type's name if it has none."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)[:most]


def reason_of(error: BaseException) -> str:
    """What went wrong: the system's (and FFmpeg's) words without number and path, else the first line or the name."""
    return getattr(error, "strerror", None) or first_line(error)


def _escaped(match: re.Match) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")
