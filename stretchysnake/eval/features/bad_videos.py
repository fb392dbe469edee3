"""What an evaluation says about videos it could not read. None is ever replaced by another.

| `on_error` | the value of a row                             | n shown                        | exit code |
|------------|------------------------------------------------|--------------------------------|-----------|
| `report`   | over the queries that could be read (default)  | n of N, bad files named        | 1         |
| `exclude`  | the same, and that is accepted                 | n of N, bad files named        | 0         |
| `wrong`    | over all queries; an unreadable one is a miss  | N, the note says how many      | 0         |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from stretchysnake.results.intervals import wilson_interval
from stretchysnake.results.rows import Row

ON_ERROR = ("report", "exclude", "wrong")


def check_on_error(on_error: str) -> None:
    """ValueError for a policy that does not exist."""
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error ({on_error!r}) must be one of: {', '.join(ON_ERROR)}.")


def counted(row: Row, on_error: str) -> Row:
    """The row under the policy. Its value must be a mean over queries, as top-k and average precision are."""
    check_on_error(on_error)
    missing = row.num_expected - row.num_queries
    if on_error != "wrong" or missing == 0 or row.status == "oom":
        return row
    low, high = wilson_interval((row.value or 0.0) * row.num_queries, row.num_expected)
    note = f"{missing} of {row.num_expected} queries could not be read and count as wrong"
    return replace(
        row,
        value=(row.value or 0.0) * row.num_queries / row.num_expected,
        status="ok",
        num_queries=row.num_expected,
        low=low,
        high=high,
        correct="",  # which of all queries were right is not known in their order
        queries="",
        note=f"{row.note}; {note}" if row.note else note,
    )


def incomplete(rows: Iterable[Row]) -> bool:
    """Whether a row answers for fewer queries than were asked for."""
    return any(row.num_queries < row.num_expected for row in rows if row.status != "oom")


def bad_lines(clips, name: str) -> list[str]:
    """One line per bad file of a clip source, and how many are left."""
    errors = [*(error for _, error in clips.failures), *clips.bad.quarantine.values()]
    if not errors:
        return []
    total = len(clips.records) + len(clips.failures)
    return [f"{name}: {total - len(errors)} of {total} videos could be read", *map(str, errors)]
