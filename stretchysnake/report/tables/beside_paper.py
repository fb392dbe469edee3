"""Our rows set beside the paper's cells: ours, theirs, the difference, and why where there is none."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from stretchysnake.report.tables.cells import (
    BORROWED,
    CellMean,
    cells_of,
    datasets_of,
    label,
    main_rows,
    percent,
    points,
    vanilla_trained_at,
)
from stretchysnake.report.tables.paper import PaperNumber, paper_numbers
from stretchysnake.report.tables.plain_table import PlainTable
from stretchysnake.results.rows import Row, select

NATIVE_FRAMES = 16
"""T that the paper's vanilla model is trained at, but for Table A3."""
MODELS = {
    "1": ("vanilla", "static_tokens"),
    "A2": ("flexivit", "flex_all", "static_tokens"),
    "A3": ("vanilla", "static_tokens"),
}
_TITLES = {
    "1": "retrieval top1 over T and S",
    "A2": "retrieval top1 with the patches of static tokens",
    "A3": "retrieval top1, vanilla trained at the T it is tested at",
}

Place = tuple[str, int, int]  # model, num_frames, size


def beside_paper(rows: Sequence[Row], table: str, *, dataset: str) -> PlainTable:
    """Table 1, A2 or A3 of one data set: a line of ours, one of the paper's, one of the differences, by model and T.

    A data set that the paper lacks has lines of ours alone, and the note says so. Table A2's FlexiViT and
    flex-all are measured with the patches of static tokens (`patch_from`); Table A3's vanilla is the one
    trained at the tested T.
    """
    if table not in MODELS:
        raise ValueError(
            f"table ({table!r}) must be 1, A2 or A3; Tables 2 and A1 are comparison_table."
        )
    numbers = [n for n in paper_numbers(table) if n.dataset == dataset]
    theirs = {(n.model, n.num_frames, n.size): n for n in numbers}
    ours = _measured(rows, table, dataset, in_paper=bool(theirs))
    if not theirs and not ours:
        present = ", ".join(dict.fromkeys(n.dataset for n in paper_numbers(table)))
        raise ValueError(
            f"dataset ({dataset!r}) is neither measured nor in the paper's Table {table}: {present}."
        )
    our_frames = {place[1] for place in ours if table == "1" or place[0] != "static_tokens"}
    # static tokens alone at some T is Table 1's business
    frames = sorted({place[1] for place in theirs} | our_frames)
    sizes = sorted({place[2] for place in [*theirs, *ours]})
    counted = {(c.num_queries, c.num_expected) for c in ours.values() if c.value is not None}
    our_values = {place: cell.value for place, cell in ours.items()}
    their_values = {place: n.value / 100 for place, n in theirs.items() if n.value is not None}
    lines = []
    for num_frames in frames:
        for model in MODELS[table]:
            places = [(model, num_frames, size) for size in sizes]
            name = (label(model), str(num_frames))
            mine = [_printed(ours.get(place), counted) for place in places]
            lines.append((*name, "ours", *mine, _gain(our_values, places, table)))
            if any(place in theirs for place in places):
                cells = [printed_number(theirs.get(place)) for place in places]
                lines.append((*name, "paper", *cells, _gain(their_values, places, table)))
                apart = [
                    difference_to_paper(ours.get(place), theirs.get(place)) for place in places
                ]
                lines.append((*name, "ours − paper", *apart, ""))
    heads = [_head(size, table, ours, theirs) for size in sizes]
    gain = {"1": "Δ vanilla", "A2": "Δ next best", "A3": "Δ vanilla"}[table]
    return PlainTable(
        name=f"table-{table.lower()}-beside-paper-{dataset}"
        if theirs
        else f"table-{table.lower()}-{dataset}",
        title=f"{dataset}: {'' if theirs else 'after '}the paper's Table {table}, {_TITLES[table]}, percent",
        head=("model", "T", "", *heads, gain),
        rows=tuple(lines),
        note=_note(ours, counted, dataset, in_paper=bool(theirs)),
    )


def tables_beside_paper(rows: Sequence[Row]) -> list[PlainTable]:
    """Table 1 of the paper's own data sets; A2 and A3 of every data set with rows of their kind."""
    tables = []
    for dataset in datasets_of(rows):
        for table in MODELS:
            in_paper = any(n.dataset == dataset for n in paper_numbers(table))
            ours = _measured(rows, table, dataset, in_paper=in_paper)
            here = select(rows, dataset=dataset)
            lengths = set(vanilla_trained_at(here).values())
            wanted = {
                "1": in_paper and bool(ours),
                "A2": any(row.protocol == BORROWED for row in here),
                "A3": len(lengths) > 1 or (in_paper and bool(lengths - {NATIVE_FRAMES})),
            }
            if wanted[table]:
                tables.append(beside_paper(rows, table, dataset=dataset))
    return tables


