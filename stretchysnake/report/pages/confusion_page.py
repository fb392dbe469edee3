"""One page of a classifier on the videos held out: its confusion matrix and what it got wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stretchysnake.report.pages.template import filled
from stretchysnake.report.tables.plain_table import PlainTable
from stretchysnake.whole_file import write_whole


def confusion_table(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> PlainTable:
    """Counts of held-out videos: a row per true class, a column per predicted one."""
    rows = tuple(
        (name, *(str(count) for count in line)) for name, line in zip(classes, counts, strict=True)
    )
    return PlainTable(title="Held-out videos", head=("true \\ predicted", *classes), rows=rows)


def write_confusion_page(
    path: str | Path,
    table: PlainTable,
    *,
    reason: str,
    found: str,
    wrong: Sequence[tuple[str, str, str]],
) -> None:
    """Write the page, whole or not at all; `wrong` are (path, true class, predicted class)."""
    most = max(int(cell) for row in table.rows for cell in row[1:])
    page = filled(
        "confusion_page.html.j2",
        {"share": lambda cell: round(100 * int(cell) / max(1, most))},
        table=table,
        reason=reason,
        found=found,
        wrong=wrong,
    )
    write_whole(path, page)
