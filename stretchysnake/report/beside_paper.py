"""Our rows set beside the paper's cells: ours, theirs, the difference, and why where there is none."""

from __future__ import annotations

from collections.abc import Sequence

from stretchysnake.report.cells import Cell, cells_of, datasets_of, label, percent, points
from stretchysnake.report.paper import PaperNumber, paper_numbers
from stretchysnake.report.plain_table import PlainTable
from stretchysnake.results import Row, select

NATIVE_FRAMES = 16
"""T that the paper's vanilla model is trained at, but for Table A3."""


def beside_paper(rows: Sequence[Row], table: str, *, dataset: str) -> PlainTable:
    """Table 1, A2 or A3 of one data set, a line for each of the paper's cells.

    Ours are retrieval top1. Table A2's FlexiViT and flex-all are measured with the patches of static
    tokens (`patch_from`); Table A3's vanilla is the one trained at the tested T.
    """
    if table not in ("1", "A2", "A3"):
        raise ValueError(f"table ({table!r}) must be 1, A2 or A3; Table 2 is best_cell_table.")
    numbers = [n for n in paper_numbers(table) if n.dataset == dataset]
    if not numbers:
        present = ", ".join(dict.fromkeys(n.dataset for n in paper_numbers(table)))
        raise ValueError(f"dataset ({dataset!r}) is not in the paper's Table {table}: {present}.")
    lines = []
    for number in numbers:
        cell = _cell(rows, number)
        theirs = "OOM" if number.value is None else f"{number.value:.1f}"
        if cell is None or cell.value is None:
            reason = (
                "not measured" if cell is None or cell.status == "absent" else cell.status.upper()
            )
            ours, difference = f"– ({reason})", "–"
        else:
            ours = percent(cell.value) + (f" ± {percent(cell.spread)}" if cell.spread else "")
            ours += f" ({cell.num_queries} of {cell.num_expected})"
            difference = "– (theirs OOM)"
            if number.value is not None:
                difference = points(cell.value - number.value / 100)
        lines.append(
            (label(number.model), str(number.num_frames), number.column, ours, theirs, difference)
        )
    return PlainTable(
        title=f"{dataset}: the paper's Table {table}, retrieval top1, percent",
        head=(
            "model",
            "T",
            "S/P" if table == "A2" else "S",
            "ours (queries)",
            "paper",
            "ours − paper",
        ),
        rows=tuple(lines),
        note="Ours: mean over seeds, ± their standard deviation; queries answered of those asked for.",
    )


def tables_beside_paper(rows: Sequence[Row]) -> list[PlainTable]:
    """Every table of the paper that some row of ours belongs to."""
    return [
        beside_paper(rows, table, dataset=dataset)
        for table in ("1", "A2", "A3")
        for dataset in datasets_of(rows)
        if any(
            (cell := _cell(rows, number)) is not None and cell.status != "absent"
            for number in paper_numbers(table)
            if number.dataset == dataset
        )
    ]


def _cell(rows: Sequence[Row], number: PaperNumber) -> Cell | None:
    """Our cell of a paper's cell; None when nothing of its kind was measured."""
    patched = number.table == "A2" and number.model != "static_tokens"
    protocol = "retrieval-static_tokens-patches" if patched else "retrieval"
    chosen = select(
        rows, dataset=number.dataset, model=number.model, protocol=protocol, metric="top1"
    )
    if number.model == "vanilla":
        trained_at = number.num_frames if number.table == "A3" else NATIVE_FRAMES
        home = {row.run_id: row.num_frames for row in rows if row.native}
        chosen = [row for row in chosen if home.get(row.run_id, NATIVE_FRAMES) == trained_at]
    cells = cells_of(chosen, dataset=number.dataset) if chosen else {}
    return cells.get((number.model, number.num_frames, number.size))