def _measured(
    rows: Sequence[Row], table: str, dataset: str, *, in_paper: bool
) -> dict[Place, CellMean]:
    """Our cells of this table; those never measured are left out."""
    rows = select(rows, dataset=dataset, metric="top1")
    home = vanilla_trained_at(rows)
    main = {row.run_id for row in main_rows(rows)}
    cells: dict[Place, CellMean] = {}
    for model in MODELS[table]:
        borrowed = table == "A2" and model != "static_tokens"
        chosen = select(rows, model=model, protocol=BORROWED if borrowed else "retrieval")
        parts = None
        if model == "vanilla" and table == "A3":
            # Of each T its own vanilla: several weights in one table on purpose, so T by T.
            chosen = [row for row in chosen if home.get(row.run_id) == row.num_frames]
            parts = [select(chosen, num_frames=t) for t in sorted(set(home.values()))]
        elif model == "vanilla" and in_paper:
            chosen = [r for r in chosen if home.get(r.run_id, NATIVE_FRAMES) == NATIVE_FRAMES]
        elif model == "vanilla":
            chosen = [row for row in chosen if row.run_id in main]
        for part in parts or [chosen]:
            if part:
                cells |= cells_of(part, dataset=dataset)
    return {place: cell for place, cell in cells.items() if cell.status != "absent"}


def _printed(cell: CellMean | None, counted: set) -> str:
    if cell is None:
        return "– (not measured)"
    if cell.value is None:
        return f"– ({cell.status.upper() if cell.status == 'oom' else 'no query read'})"
    text = percent(cell.value)
    if cell.low is not None:
        text += f" [{percent(cell.low)}, {percent(cell.high)}]"
    return text if len(counted) == 1 else f"{text} ({cell.num_queries} of {cell.num_expected})"


def printed_number(number: PaperNumber | None) -> str:
    """The paper's cell as printed there."""
    if number is None:
        return "– (not in the paper)"
    return "OOM" if number.value is None else f"{number.value:.1f}"


def difference_to_paper(ours, number: PaperNumber | None) -> str:
    """`ours` (a cell, or None) minus theirs in points, or why there is no difference."""
    if number is None:
        return "– (not in the paper)"
    if ours is None or ours.value is None:
        return "– (no number of ours)"
    if number.value is None:
        return "– (theirs OOM)"
    return points(ours.value - number.value / 100)


def _gain(values: dict[Place, float | None], places: list[Place], table: str) -> str:
    """Mean over sizes of static tokens minus the best of the others, where all of them have a value."""
    if places[0][0] != "static_tokens":
        return ""
    gains = []
    for model, num_frames, size in places:
        others = [values.get((m, num_frames, size)) for m in MODELS[table] if m != model]
        mine = values.get((model, num_frames, size))
        if mine is not None and None not in others:
            gains.append(mine - max(others))
    return points(statistics.fmean(gains)) if gains else "– (no pair of cells)"


def _head(size: int, table: str, ours: dict, theirs: dict) -> str:
    if table != "A2":
        return f"{size} px"
    patches = {n.patch_size for place, n in theirs.items() if place[2] == size}
    patches |= {c.patch_size for place, c in ours.items() if place[2] == size}
    return f"{size}/{'|'.join(map(str, sorted(patches - {None})))}"


def _note(ours: dict[Place, CellMean], counted: set, dataset: str, *, in_paper: bool) -> str:
    parts = []
    if not in_paper:
        parts.append(
            f"{dataset} is not in the paper: there is no number of theirs and no difference."
        )
    if len(counted) == 1:
        ((answered, expected),) = counted
        parts.append(f"{answered} of {expected} queries in every measured cell.")
    numbers = sorted({cell.num_seeds for cell in ours.values()} - {0})
    if numbers and numbers[-1] > 1:
        seeds = " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))
        parts.append(f"Means over {seeds} seeds; brackets: 95 % interval over seeds and queries.")
    elif numbers:
        parts.append("One seed; brackets: 95 % interval over queries.")
    parts.append(
        "Last column: mean over the sizes that all models have, in points; the paper's is recomputed from its cells."
    )
    return " ".join(parts)
