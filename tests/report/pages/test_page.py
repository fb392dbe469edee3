import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from hand_made_rows import DATASET, LOSES, VANILLA, WINS, cell, grid

from stretchysnake.report.pages.context import (
    ReportContext,
    SuiteInfo,
    TrainingInfo,
    read_context,
    write_context,
)
from stretchysnake.report.pages.page import render_page, write_overview_png, write_page

HOSTILE = '<script>alert("x")</script><img src=http://evil.example/a.png>'


class Links(HTMLParser):
    """Every tag, id, and attribute that could load something; all text outside style."""

    def __init__(self):
        super().__init__()
        self.tags, self.ids, self.references, self.text = [], [], [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "poster", "data", "action", "srcset"):
                self.references.append(value)

    def handle_data(self, data):
        self.text += data


def parse(html) -> Links:
    links = Links()
    links.feed(html)
    return links


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    (folder / "clip <1>.mp4").write_bytes(b"not really mp4")
    (folder / "large.mp4").write_bytes(bytes(300_000))
    (folder / "sheet.png").write_bytes(b"\x89PNG")
    suite = SuiteInfo(
        name=f"short {HOSTILE}",
        dataset=DATASET,
        description=HOSTILE,
        num_classes=10,
        chance=0.1,
        contact_sheet_png=folder / "sheet.png",
        labels=[HOSTILE, "digit 1"],
        sample_clips=[folder / "clip <1>.mp4", folder / "large.mp4", folder / "gone.mp4"],
        sample_labels=[f"three {HOSTILE}", "four", "five"],
    )
    training = TrainingInfo(
        model="static_tokens",
        seed=0,
        steps=1200,
        seconds=300.0,
        clips=38400,
        final_loss=0.4,
        loss_curve=[(0, 2.3), (1200, 0.4)],
        parameters=181_234,
        scales=HOSTILE,
    )
    return ReportContext(
        title=HOSTILE,
        summary=HOSTILE,
        suites=[suite],
        training=[training],
        commands=[f"make quickstart # {HOSTILE}"],
        settings={"steps": 1200},
        seeds=[0],
        versions={"torch": HOSTILE},
        timings={"train": 300.0},
        notes=[HOSTILE],
    )


@pytest.fixture(scope="module")
def page(context):
    rows = [*grid(VANILLA, WINS), cell(HOSTILE, 8, 32, 0.5, note=HOSTILE, device=HOSTILE)]
    return render_page(rows, context)


def test_page_loads_nothing_from_outside(page):
    links = parse(page)
    assert links.references, "the page embeds clips and pictures"
    for reference in links.references:
        assert reference.startswith(("data:", "#")), reference
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(links.tags)
    outside = page.replace("http://www.w3.org/2000/svg", "").replace(
        "http://www.w3.org/1999/xlink", ""
    )
    written = outside.replace("http://evil.example", "")  # stands there as text, escaped
    assert not re.search(r"https?://|@import|url\((?!#)", written)


def test_page_escapes_hostile_names(page):
    assert "<script" not in page
    assert "<img src=http" not in page
    assert HOSTILE in parse(page).text


def test_page_ids_are_unique_and_every_inner_link_arrives(page):
    links = parse(page)
    drawn = [name for name in links.ids if "DejaVu" not in name]
    assert len(drawn) == len(set(drawn))
    inner = [name[1:] for name in links.references if name.startswith("#")]
    assert set(inner) <= set(links.ids)


def test_page_embeds_small_clips_and_counts_the_others(page):
    assert parse(page).tags.count("video") == 1
    assert "2 further sample clips not embedded." in page


def test_page_says_what_the_rows_of_the_sheet_and_the_clips_show(page):
    text = parse(page).text
    assert f"one clip a row. From the top: {HOSTILE}; digit 1." in text
    assert f"clip <1>: three {HOSTILE}" in text and "four" not in text


def test_page_counts_queries_and_names_its_limits(page):
    text = parse(page).text
    assert "400 of 400 queries" in text
    assert "One training seed (0)" in text
    assert "OOM" in text


