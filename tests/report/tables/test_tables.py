import csv
import io

import pytest
from hand_made_rows import DATASET, LOSES, VANILLA, WINS, cell, grid

from stretchysnake.report.tables.accuracy_table import accuracy_table
from stretchysnake.report.tables.grids import render_text, to_csv, to_markdown
from stretchysnake.report.tables.headlines import claim, headlines, tiles


def line(table, model, num_frames, *, is_difference=False):
    wanted = (model, num_frames, is_difference)
    return next(r for r in table.rows if (r.model, r.num_frames, r.is_difference) == wanted)


@pytest.fixture
def table():
    return accuracy_table(grid(VANILLA, WINS), dataset=DATASET)


def test_a_table_says_which_seeds_not_all_models_have():
    rows = [*grid(VANILLA, WINS), *grid(VANILLA, WINS, seed=1), *grid(VANILLA, WINS, seed=3)]
    rows = [row for row in rows if not (row.model == "vanilla" and row.seed == 3)]
    table = accuracy_table(rows, dataset=DATASET)
    assert (table.seeds, table.seeds_left_out) == ((0, 1), (3,))
    assert "2 seeds that all models have (without 3)" in to_markdown(table)
    assert "all models have" not in to_markdown(
        accuracy_table(grid(VANILLA, WINS), dataset=DATASET)
    )


def test_average_difference_leaves_out_the_native_cell(table):
    row = line(table, "static_tokens", 8)
    assert row.average_all == pytest.approx((0.40 + 0.05 + 0.40) / 3)
    assert row.average_away == pytest.approx((0.40 + 0.40) / 2)
    [(model, everywhere, away)] = table.averages
    assert model == "static_tokens"
    assert everywhere == pytest.approx((0.40 + 0.05 + 0.40 + 0.40 + 0.20) / 5)
    assert away == pytest.approx((0.40 + 0.40 + 0.40 + 0.20) / 4)


def test_out_of_memory_shows_and_enters_no_average(table):
    assert line(table, "vanilla", 16).cells[2].text == "OOM"
    assert line(table, "static_tokens", 16).average_all == pytest.approx((0.40 + 0.20) / 2)
    delta = line(table, "static_tokens", 16, is_difference=True).cells[2]
    assert (delta.text, delta.note) == ("–", "vanilla: out of memory")


def test_differences_and_marks_of_each_cell(table):
    assert [c.text for c in line(table, "static_tokens", 8, is_difference=True).cells] == [
        "+40.0",
        "+5.0",
        "+40.0",
    ]
    assert [c.best for c in line(table, "static_tokens", 8).cells] == [True, True, True]
    assert [c.trained for c in line(table, "vanilla", 8).cells] == [False, True, False]
    assert [c.native for c in line(table, "static_tokens", 8).cells] == [False, True, False]


def test_absent_cell_says_so():
    rows = [r for r in grid(VANILLA, WINS) if (r.model, r.size) != ("static_tokens", 64)]
    absent = line(accuracy_table(rows, dataset=DATASET), "static_tokens", 8).cells[2]
    assert (absent.text, absent.note) == ("–", "not measured")


def test_seeds_are_averaged_with_their_spread():
    rows = [cell("vanilla", 8, 32, value, seed=s) for s, value in enumerate((0.4, 0.5, 0.6))]
    [printed] = line(accuracy_table(rows, dataset=DATASET), "vanilla", 8).cells
    assert (printed.text, printed.spread) == ("50.0", "10.0")


def test_unknown_dataset_names_the_measured_ones():
    with pytest.raises(ValueError, match=f"no top1 rows; measured: {DATASET}"):
        accuracy_table(grid(VANILLA, WINS), dataset="ucf101")


def test_markdown_holds_marks_and_escapes_pipes():
    text = to_markdown(accuracy_table(grid(VANILLA, WINS, dataset="a|b"), dataset="a|b"))
    assert "**a\\|b**: top1, percent; 400 of 400 queries, gallery of 1600, 1 seed" in text
    assert (
        "| static tokens | 8 | **60.0** [55.1–64.7] | **85.0** [81.2–88.2]*† | **70.0** [65.3–74.3] | +28.3 | +40.0 |"
        in text
    )
    assert "| vanilla | 16 | 10.0 [7.4–13.3] | 40.0 [35.3–44.9] | OOM |" in text


