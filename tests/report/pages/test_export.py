"""Tables and figures as files: each there, each saying what it rests on."""

import csv
import re
import xml.etree.ElementTree as ET

import pytest
from hand_made_rows import DATASET, VANILLA, WINS, cell, grid

from stretchysnake.report.pages.context import (
    PictureFile,
    ReportContext,
    read_pictures,
    write_pictures_list,
)
from stretchysnake.report.pages.export import write_tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "tables"
    rows = grid(VANILLA, WINS, seed=0, commit="c0ffee") + grid(VANILLA, WINS, seed=1)
    rows += grid(VANILLA, WINS, metric="gallery_top1")
    rows += [cell(m, 8, 32, 0.9, protocol="probe") for m in ("vanilla", "static_tokens")]
    write_tables(folder, rows, ReportContext(title="T", commands=["stretchysnake report x"]))
    return folder


def test_every_table_is_there_as_markdown_and_csv_every_figure_as_svg_and_png(folder):
    names = {path.name for path in folder.iterdir()}
    assert names.pop() and "README.md" in {path.name for path in folder.iterdir()}
    for stem in (
        "table-1-retrieval-top1-motion-digits-short",
        "table-2-motion-digits-short",
        "figure-4",
    ):
        assert {path.suffix for path in folder.glob(f"{stem}.*")} == {".md", ".csv"}
    for stem in (
        "heat-motion-digits-short",
        "size-motion-digits-short",
        "cost-motion-digits-short",
        "summary",
        "protocols",
    ):
        assert {path.suffix for path in folder.glob(f"{stem}.*")} == {".svg", ".png"}
        ET.parse(folder / f"{stem}.svg")
        assert (folder / f"{stem}.png").read_bytes().startswith(b"\x89PNG")


def test_every_markdown_file_says_what_its_numbers_rest_on(folder):
    for path in folder.glob("*.md"):
        text = path.read_text()
        assert "Seeds: 0, 1." in text and "Runs: hand-made." in text, path
        assert "Commit of the rows: c0ffee." in text and "    stretchysnake report x" in text, path
    grid_text = (folder / "table-1-retrieval-top1-motion-digits-short.md").read_text()
    assert (
        "400 of 400 queries, gallery of 1600, 2 seeds" in grid_text and "95 % interval" in grid_text
    )


def test_grid_csv_holds_every_cell_with_its_interval_and_queries(folder):
    with (folder / "table-1-retrieval-top1-motion-digits-short.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12
    ok = [line for line in lines if line["status"] == "ok"]
    assert len(ok) == 11
    for line in ok:
        assert float(line["low"]) <= float(line["value"]) <= float(line["high"])
        assert (line["num_seeds"], line["num_queries"], line["num_expected"]) == ("2", "400", "400")


def test_readme_shows_every_figure_and_links_every_table(folder):
    text = (folder / "README.md").read_text()
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert set(shown) == {path.name for path in folder.glob("*.png")}
    linked = re.findall(r"(?<!!)\[[^\]]+\]\(([^)]+\.csv)\)", text)
    assert set(linked) == {path.name for path in folder.glob("*.csv")}


def test_names_that_differ_in_signs_alone_get_files_of_their_own(tmp_path):
    rows = [cell("vanilla", 8, 32, 0.5, dataset=name) for name in ("a b", "a-b")]
    write_tables(tmp_path, rows)
    first, second = (tmp_path / f"table-1-retrieval-top1-a-b{end}.md" for end in ("", "-2"))
    assert "**a b**" in first.read_text() and "**a-b**" in second.read_text()
    assert len(list(tmp_path.glob("size-*.png"))) == 2


def test_without_rows_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="run the sweep first"):
        write_tables(tmp_path / "out", [])
    assert list(tmp_path.iterdir()) == []


def test_list_of_pictures_goes_out_and_in_and_keeps_earlier_ones(tmp_path):
    first = PictureFile(path="a.png", alt="one", caption="c", section="s")
    write_pictures_list(tmp_path, [first])
    write_pictures_list(tmp_path, [PictureFile(path=tmp_path / "b.png", alt="two")])
    found = read_pictures(tmp_path)
    assert [(p.path, p.alt) for p in found] == [
        (tmp_path / "a.png", "one"),
        (tmp_path / "b.png", "two"),
    ]
    (tmp_path / "pictures.json").write_text('[{"titel": 1}]')
    with pytest.raises(ValueError, match="not a list of pictures"):
        read_pictures(tmp_path)
    with pytest.raises(ValueError, match="must be a folder that stretchysnake visualize wrote"):
        read_pictures(tmp_path / "absent")


def test_data_set_of_the_paper_has_its_tables(tmp_path):
    write_tables(tmp_path, [cell("static_tokens", 16, 224, 0.5, dataset="coin")])
    assert {"table-1-beside-paper-coin.md", "table-2.md"} <= {p.name for p in tmp_path.iterdir()}
    assert DATASET not in (tmp_path / "README.md").read_text()
