"""docs/results: what is published follows from the rows published with it, and no cell of the study is missing."""

import re
from itertools import product
from pathlib import Path

import pytest

from stretchysnake.recipes.study.design import StudyRun
from stretchysnake.report.pages.context import read_context
from stretchysnake.report.tables.claims_tables import claims_grid, tables_of_claims
from stretchysnake.report.tables.grids import further_tables
from stretchysnake.results.rows import read_rows, select

ABSOLUTE_PATH = re.compile(r"""(?:^|["'\s(=,])/[a-z]+/\w""", re.MULTILINE)
ROOT = Path(__file__).parents[1]
STUDY = ROOT / "docs" / "results" / "motion-digits"


@pytest.fixture(scope="module")
def rows():
    return read_rows(STUDY / "rows.jsonl")


@pytest.fixture(scope="module")
def context():
    return read_context(STUDY / "context.json")


def test_every_method_seed_suite_and_cell_was_measured(rows, context):
    run = StudyRun(seeds=tuple(context.seeds))
    measured = {
        (row.model, row.seed, row.dataset, row.num_frames, row.size)
        for row in select(rows, protocol="retrieval", metric="top1", status="ok")
    }
    suites = [f"motion-digits/{suite}" for suite in run.suites]
    wanted = product(run.variants, run.seeds, suites, run.frames, run.sizes)
    assert {place for place in wanted if place not in measured} == set()
    assert all(row.num_queries == row.num_expected == run.query_clips for row in measured_on(rows))


def measured_on(rows):
    return [row for row in rows if row.metric != "gallery_top1"]


def test_tables_and_verdicts_follow_from_the_rows(rows):
    grid = claims_grid(rows)
    assert grid.to_markdown() in (STUDY / "README.md").read_text(encoding="utf-8")
    for table in [grid, *tables_of_claims(rows), *further_tables(rows)]:
        written = (STUDY / "tables" / f"{table.file_name}.csv").read_text(encoding="utf-8")
        assert written == table.to_csv(), table.file_name


def test_nothing_names_a_folder_of_the_machine_it_was_made_on(context):
    assert len(context.training) == 8 * len(context.seeds)
    assert context.commands[0].startswith("stretchysnake study motion-digits")
    for path in STUDY.rglob("*"):
        if path.suffix in {".md", ".csv", ".json", ".jsonl", ".html", ".svg"}:
            assert ABSOLUTE_PATH.search(words_of(path)) is None, path.name


@pytest.mark.parametrize(
    "text",
    ['{"path": "/disk/me/a.mp4"}', "made in /scratch/study", "/srv/a/b.csv,1", "(/x/clips/1.png)"],
)
def test_an_absolute_path_would_be_noticed(tmp_path, text):
    (tmp_path / "context.json").write_text(text, encoding="utf-8")
    assert ABSOLUTE_PATH.search(words_of(tmp_path / "context.json"))
    assert ABSOLUTE_PATH.search("https://host/a/b and runs/study/a.mp4, 1/2, </td>") is None


def words_of(path):
    """The text of a published file; of rows without the packed bits in ``correct``: base64 has slashes of its own."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r'"correct": "[^"]*"', "", text) if path.suffix == ".jsonl" else text


def test_the_readme_quotes_the_study_as_it_was_measured(rows):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    grid = {row[0]: row[2:] for row in claims_grid(rows).rows}
    away = grid["(i) static tokens beats vanilla away from its scale"][0]
    native = grid["(ii) static tokens ≥ vanilla at its own scale"][0]
    tuned = grid["finetune: static tokens beats vanilla away from it"]
    for cell in [away, native, *tuned]:
        difference, low, high = re.match(r"\+?(\S+) \[(\S+), (\S+)\]", cell).groups()
        assert re.search(
            rf"{re.escape(difference)}(?: points)? \({re.escape(low)} to {re.escape(high)}\)",
            readme,
        ), cell
