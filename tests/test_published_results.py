"""docs/results: what is published follows from the rows published with it, and no cell of the study is missing."""

import gzip
import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import pytest

from stretchysnake.recipes.study.design import StudyRun
from stretchysnake.report.pages.context import read_context
from stretchysnake.report.tables.cells import HEAD, main_rows, percent, points
from stretchysnake.report.tables.claims_tables import claims_grid, tables_of_claims
from stretchysnake.report.tables.grids import further_tables
from stretchysnake.results.comparison import mean_difference
from stretchysnake.results.rows import read_rows, select

ABSOLUTE_PATH = re.compile(r"""(?:^|["'\s(=,])/[a-z]+/\w""", re.MULTILINE)
ROOT = Path(__file__).parents[1]
STUDY = ROOT / "docs" / "results" / "motion-digits"


@pytest.fixture(scope="module")
def rows():
    return read_rows(STUDY / "rows.jsonl.gz")


@pytest.fixture(scope="module")
def context():
    return read_context(STUDY / "context.json")


def test_every_method_suite_and_cell_was_measured_of_three_seeds_or_more(rows, context):
    run = StudyRun(seeds=tuple(context.seeds))
    measured = {
        (row.model, row.seed, row.dataset, row.num_frames, row.size)
        for row in select(rows, protocol="retrieval", metric="top1", status="ok")
    }
    seeds = {
        model: {seed for name, seed, *_ in measured if name == model} for model in run.variants
    }
    assert min(map(len, seeds.values())) >= 3
    suites = [f"motion-digits/{suite}" for suite in run.suites]
    for model in run.variants:
        wanted = product([model], seeds[model], suites, run.frames, run.sizes)
        assert {place for place in wanted if place not in measured} == set()
    queries = context.settings["query_clips"]  # the study's own, whatever a study of today asks
    of_source = context.settings["source_test_clips"]
    assert min(queries, of_source) >= 300
    for row in measured_on(rows):
        wanted = of_source if row.protocol == HEAD else queries
        assert row.num_queries == row.num_expected == wanted


def measured_on(rows):
    return [row for row in rows if row.metric != "gallery_top1"]


def test_tables_and_verdicts_follow_from_the_rows(rows):
    grid = claims_grid(rows)
    assert grid.to_markdown() in (STUDY / "README.md").read_text(encoding="utf-8")
    page = TablesOfPage()
    page.feed((STUDY / "report.html").read_text(encoding="utf-8"))
    for table in [grid, *tables_of_claims(rows), *further_tables(rows)]:
        wanted = [[numbers(cell) for cell in row] for row in [table.head, *table.rows]]
        assert wanted in page.tables, table.file_name


def numbers(cell):
    """The words and numbers of a cell in some order: the page puts an interval below its number, a word in between."""
    words = re.findall(r"[\w.+−<%]+", str(cell).replace("–", " "))
    return sorted(word for word in words if word != "to")


class TablesOfPage(HTMLParser):
    """The tables of a page, each its rows of cells, as `numbers` has them."""

    def __init__(self):
        super().__init__()
        self.tables, self.cell = [], None

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.cell = []

    def handle_data(self, data):
        if self.cell is not None:
            self.cell.append(data)

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.tables[-1][-1].append(numbers(" ".join(self.cell)))
            self.cell = None


def test_what_follows_from_rows_and_page_is_not_published_twice():
    """`stretchysnake study report` writes tables and figures again, `visualize` arrays and vector pictures."""
    files = {path.relative_to(STUDY) for path in STUDY.rglob("*") if path.is_file()}
    kinds = {path.suffix for path in files}
    assert kinds == {".md", ".html", ".json", ".gz", ".png", ".mp4"}
    assert {path.name for path in STUDY.iterdir()} == {
        *("README.md", "report.html", "overview.png", "context.json", "rows.jsonl.gz"),
        *("pictures", "samples"),
    }
    shown = read_context(STUDY / "context.json")
    named = {Path(one.path) for one in shown.pictures}
    for suite in shown.suites:
        named |= {Path(suite.contact_sheet_png), *map(Path, suite.sample_clips)}
    assert {path for path in files if len(path.parts) > 1} == named


def test_nothing_names_a_folder_of_the_machine_it_was_made_on(rows, context):
    of_rows = {(row.model, row.seed) for row in rows}
    assert {(one.model.split(" T=")[0], one.seed) for one in context.training} == of_rows
    assert len(context.training) == len({r.run_id for r in select(rows, protocol="retrieval")})
    assert context.commands[0].startswith("stretchysnake study motion-digits")
    for path in STUDY.rglob("*"):
        if path.suffix in {".md", ".csv", ".json", ".jsonl", ".gz", ".html", ".svg"}:
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
    text = (
        gzip.decompress(path.read_bytes()).decode()
        if path.suffix == ".gz"
        else path.read_text(encoding="utf-8")
    )
    return re.sub(r'"correct": "[^"]*"', "", text) if ".jsonl" in path.name else text


def test_the_readme_quotes_the_study_as_it_was_measured(rows):
    """Its first table, cell by cell, and the differences that its text names."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for suite in ("short", "fine", "long"):
        (line,) = [line for line in readme.splitlines() if line.startswith(f"| {suite}: ")]
        told = [cell.strip().replace("*", "") for cell in line.strip("| ").split("|")][1:]
        pair = {"dataset": f"motion-digits/{suite}"}
        away, own = (
            mean_difference(main_rows(rows), "static_tokens", "vanilla", cells=cells, **pair)
            for cells in ("away", "native")
        )
        means = [away.mean_b, away.mean_a, own.mean_b, own.mean_a]
        assert told[:4] == [f"{percent(mean)} %" for mean in means]
        assert told[4:] == [with_interval(difference) for difference in (away, own)]
    grid = {row[0]: row[2:] for row in claims_grid(rows).rows}
    for cell in grid["finetune: static tokens beats vanilla away from it"]:
        difference, low, high = re.match(r"\+?(\S+) \[(\S+), (\S+)\]", cell).groups()
        assert f"{difference} ({low} to {high})" in readme, cell


def test_the_method_quotes_several_scales_a_step_as_they_were_measured(rows):
    lines = (ROOT / "docs" / "method.md").read_text(encoding="utf-8").splitlines()
    rows = select(rows, model={"static_tokens k=4", "static_tokens"})
    for suite in ("short", "fine", "long"):
        pair = {"dataset": f"motion-digits/{suite}"}
        told = []
        for cells in ("away", "native"):
            found = mean_difference(rows, "static_tokens k=4", "static_tokens", cells=cells, **pair)
            told += [with_interval(found), ", ".join(map(points, found.per_seed))]
        assert f"| {suite} | {' | '.join(told)} |" in lines


def test_the_method_quotes_kernels_resized_by_pi_in_training_as_they_were_measured(rows):
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    rows = select(rows, model={"static_tokens pi kernels", "static_tokens"})
    for suite in ("short", "fine", "long"):
        pair = {"dataset": f"motion-digits/{suite}"}
        found = mean_difference(rows, "static_tokens pi kernels", "static_tokens", **pair)
        assert f"{suite} {with_interval(found)}" in text


def with_interval(difference):
    low, high = map(points, difference.interval)
    return f"{points(difference.mean)} ({low} to {high})"
