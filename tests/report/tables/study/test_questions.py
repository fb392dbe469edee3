"""The study's further questions and budgets from hand-made rows: which rows each compares, and what is told of them."""

from dataclasses import replace

import pytest
from hand_made_rows import cell

from stretchysnake.report.tables.cells import main_rows
from stretchysnake.report.tables.claims import claims
from stretchysnake.report.tables.claims_tables import tables_of_claims
from stretchysnake.report.tables.study.budget import budget_in_words, budget_table
from stretchysnake.report.tables.study.questions import question_claims

BORROWED = "retrieval-static_tokens-patches"
COSTS = {  # GFLOPs: static tokens keeps its tokens, vanilla's follow the size
    ("static_tokens", 16): 1.0, ("static_tokens", 32): 1.0,
    ("vanilla", 16): 0.25, ("vanilla", 32): 1.0,
}  # fmt: skip


def rows_of(model, values, **changes):
    """Rows in (8, 16), (8, 32), (16, 16), (16, 32), in two seeds that differ by a point."""
    places = [(8, 16), (8, 32), (16, 16), (16, 32)]
    name = model.split(" ")[0]
    return [
        cell(model, t, s, value + 0.01 * seed, seed=seed, run_id=f"{model}{seed}",
             **({"gflops": COSTS[name if name in ("vanilla",) else "static_tokens", s] * t / 8} | changes))
        for (t, s), value in zip(places, values, strict=True)
        if value is not None
        for seed in (0, 1)
    ]  # fmt: skip


MAIN = [
    *rows_of("vanilla", (0.2, 0.8, 0.3, 0.7)),
    *rows_of("static_tokens", (0.6, 0.7, 0.6, 0.8)),
]


def differences(rows):
    return {c.name: round(c.difference.mean, 6) for c in question_claims(rows)}


def test_no_question_is_told_of_that_was_not_asked():
    assert question_claims(MAIN) == []
    assert [table.file_name for table in tables_of_claims(MAIN)] == ["claims"]


def test_far_cells_and_heads_are_compared_among_themselves():
    far = [
        cell(model, 28, 112, value, seed=seed, protocol="retrieval-far", run_id=f"{model}{seed}")
        for model, value in (("vanilla", 0.1), ("static_tokens", 0.5))
        for seed in (0, 1)
    ]
    heads = [
        *rows_of("vanilla", (0.1, 0.9, 0.1, 0.1), protocol="head", dataset="motion-digits/source"),
        *rows_of(
            "static_tokens", (0.3, 0.8, 0.4, 0.8), protocol="head", dataset="motion-digits/source"
        ),
    ]
    assert differences(MAIN + far + heads) == {
        "(a) static tokens beats vanilla far outside the sets": 0.4,
        "(f) static tokens beats vanilla away from its scale": 0.4,  # (0.2 + 0.3 + 0.7) / 3
        "(f) static tokens beats vanilla at its own scale": -0.1,
    }
    assert main_rows(MAIN + far + heads) == MAIN
    assert [c.difference for c in claims(MAIN + far + heads)] == [
        c.difference for c in claims(MAIN)
    ]


def test_views_are_compared_where_they_cost_what_static_tokens_costs():
    views = [
        *rows_of(
            "vanilla", (0.4, None, 0.5, None), protocol="retrieval-4-views"
        ),  # 4 x 0.25, 4 x 0.5
        *rows_of(
            "vanilla", (None, 0.9, None, None), protocol="retrieval-2-views"
        ),  # twice its own 1.0
    ]
    found = differences(MAIN + views)
    # in (8, 16) and (16, 16), where four views cost as much: 0.6 less 0.4, 0.6 less 0.5
    assert found["(b) static tokens beats vanilla of equal GFLOPs at the same scale"] == 0.15
    # at home one view (0.8) for the cells of 8 frames, two (0.9) for those of 16: (-0.2 - 0.1 - 0.3 - 0.1) / 4
    assert found["(b) static tokens beats vanilla of equal GFLOPs at its own scale"] == -0.175
    # a seed of which no views were measured takes no cell from the others
    later = [replace(row, seed=7, run_id=f"{row.model}7") for row in MAIN if row.seed == 0]
    found = differences([*MAIN, *later, *views])
    assert found["(b) static tokens beats vanilla of equal GFLOPs at its own scale"] == -0.175
    # at half the cost, one view of vanilla's own cell is not equal either: (-0.3 - 0.1) / 2
    cheap = [
        replace(row, gflops=0.5) if (row.model, row.num_frames) == ("static_tokens", 8) else row
        for row in MAIN
    ]
    found = differences(cheap + views)
    assert found["(b) static tokens beats vanilla of equal GFLOPs at its own scale"] == -0.2


