"""A table of texts with a title and a note: Markdown, CSV, terminal."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stretchysnake.report.file_names import file_name
from stretchysnake.shown import shown


@dataclass(frozen=True, kw_only=True)
class PlainTable:
    """Texts as printed; the first columns of words, the rest numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    name: str = ""
    """Name of its files; by default its title."""

    @property
    def file_name(self) -> str:
        """`name` with everything but letters, digits, dots and _ made a dash."""
        return file_name(self.name or self.title, otherwise="table")

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"row ({' | '.join(row)}) must have {len(self.head)} cells.")

    def to_markdown(self) -> str:
        body = pipe_table(self.head, self.rows)
        return f"**{self.title}**\n\n{body}\n" + (f"\n{self.note}\n" if self.note else "")

    def to_csv(self) -> str:
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.head, *self.rows])
        return out.getvalue()

    def to_text(self) -> str:
        """Plain columns, the first to the left, and the note in lines of up to 100."""
        lines = [tuple(map(shown, line)) for line in (self.head, *self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        body = "\n".join(
            "  ".join(
                text.ljust(width) if i == 0 else text.rjust(width)
                for i, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )
        note = textwrap.fill(self.note, 100, break_on_hyphens=False)
        return f"{self.title}\n{body}\n" + (f"{note}\n" if note else "")


def pipe_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the rest to the right."""
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
