"""Accuracy tables as Markdown, CSV and terminal text, and every other table that rows can fill."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from stretchysnake.report.figures.protocol_bars import protocol_table
from stretchysnake.report.tables.accuracy_table import (
    AccuracyTable,
    PrintedCell,
    accuracy_table,
)
from stretchysnake.report.tables.beside_paper import tables_beside_paper
from stretchysnake.report.tables.best_cell import best_cell_table, comparison_table
from stretchysnake.report.tables.cells import (
    datasets_of,
    label,
    main_rows,
    peers_of,
    points,
    protocols_of,
    rows_of_peer,
)
from stretchysnake.report.tables.claims_tables import claims_grid
from stretchysnake.report.tables.gains import gains_table
from stretchysnake.report.tables.headlines import claim, headlines, tiles
from stretchysnake.report.tables.paired import paired_table
from stretchysnake.report.tables.plain_table import PlainTable, pipe_table
from stretchysnake.results.rows import Row, select


def to_markdown(table: AccuracyTable) -> str:
    """A pipe table: best of each cell in bold, `*` seen in training, `†` vanilla's native cell."""
    head = ["model", "T", *map(str, table.sizes), "Avg Δ", "Avg Δ away"]
    lines = []
    for row in table.rows:
        name = f"Δ {label(row.model)}" if row.is_difference else label(row.model)
        cells = [_marked(cell) for cell in row.cells]
        ends = [points(row.average_all), points(row.average_away)]
        if row.is_difference:
            ends = ["", ""]
        lines.append([name, str(row.num_frames), *cells, *ends])
    title = table.dataset.replace("|", "\\|")
    return (
        f"**{title}**: {table.metric}, percent; {_counts(table)}\n\n{pipe_table(head, lines)}\n\n"
        "Bold: best of its cell. Brackets: 95 % interval, over seeds (Student's t) where there are two or more, else "
        "over queries. `*` seen in training, `†` vanilla's native cell. "
        "Avg Δ: mean difference to vanilla in points; away: without the native cell.\n"
    )


