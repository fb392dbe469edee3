"""McNemar's test of every cell, and only of cells with the same queries."""

from hand_made_rows import DATASET, cell

from stretchysnake.report.tables.grids import render_text
from stretchysnake.report.tables.paired import paired_table
from stretchysnake.results.comparison import pack_correct


def judged(model, size, flags, *, queries="q"):
    flags = [flag == "1" for flag in flags]
    n = len(flags)
    return cell(
        model,
        8,
        size,
        sum(flags) / n,
        num_queries=n,
        num_expected=n,
        correct=pack_correct(flags),
        queries=queries,
    )


ROWS = [
    judged("static_tokens", 16, "1111111100"),
    judged("vanilla", 16, "1100000010"),
    judged("static_tokens", 32, "1111", queries="others"),
    judged("vanilla", 32, "1111"),
    cell("vanilla", 8, 64, 0.5),
    cell("static_tokens", 8, 64, 0.5),
]


def test_only_cells_of_the_same_queries_are_tested():
    table = paired_table(ROWS, dataset=DATASET)
    ((seed, frames, size, queries, only_a, only_b, difference, p),) = table.rows
    assert (seed, frames, size, queries, only_a, only_b) == ("0", "8", "16", "10", "6", "1")
    assert difference.startswith("+50.0 [")
    assert p == "0.12"  # 2 * (1 + 7) / 2**7 = 0.125, by hand
    assert table.title in render_text(ROWS)


def test_rows_that_do_not_hold_the_queries_give_no_table():
    assert paired_table(ROWS[4:], dataset=DATASET) is None
    assert "same queries" not in render_text(ROWS[4:])
