"""The cell chosen on the test queries, as in the paper, and the one chosen without them."""

import pytest
from hand_made_rows import DATASET, cell

from stretchysnake.report.tables.best_cell import best_cell, best_cell_table
from stretchysnake.results.intervals import wilson_interval


def both(model, num_frames, size, test, gallery, **changes):
    return [
        cell(model, num_frames, size, test, **changes),
        cell(model, num_frames, size, gallery, metric="gallery_top1", **changes),
    ]


ROWS = [
    *both("static_tokens", 8, 32, 0.70, 0.60),
    *both("static_tokens", 8, 64, 0.80, 0.50),  # best on test
    *both("static_tokens", 16, 64, 0.75, 0.65, gflops=4.0),  # best inside the gallery
    *both("static_tokens", 16, 32, 0.60, 0.65, gflops=9.0),  # as good there, but dearer
    cell("vanilla", 8, 32, 0.5),
]


def test_the_two_ways_of_choosing_differ():
    best = best_cell(ROWS, "static_tokens", dataset=DATASET, chosen_by="top1")
    assert (best.value, best.cells) == (0.80, ((8, 64),))
    honest = best_cell(ROWS, "static_tokens", dataset=DATASET, chosen_by="gallery_top1")
    assert (honest.value, honest.cells) == (0.75, ((16, 64),))
    assert honest.interval == wilson_interval(300, 400)
    assert best_cell(ROWS, "vanilla", dataset=DATASET, chosen_by="gallery_top1") is None
    with pytest.raises(ValueError, match=r"chosen_by \('map'\) must be top1 or gallery_top1"):
        best_cell(ROWS, "vanilla", dataset=DATASET, chosen_by="map")


def test_each_seed_chooses_its_own_cell():
    rows = [*ROWS, *both("static_tokens", 8, 32, 0.9, 0.9, seed=1)]
    found = best_cell(rows, "static_tokens", dataset=DATASET, chosen_by="gallery_top1")
    assert found.value == pytest.approx((0.75 + 0.9) / 2)
    assert (found.cells, found.seeds) == (((16, 64), (8, 32)), (0, 1))
    assert found.interval.high - found.interval.low > 1  # Student's t with two seeds


def test_models_are_set_beside_each_other_over_the_seeds_all_have():
    rows = [*ROWS, *both("static_tokens", 8, 32, 0.9, 0.9, seed=1)]  # vanilla has seed 0 alone
    line = best_cell_table(rows, dataset=DATASET).rows[-1]
    assert (line[0], line[1][:4], line[3][:4], line[-1]) == ("static tokens", "80.0", "75.0", "1")
    rows.append(cell("vanilla", 8, 32, 0.6, seed=1))
    line = best_cell_table(rows, dataset=DATASET).rows[-1]
    assert (line[1][:4], line[3][:4], line[-1]) == ("85.0", "82.5", "2")


def test_table_sets_ours_beside_the_papers():
    rows = [*both("static_tokens", 16, 224, 0.9, 0.8, dataset="ucf101")]
    rows += [
        cell("vanilla", 16, 224, 0.9, dataset="ucf101"),
        cell("temporal", 16, 224, 0.8, dataset="ucf101"),
    ]
    table = best_cell_table(rows, dataset="ucf101")
    lines = {row[0]: row for row in table.rows}
    assert lines["static tokens"][5:] == ("400 of 400", "1", "94.5", "−4.5", "−4.5")
    assert lines["vanilla"][3:5] == ("– (no gallery_top1)", "–")
    assert lines["vanilla"][7:] == ("91.8", "−1.8", "– (no number of ours)")
    assert lines["temporal"][7:] == ("– (not in the paper)",) * 3
    assert "16 × 224 px" in table.to_text() and table.to_csv().count("\n") == 4
    assert table.to_markdown().startswith("**ucf101: one cell for each model")
