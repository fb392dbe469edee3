"""How names that others chose are shown: on one line, without a character that a terminal or a page would obey."""

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


def _escaped(found: re.Match) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode("ascii")
