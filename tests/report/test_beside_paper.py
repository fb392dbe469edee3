"""Ours beside the paper's: every cell of theirs has a line, and an empty one says why."""

import pytest
from hand_made_rows import cell

from stretchysnake.report.beside_paper import beside_paper, tables_beside_paper


def lines(rows, table):
    return {row[:3]: row[3:] for row in beside_paper(rows, table, dataset="coin").rows}


def coin(model, num_frames, size, value, **changes):
    return cell(model, num_frames, size, value, dataset="coin", **changes)


def test_every_cell_of_table_1_has_a_line():
    rows = [
        coin("vanilla", 8, 96, 0.5),
        coin("static_tokens", 64, 448, 0.75),
        coin("vanilla", 64, 448, 0.25),
        coin("vanilla", 16, 224, None),
    ]
    found = lines(rows, "1")
    assert len(found) == 64
    assert found["vanilla", "8", "96"] == ("50.0 (400 of 400)", "43.1", "+6.9")
    assert found["static tokens", "64", "448"] == ("75.0 (400 of 400)", "78.9", "−3.9")
    assert found["vanilla", "64", "448"] == ("25.0 (400 of 400)", "OOM", "– (theirs OOM)")
    assert found["vanilla", "16", "224"] == ("– (OOM)", "64.8", "–")
    assert found["vanilla", "8", "112"] == ("– (not measured)", "49.5", "–")


def test_table_a2_takes_borrowed_patches_and_a3_vanilla_trained_at_this_t():
    rows = [
        coin("flexivit", 16, 96, 0.6, protocol="retrieval-static_tokens-patches"),
        coin("flexivit", 16, 112, 0.9),  # with its own patches: not Table A2's
        coin("vanilla", 8, 224, 0.7, run_id="at8", native=True),
        coin("vanilla", 8, 112, 0.4, run_id="at8"),
        coin("vanilla", 8, 192, 0.1, run_id="at16"),
        coin("vanilla", 16, 224, 0.2, run_id="at16", native=True),
    ]
    assert lines(rows, "A2")["flexivit", "16", "96/7"] == ("60.0 (400 of 400)", "70.7", "−10.7")
    assert lines(rows, "A2")["flexivit", "16", "112/8"][0] == "– (not measured)"
    assert lines(rows, "A3")["vanilla", "8", "112"] == ("40.0 (400 of 400)", "50.1", "−10.1")
    assert lines(rows, "A3")["vanilla", "8", "192"][0] == "– (not measured)"
    assert lines(rows, "1")["vanilla", "8", "192"][0] == "10.0 (400 of 400)"
    assert lines(rows, "1")["vanilla", "8", "112"][0] == "– (not measured)"
    assert len(tables_beside_paper(rows)) == 3


def test_data_sets_the_paper_lacks_have_no_twin():
    assert tables_beside_paper([cell("vanilla", 8, 32, 0.5)]) == []
    with pytest.raises(
        ValueError, match=r"dataset \('toy'\) is not in the paper's Table 1: breakfast"
    ):
        beside_paper([], "1", dataset="toy")
    with pytest.raises(ValueError, match="Table 2 is best_cell_table"):
        beside_paper([], "2", dataset="coin")
