"""Ours beside the paper's: every cell of theirs has a column, and an empty one says why."""

import pytest
from hand_made_rows import DATASET, VANILLA, WINS, cell, grid

from stretchysnake.report.tables.beside_paper import BORROWED, beside_paper, tables_beside_paper
from stretchysnake.report.tables.best_cell import comparison_table


def lines(rows, table, *, dataset="coin"):
    """(model, T, whose) -> column -> text"""
    found = beside_paper(rows, table, dataset=dataset)
    return {row[:3]: dict(zip(found.head[3:], row[3:], strict=True)) for row in found.rows}


def coin(model, num_frames, size, value, **changes):
    return cell(model, num_frames, size, value, dataset="coin", **changes)


def test_every_cell_of_table_1_has_ours_theirs_and_the_difference():
    rows = [
        coin("vanilla", 8, 96, 0.5),
        coin("static_tokens", 8, 96, 0.75),
        coin("static_tokens", 64, 448, 0.75),
        coin("vanilla", 64, 448, 0.25),
        coin("vanilla", 16, 224, None),
    ]
    found = lines(rows, "1")
    assert len(found) == 2 * 4 * 3 and all(len(line) == 8 + 1 for line in found.values())
    assert found["vanilla", "8", "ours"]["96 px"] == "50.0 [45.1, 54.9]"
    assert found["vanilla", "8", "paper"]["96 px"] == "43.1"
    assert found["vanilla", "8", "ours − paper"]["96 px"] == "+6.9"
    assert found["static tokens", "64", "ours − paper"]["448 px"] == "−3.9"
    assert found["vanilla", "64", "paper"]["448 px"] == "OOM"
    assert found["vanilla", "64", "ours − paper"]["448 px"] == "– (theirs OOM)"
    assert found["vanilla", "16", "ours"]["224 px"] == "– (OOM)"
    assert found["vanilla", "16", "ours − paper"]["224 px"] == "– (no number of ours)"
    assert found["vanilla", "8", "ours"]["112 px"] == "– (not measured)"
    assert found["static tokens", "8", "ours"]["Δ vanilla"] == "+25.0"
    assert found["static tokens", "8", "paper"]["Δ vanilla"] == "+16.3"
    assert "400 of 400 queries" in beside_paper(rows, "1", dataset="coin").note


def test_queries_stand_in_the_cells_where_they_differ():
    rows = [coin("vanilla", 8, 96, 0.5), coin("vanilla", 8, 112, 0.5, num_queries=100)]
    found = lines(rows, "1")["vanilla", "8", "ours"]
    assert found["96 px"] == "50.0 [45.1, 54.9] (400 of 400)"
    assert found["112 px"] == "50.0 [40.4, 59.6] (100 of 400)"


def test_table_a2_takes_borrowed_patches_and_a3_vanilla_trained_at_this_t():
    rows = [
        coin("flexivit", 16, 96, 0.6, protocol=BORROWED),
        coin("flexivit", 16, 112, 0.9),  # with its own patches: not Table A2's
        coin("vanilla", 8, 224, 0.7, run_id="at8", native=True),
        coin("vanilla", 8, 112, 0.4, run_id="at8"),
        coin("vanilla", 8, 192, 0.1, run_id="at16"),
        coin("vanilla", 16, 224, 0.2, run_id="at16", native=True),
    ]
    a2, a3, one = (lines(rows, table) for table in ("A2", "A3", "1"))
    assert a2["flexivit", "16", "ours"]["96/7|8"].startswith("60.0")  # 8: the hand-made row's patch
    assert a2["flexivit", "16", "ours − paper"]["96/7|8"] == "−10.7"
    assert a2["flexivit", "16", "ours"]["112/8"] == "– (not measured)"
    assert a2["static tokens", "16", "paper"]["Δ next best"] == "+0.9"
    assert a3["vanilla", "8", "ours − paper"]["112 px"] == "−10.1"
    assert a3["vanilla", "8", "ours"]["192 px"] == "– (not measured)"
    assert one["vanilla", "8", "ours"]["192 px"].startswith("10.0")
    assert one["vanilla", "8", "ours"]["112 px"] == "– (not measured)"
    assert len(tables_beside_paper(rows)) == 3


def test_data_sets_the_paper_lacks_have_ours_alone_and_a_note():
    assert tables_beside_paper(grid(VANILLA, WINS)) == []  # nothing of A2's or A3's kind
    at = {"native": True, "patch_size": 8}
    rows = [
        cell("vanilla", 8, 32, 0.6, run_id="at8", weights="a", **at),
        cell("vanilla", 4, 32, 0.5, run_id="at4", weights="b", **at),  # a vanilla of its own
        cell("static_tokens", 4, 32, 0.7),
        cell("flexivit", 4, 32, 0.4, protocol=BORROWED),
        cell("flex_all", 4, 32, 0.5, protocol=BORROWED),
    ]
    a2, a3 = tables_beside_paper(rows)
    assert {row[2] for table in (a2, a3) for row in table.rows} == {"ours"}
    assert a2.rows[2][-1] == "+20.0" and a2.head[3] == "32/8"
    assert {row[:2]: row[3][:4] for row in a3.rows} == {
        ("vanilla", "4"): "50.0",
        ("static tokens", "4"): "70.0",
        ("vanilla", "8"): "60.0",
        ("static tokens", "8"): "– (n",
    }
    for table in (a2, a3):
        assert f"{DATASET} is not in the paper" in table.note
        assert table.title.startswith(f"{DATASET}: after the paper's Table")


def test_unknown_table_or_data_set_is_refused():
    with pytest.raises(
        ValueError,
        match=r"dataset \('toy'\) is neither measured nor in the paper's Table 1: breakf",
    ):
        beside_paper([], "1", dataset="toy")
    with pytest.raises(ValueError, match="Tables 2 and A1 are comparison_table"):
        beside_paper([], "2", dataset="coin")


def test_tables_2_and_a1_whole():
    rows = [coin("vanilla", 8, 224, 0.7), coin("vanilla", 8, 224, 0.6, metric="gallery_top1")]
    rows += [cell("static_tokens", 8, 224, 0.5, dataset="k700")]
    two, a1 = comparison_table(rows, "2"), comparison_table(rows, "A1")
    found = {row[:2]: dict(zip(two.head[2:], row[2:], strict=True)) for row in two.rows}
    assert found["vanilla", "ours, best on test"]["coin"].startswith("70.0")
    assert found["vanilla", "best on test − paper"]["coin"] == "+4.2"
    assert found["vanilla", "chosen on gallery − paper"]["coin"] == "+4.2"
    assert found["vanilla", "ours, best on test"]["ucf101"] == "– (not measured)"
    assert found["vanilla", "ours, best on test"]["Average"] == "– (5 of 6 missing)"
    assert found["CAST", "paper"]["coin"] == "75.1" and found["CAST", "paper"]["Average"] == "51.6"
    assert "static tokens" not in {row[0] for row in two.rows if row[1] != "paper"}
    found = {row[:2]: row[2:] for row in a1.rows}
    assert found["static tokens", "best on test − paper"][7] == "−9.4"
    assert found["static tokens", "ours, chosen on gallery"][7] == "– (no gallery_top1)"
    assert comparison_table(grid(VANILLA, WINS), "2") is None
