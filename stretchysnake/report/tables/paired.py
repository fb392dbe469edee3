"""Two models on the same queries, cell by cell: exact McNemar tests as a table."""

from __future__ import annotations

from collections.abc import Sequence

from stretchysnake.report.tables.cells import label, points
from stretchysnake.report.tables.plain_table import PlainTable
from stretchysnake.results.comparison import paired_test
from stretchysnake.results.rows import Row, latest, select


def paired_table(
    rows: Sequence[Row],
    *,
    dataset: str,
    protocol: str = "retrieval",
    baseline: str = "vanilla",
    model: str = "static_tokens",
) -> PlainTable | None:
    """One line for each seed and cell that both models answered on the same queries; None without any."""
    rows = latest(select(rows, dataset=dataset, protocol=protocol, metric="top1", status="ok"))
    rows = [row for row in rows if row.correct and row.queries]
    sides = {
        name: {(r.seed, r.num_frames, r.size): r for r in select(rows, model=name)}
        for name in (model, baseline)
    }
    lines = []
    for place in sorted(sides[model].keys() & sides[baseline].keys()):
        a, b = sides[model][place], sides[baseline][place]
        if a.queries != b.queries:
            continue
        test = paired_test(a, b)
        low, high = test.interval
        lines.append(
            (
                *map(str, place),
                str(test.num_queries),
                str(test.only_a),
                str(test.only_b),
                f"{points(test.difference)} [{points(low)}, {points(high)}]",
                f"{test.p_value:.2g}",
            )
        )
    if not lines:
        return None
    return PlainTable(
        name=f"paired-{protocol}-{dataset}",
        title=f"{dataset}: {label(model)} against {label(baseline)} on the same queries, {protocol} top1",
        head=("seed", "T", "S", "queries", f"only {label(model)} right", f"only {label(baseline)} right",
              "difference, points", "p"),
        rows=tuple(lines),
        note="p: exact McNemar test, two-sided, not corrected for the number of cells. Brackets: 95 % interval, "
        "paired. Both speak of the choice of queries, not of the luck of a training.",
    )  # fmt: skip
