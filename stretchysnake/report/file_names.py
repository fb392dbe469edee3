"""Names of the files that tables and figures are written to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable


def file_name(text: str, *, otherwise: str) -> str:
    """The text with everything but letters, digits, dots and _ made a dash."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") or otherwise


def told_apart(names: Iterable[str]) -> list[str]:
    """The names with -2, -3, ... behind one that was there before: data sets may differ in signs alone."""
    seen: Counter[str] = Counter()
    apart = []
    for name in names:
        seen[name] += 1
        apart.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return apart