def test_kernels_resized_at_load_time_are_told_by_their_way_and_leave_table_a2_alone():
    kernels = [
        *rows_of("vanilla", (0.3, 0.8, 0.3, 0.6), protocol=BORROWED),
        *rows_of("vanilla", (0.5, 0.8, 0.6, 0.8), protocol=f"{BORROWED}-pi"),
    ]
    assert differences(MAIN + kernels) == {
        "(c) static tokens beats vanilla with kernels by bicubic, away from its scale": pytest.approx(
            0.8 / 3, abs=1e-6
        ),
        "(c) static tokens beats vanilla with kernels by pi, away from its scale": pytest.approx(
            0.1 / 3, abs=1e-6
        ),
    }
    assert not [c for c in claims(MAIN + kernels) if c.table == "Table A2"]


def test_other_trainings_are_compared_with_static_tokens_and_vanilla_each_question_for_itself():
    further = [
        *rows_of("static_tokens from scratch", (0.7, 0.7, 0.7, 0.7)),
        *rows_of("static_tokens k=4", (0.6, 0.8, 0.6, 0.8)),
        *rows_of("static_tokens pi kernels", (0.6, 0.7, 0.5, 0.8)),
        *rows_of("static_tokens", (0.2, 0.7, 0.2, 0.8), protocol="retrieval-vanilla-patches"),
    ]
    found = differences(MAIN + further)
    assert found["(d) static tokens beats static tokens from scratch"] == -0.025
    assert found["(d) static tokens from scratch beats vanilla at its own scale"] == -0.1
    assert found["(k) static tokens k=4 beats static tokens"] == 0.025
    assert found["(e) static tokens beats static tokens pi kernels"] == 0.025
    assert found["(e) static tokens beats itself tested with the native patch"] == 0.4
    (itself,) = [c for c in question_claims(MAIN + further) if "itself" in c.name]
    # at vanilla's 32 px the native patch is its own
    assert itself.difference.cells == ((8, 16), (16, 16))
    made = question_claims(MAIN + further)
    for question, number in (("(d)", 3), ("(e)", 2), ("(k)", 3)):
        ps = sorted(c.difference.p_value for c in made if c.table == question)
        smallest = min(c.p_together for c in made if c.table == question)
        assert len(ps) == number and smallest == pytest.approx(min(1, number * ps[0]))
    names = [table.file_name for table in tables_of_claims(MAIN + further)]
    assert names == ["claims", "question-d", "question-e", "question-k"]


def test_budgets_are_told_three_ways_and_beside_vanilla():
    def given(rows, steps, clips, tokens):
        return [replace(r, train_steps=steps, train_clips=clips, train_tokens=tokens) for r in rows]

    rows = [
        *given(rows_of("vanilla", (0.2, 0.8, 0.3, 0.7)), 600, 19200, 2_457_600),
        *given(rows_of("static_tokens", (0.6, 0.7, 0.6, 0.8)), 600, 19200, 2_900_000),
        *given(rows_of("static_tokens k=4", (0.6, 0.8, 0.6, 0.8)), 300, 9600, 1_450_000),
    ]
    lines = {line[0]: line[1:] for line in budget_table(rows).rows}
    assert lines["vanilla"] == ("600", "19,200", "2.46", "1.00", "1.00", "1.00")
    assert lines["static tokens"] == ("600", "19,200", "2.90", "1.00", "1.00", "1.18")
    assert lines["static tokens k=4"] == ("300", "9,600", "1.45", "0.50", "0.50", "0.59")
    words = budget_in_words(rows, ["vanilla", "static_tokens"])
    assert words.startswith(
        "Budget: 600 steps and 19,200 clips each; millions of tokens: vanilla 2.5, static"
    )
    assert "300 steps, 9,600 clips" in budget_in_words(rows, ["vanilla", "static_tokens k=4"])
    assert budget_table(MAIN) is None and budget_in_words(MAIN, ["vanilla"]) == ""
    assert words in tables_of_claims(rows)[0].note
