"""docs/method.md, several scales in one step: its tables follow from the rows published beside it."""

from pathlib import Path

import pytest
from test_published_results import STUDY, with_interval

from stretchysnake.report.tables.cells import percent, points
from stretchysnake.results.comparison import mean_difference
from stretchysnake.results.rows import read_rows, select

DOCS = Path(__file__).parents[1] / "docs"
SCALES = DOCS / "results" / "scales-per-step"
SUITES = ("short", "fine", "long")
CELLS = {"away": "away", "native": "vanilla's own"}


def of_budget(rows, steps):
    """A line for each suite and kind of cell, all models trained from scratch for so many steps."""
    vanilla, one, four = (
        f"{name}, {steps} steps" for name in ("vanilla", "static_tokens k=1", "static_tokens k=4")
    )
    for suite in SUITES:
        for cells, shown in CELLS.items():
            kind = {"dataset": f"motion-digits/{suite}", "cells": cells}
            more, gain, both = (
                mean_difference(rows, *pair, **kind)
                for pair in ((four, one), (one, vanilla), (four, vanilla))
            )
            assert {more.seeds, gain.seeds, both.seeds} == {(0, 1, 2)}
            levels = (percent(x) for x in (gain.mean_b, gain.mean_a, more.mean_a))
            told = [with_interval(difference) for difference in (more, gain, both)]
            if steps > 1000:
                told[0] += f"; {', '.join(map(points, more.per_seed))}"
            yield f"| {' | '.join((f'{suite}, {shown}', *levels, *told))} |"


@pytest.mark.parametrize(("name", "steps"), [("rows.jsonl", 1000), ("3000-steps.jsonl.gz", 3000)])
def test_tables_of_trainings_from_scratch_follow_from_their_rows(name, steps):
    text = (DOCS / "method.md").read_text(encoding="utf-8")
    missing = [line for line in of_budget(read_rows(SCALES / name), steps) if line not in text]
    assert not missing, "docs/method.md lacks:\n" + "\n".join(missing)


GOING_ON = {
    "static tokens, k = 2": ("static_tokens k=2", "static_tokens"),
    "static tokens, k = 4": ("static_tokens k=4", "static_tokens"),
    "static tokens, k = 8": ("static_tokens k=8", "static_tokens"),
    "static tokens, k = 4, independent": ("static_tokens k=4 independent", "static_tokens"),
    "static patch, k = 4": ("static_patch k=4", "static_patch"),
    "flex-all, k = 4": ("flex_all k=4", "flex_all"),
}


def going_on(rows):
    """A line for each setting of trainings that go on from a vanilla: minus one scale a step, away and at its own."""
    for shown, (several, one) in GOING_ON.items():
        for cells, where in CELLS.items():
            found = [
                mean_difference(rows, several, one, dataset=f"motion-digits/{suite}", cells=cells)
                for suite in SUITES
            ]
            (seeds,) = {difference.seeds for difference in found}
            of = f"{seeds[0]} to {seeds[-1]}"
            yield f"| {' | '.join((shown, where, *map(with_interval, found), of))} |"


def test_the_table_of_what_goes_on_from_a_vanilla_follows_from_the_rows():
    ones = {one for _, one in GOING_ON.values()} | {"static_tokens k=4"}
    rows = select(
        read_rows(STUDY / "rows.jsonl.gz"), protocol="retrieval", metric="top1", model=ones
    )
    rows += read_rows(SCALES / "from-a-vanilla.jsonl.gz")
    text = (DOCS / "method.md").read_text(encoding="utf-8")
    missing = [line for line in going_on(rows) if line not in text]
    assert not missing, "docs/method.md lacks:\n" + "\n".join(missing)