def _marked(cell: PrintedCell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    text += f" [{cell.interval}]" if cell.interval else ""
    return text + ("*" if cell.trained else "") + ("†" if cell.native and cell.cell else "")


def _counts(table: AccuracyTable) -> str:
    seeds = f"{len(table.seeds)} seed{'s' if len(table.seeds) != 1 else ''}"
    if table.seeds_left_out:
        left_out = ", ".join(map(str, table.seeds_left_out))
        seeds += f" that all models have (without {left_out})"
    return (
        f"{table.num_queries} of {table.num_expected} queries, "
        f"gallery of {table.num_gallery}, {seeds}"
    )


def to_csv(table: AccuracyTable) -> str:
    """One line for each cell of a model; fractions at full precision, no rounding."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [
        "dataset", "metric", "model", "num_frames", "size", "patch_size", "value", "spread", "low", "high", "num_seeds",
        "status", "trained", "native", "gflops", "milliseconds", "num_queries", "num_expected", "note",
    ]  # fmt: skip
    writer.writerow(names)
    for row in table.rows:
        for printed in row.cells if not row.is_difference else ():
            values = {"dataset": table.dataset, "metric": table.metric}
            values |= {name: getattr(printed.cell, name) for name in names[2:]}
            writer.writerow("" if values[name] is None else values[name] for name in names)
    return out.getvalue()


def render_text(rows: Sequence[Row]) -> str:
    """The headlines of retrieval, and the table of every protocol, metric and data set, for the terminal."""
    parts = []
    everything, rows = rows, main_rows(rows)
    main = select(rows, protocol="retrieval", metric="top1")
    if main:
        headline = headlines(main)
        parts += [claim(headline), ""]
        parts += [f"  {t.value:>7}  {t.label}\n           {t.detail}" for t in tiles(headline)]
    if grid := claims_grid(everything):
        parts += ["", grid.to_text().rstrip()]
    for protocol, metric, dataset in measured_tables(rows):
        chosen = select(rows, protocol=protocol)
        plain = plain_accuracy_table(chosen, dataset=dataset, metric=metric)
        parts += ["", plain.to_text().rstrip()]
    for plain in further_tables(everything):
        parts += ["", plain.to_text().rstrip()]
    return "\n".join(parts).lstrip("\n") + "\n"


def plain_accuracy_table(
    rows: Sequence[Row], *, dataset: str, metric: str, intervals: bool = False
) -> PlainTable:
    """The accuracy table of one protocol's rows as texts, on request with their 95 % intervals in brackets."""
    table = accuracy_table(rows, dataset=dataset, metric=metric)
    lines = []
    for row in table.rows:
        name = ("Δ " if row.is_difference else "") + label(row.model)
        marks = [
            c.text
            + ("*" if c.trained else "")
            + (f" [{c.interval}]" if intervals and c.interval else "")
            for c in row.cells
        ]
        ends = [points(row.average_all), points(row.average_away)]
        is_model = not row.is_difference and row.model != table.baseline
        lines.append((name, str(row.num_frames), *marks, *(ends if is_model else ["", ""])))
    protocol = ", ".join(protocols_of(select(rows, dataset=dataset, metric=metric)))
    return PlainTable(
        name=f"table-1-{protocol}-{metric}-{dataset}",
        title=f"{dataset}: {protocol} {metric}, percent",
        head=("", "T", *map(str, table.sizes), "Avg Δ", "away"),
        rows=tuple(lines),
        note=f"{_counts(table)}; * seen in training"
        + ("; brackets: 95 % interval, over seeds or, with one, over queries" if intervals else ""),
    )


def measured_tables(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """(protocol, metric, dataset) of every table the rows fill: retrieval top1 first, as in the paper."""
    present = dict.fromkeys((row.protocol, row.metric, row.dataset) for row in rows)
    return sorted(present, key=lambda key: (key[0] != "retrieval", key[0], key[1] != "top1"))


def further_tables(rows: Sequence[Row]) -> list[PlainTable]:
    """Best cells both ways, protocols side by side, paired tests, the paper's tables beside ours: all the rows fill."""
    main = main_rows(rows)
    retrieval = select(main, protocol="retrieval", metric=("top1", "gallery_top1"))
    cells = {(row.dataset, row.num_frames, row.size) for row in retrieval}
    counts = Counter(dataset for dataset, *_ in cells)
    several = [d for d in datasets_of(retrieval) if counts[d] > 1]  # of one cell none is best
    tables = [
        *(best_cell_table(retrieval, dataset=dataset) for dataset in several),
        comparison_table(main, "2"),
        comparison_table(main, "A1"),
        protocol_table(main),
        *(paired_table(retrieval, dataset=dataset) for dataset in datasets_of(retrieval)),
        *tables_beside_paper(rows),
        gains_table(rows),
        *_tables_of_peers(rows),
    ]
    return [table for table in tables if table is not None]


def _tables_of_peers(rows: Sequence[Row]) -> list[PlainTable]:
    """Table 1 of each model beside the main one (the numbers of Figures A1 to A12), as far as it was measured."""
    tables = []
    for peer in peers_of(rows) if len(main_rows(rows)) < len(rows) else ():
        own = rows_of_peer(rows, peer)
        for protocol, metric, dataset in measured_tables(own):
            table = plain_accuracy_table(
                select(own, protocol=protocol), dataset=dataset, metric=metric, intervals=True
            )
            told = f"{table.note}; differences to the same model trained at one scale"
            here = select(own, protocol=protocol, dataset=dataset, status="refused")
            told += "".join(f"; impossible: {why}" for why in sorted({row.note for row in here}))
            names = {"name": f"{table.name}-{peer}", "title": f"{peer} on {table.title}"}
            tables.append(replace(table, **names, note=told))
    return tables