def test_csv_has_a_line_for_each_measured_cell(table):
    found = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert len(found) == 12
    [oom] = [r for r in found if r["status"] == "oom"]
    assert (oom["model"], oom["num_frames"], oom["size"], oom["value"]) == (
        "vanilla",
        "16",
        "64",
        "",
    )


def test_headlines_on_hand_made_numbers():
    found = headlines(grid(VANILLA, WINS))
    assert found.away.mean == pytest.approx(0.35)
    assert found.native.mean == pytest.approx(0.05)
    # 0.85 at T=8, S=32 is the only cell at or above 0.80: the same cost as vanilla's.
    assert found.cost.times_fewer == pytest.approx(1)


def test_cheapest_cell_counts_times_fewer_gflops():
    cheap = (0.80, *WINS[1:])
    found = headlines(grid(VANILLA, cheap))
    assert (found.cost.cheapest.num_frames, found.cost.cheapest.size) == (8, 16)
    assert found.cost.times_fewer == pytest.approx(4)
    assert tiles(found)[2].value == "4.0×"


def test_claim_says_it_when_static_tokens_loses():
    found = headlines(grid(VANILLA, LOSES))
    assert claim(found).startswith("In this run static tokens lost: ")
    assert "vanilla stays ahead (static tokens −60.0)" in claim(found)
    assert [tile.verdict for tile in tiles(found)] == ["worse", "worse", "worse"]
    assert tiles(found)[2].value == "none"


def test_claim_says_it_when_nothing_is_settled():
    same = (0.21, 0.80, 0.30, 0.10, 0.40, 0.5)
    assert claim(headlines(grid(VANILLA, same))).startswith("This run does not settle it")


def test_claim_when_static_tokens_wins():
    assert "for 25.0 % of them" in claim(headlines(grid(VANILLA, WINS)))
    assert "+35.0 points." in claim(headlines(grid(VANILLA, WINS)))


def test_headlines_survive_a_half_finished_run():
    found = headlines([cell("vanilla", 8, 32, 0.5)])
    assert "not complete yet" in claim(found)
    assert [tile.verdict for tile in tiles(found)] == ["missing"] * 3


def test_headlines_are_about_the_short_suite():
    rows = grid(VANILLA, LOSES, dataset="motion-digits/long") + grid(VANILLA, WINS)
    assert headlines(rows).dataset == DATASET
    with pytest.raises(ValueError, match="run the sweep first"):
        headlines([])


def test_text_for_the_terminal_has_headlines_and_table():
    text = render_text(grid(VANILLA, WINS))
    assert "+35.0  points away from vanilla's training scale" in text
    assert "OOM" in text
    assert max(map(len, text.splitlines()[8:])) <= 100


def test_text_shows_every_protocol_apart():
    rows = grid(VANILLA, WINS) + grid(WINS, VANILLA, protocol="probe")
    rows += grid(VANILLA, WINS, metric="gallery_top1")
    text = render_text(rows)
    titles = [
        line for line in text.splitlines() if line.startswith(DATASET) and line.endswith("percent")
    ]
    assert titles == [
        f"{DATASET}: retrieval top1, percent",
        f"{DATASET}: retrieval gallery_top1, percent",
        f"{DATASET}: probe top1, percent",
        f"{DATASET}: one cell for each model, retrieval top1, percent",
    ]
    assert "+35.0  points away" in text  # the headlines are retrieval's


def test_text_of_a_probe_alone_needs_no_retrieval():
    text = render_text(grid(VANILLA, WINS, protocol="probe"))
    assert text.startswith("Which of the paper's claims hold here")
    assert f"{DATASET}: probe top1" in text and "retrieval" not in text


def test_protocols_do_not_share_a_table():
    with pytest.raises(ValueError, match=r"mix protocols \(retrieval, probe\)"):
        accuracy_table(grid(VANILLA, WINS) + grid(WINS, VANILLA, protocol="probe"), dataset=DATASET)
