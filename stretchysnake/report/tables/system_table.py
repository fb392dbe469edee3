"""Table 2 at one scale a system: what was measured, what the paper prints, and the difference."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from stretchysnake.report.tables.beside_paper import difference_to_paper, printed_number
from stretchysnake.report.tables.cells import percent, points
from stretchysnake.report.tables.paper import MODEL_NAMES, paper_numbers
from stretchysnake.report.tables.plain_table import PlainTable
from stretchysnake.results.rows import Row


def system_table(
    measured: Mapping[tuple[str, str], Row],
    scales: Mapping[str, str],
    datasets: Sequence[str],
    *,
    absent: Mapping[tuple[str, str], str],
    note: str = "",
) -> PlainTable:
    """A line of ours, one of the paper's and one of differences for each system of `scales` (name -> "T × S").

    measured: (system, data set) -> its row of retrieval top1; `absent` says in a word why there is none. The last
    column is the mean over the data sets, given where all are there; of the differences, over those that are.
    """
    theirs = {(n.model, n.dataset): n for n in paper_numbers("2")}
    lines = []
    for name, scale in scales.items():
        title, places = MODEL_NAMES.get(name, name), [(name, dataset) for dataset in datasets]
        rows = [measured.get(place) for place in places]
        mine = [
            _printed(row, absent.get(place, "")) for row, place in zip(rows, places, strict=True)
        ]
        values = [row.value if row else None for row in rows]
        printed = [theirs[place].value / 100 for place in places]
        apart = [
            ours - paper for ours, paper in zip(values, printed, strict=True) if ours is not None
        ]
        lines.append((title, scale, "ours", *mine, _mean(values)))
        lines.append(
            (title, "", "paper", *(printed_number(theirs[p]) for p in places), _mean(printed))
        )
        if apart:
            cells = [
                difference_to_paper(row, theirs[place]) if row else "–"
                for row, place in zip(rows, places, strict=True)
            ]
            over = "" if len(apart) == len(places) else f" (of {len(apart)})"
            differences = (*cells, points(statistics.fmean(apart)) + over)
            lines.append((title, "", "ours − paper", *differences))
    return PlainTable(
        name="table-2-systems",
        title="The paper's Table 2, retrieval top1, percent: one view of each system's own test",
        head=("system", "T × S", "", *datasets, "Average"),
        rows=tuple(lines),
        note=" ".join(filter(None, [note, _NOTE])),
    )


_NOTE = (
    "Brackets: 95 % interval over queries. Averages are recomputed from the cells; differences are in points. The "
    "paper does not say which weights, frames and crops it took of each system."
)


def _printed(row: Row | None, why: str) -> str:
    if row is None:
        return f"– ({why})" if why else "–"
    if row.value is None:
        return f"– ({'OOM' if row.status == 'oom' else 'no query read'})"
    text = percent(row.value)
    if row.low is not None and row.high is not None:
        text += f" [{percent(row.low)}, {percent(row.high)}]"
    complete = row.num_queries == row.num_expected
    return text if complete else f"{text} ({row.num_queries} of {row.num_expected})"


def _mean(values: Sequence[float | None]) -> str:
    found = [value for value in values if value is not None]
    return percent(statistics.fmean(found)) if len(found) == len(values) else "–"