def test_page_says_how_many_rows_do_not_know_their_weights():
    old, new = grid(VANILLA, WINS), grid(VANILLA, WINS, weights="a" * 16)
    assert "12 of 12 rows are of an earlier version" in render_page(old, ReportContext())
    assert "of an earlier version" not in render_page(new, ReportContext())


def test_page_opens_with_the_loss_when_static_tokens_loses():
    page = render_page(grid(VANILLA, LOSES), ReportContext())
    text = parse(page).text
    assert text.index("In this run static tokens lost") < text.index("What you are looking at")


def test_page_warns_of_a_suite_that_was_not_learned():
    suite = SuiteInfo(name="s", dataset=DATASET, description="", num_classes=4, chance=0.25)
    page = render_page(grid(VANILLA, LOSES), ReportContext(suites=[suite]))
    assert "below three times chance (25.0 %)" in parse(page).text


def test_page_of_a_half_finished_run():
    page = render_page([cell("static_tokens", 8, 32, None)], ReportContext())
    assert "not complete yet" in parse(page).text


def test_page_is_written_whole_or_not_at_all(tmp_path, context):
    path = tmp_path / "report.html"
    path.write_text("the old report")
    with pytest.raises(ValueError, match="run the sweep first"):
        write_page(path, [], context)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "the old report"


def test_overview_is_a_png(tmp_path):
    write_overview_png(tmp_path / "overview.png", grid(VANILLA, WINS), DATASET)
    assert (tmp_path / "overview.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_context_comes_back_from_json(tmp_path, context):
    write_context(tmp_path / "context.json", context)
    found = read_context(tmp_path / "context.json")
    write_context(tmp_path / "again.json", found)
    assert (tmp_path / "again.json").read_text() == (tmp_path / "context.json").read_text()
    (tmp_path / "bad.json").write_text(json.dumps({"titel": "x"}))
    with pytest.raises(ValueError, match=r"bad.json: not a report context .*titel"):
        read_context(tmp_path / "bad.json")


def test_importing_the_report_loads_neither_torch_nor_matplotlib():
    # The package's own __init__ re-exports the model; the report must not need it.
    code = (
        "import sys, types, importlib.util as u\n"
        "where = u.find_spec('stretchysnake').submodule_search_locations\n"
        "package = types.ModuleType('stretchysnake'); package.__path__ = list(where)\n"
        "sys.modules['stretchysnake'] = package\n"
        "import stretchysnake.report.pages.page, stretchysnake.report.tables.grids\n"
        "print(sorted({'torch', 'matplotlib', 'jinja2', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_page_shows_other_protocols_and_metrics_in_their_own_tables():
    rows = grid(VANILLA, WINS) + grid(WINS, VANILLA, protocol="probe")
    rows += grid(VANILLA, WINS, metric="gallery_top1")
    page = render_page(rows, ReportContext())
    assert f"{DATASET}: probe top1, percent" in page
    assert "one cell for each model, retrieval top1, percent" in page
    assert "<td>80.0<small>75.8–83.6</small></td>" in page
    # a dash before a minus cannot be read
    assert re.search(r"<small>[+−]\d+\.\d to [+−]\d+\.\d</small>", page)
    assert not re.search(r"[+−]\d+\.\d–[+−]", page)


def test_empty_cells_say_why_and_escape_it():
    page = render_page([cell("vanilla", 8, 224, 0.5, dataset="coin")], ReportContext())
    assert "<td>–<small>not measured</small></td>" in page
    assert "<td>–<small>no gallery_top1</small></td>" in page
    rows = [cell("vanilla", 8, 32, 0.5), cell("vanilla", 8, 32, 0.5, protocol=HOSTILE)]
    assert "<script" not in render_page(rows, ReportContext())


def test_page_of_a_probe_alone():
    assert "<html" in render_page(grid(VANILLA, WINS, protocol="probe"), ReportContext())
