"""What a reader with a screen reader, weak sight, no colour vision or a phone needs of the page."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hand_made_rows import DATASET, VANILLA, WINS, cell, grid

from stretchysnake.report.pages.context import PictureFile, ReportContext, SuiteInfo
from stretchysnake.report.pages.page import render_page

TEMPLATE = Path(__file__).parents[2] / "stretchysnake" / "report" / "pages" / "page.html.j2"
TEXT = ("ink", "soft", "blue", "green", "red")
GROUNDS = ("ground", "card", "shade")


class Outline(HTMLParser):
    """Tags with their attributes, and the text of headings."""

    def __init__(self):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def all(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "activation.png").write_bytes(b"\x89PNG")
    (folder / "sheet.png").write_bytes(b"\x89PNG")
    suite = SuiteInfo(
        name="short",
        dataset=DATASET,
        description="",
        num_classes=10,
        chance=0.1,
        contact_sheet_png=folder / "sheet.png",
    )
    rows = grid(VANILLA, WINS) + grid(WINS, VANILLA, protocol="probe")
    rows += [cell("vanilla", 8, 32, 0.3, dataset="motion-digits/fine")]
    pictures = [
        PictureFile(
            path=folder / "activation.png", alt="a map", caption="c", section="Activation maps"
        ),
        PictureFile(path=folder / "gone.png", alt="gone"),
    ]
    return render_page(rows, ReportContext(suites=[suite], pictures=pictures))


@pytest.fixture(scope="module")
def outline(html):
    found = Outline()
    found.feed(html)
    return found


def test_page_names_its_language_and_fits_a_phone(outline):
    assert outline.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in outline.all(
        "meta"
    )


def test_every_picture_has_words(outline):
    assert len(outline.all("img")) == 2
    assert all(attributes.get("alt", "").strip() for attributes in outline.all("img"))
    drawn = outline.all("svg")
    assert len(drawn) >= 5
    assert all(a.get("role") == "img" and a.get("aria-label", "").strip() for a in drawn)


def test_headings_go_down_one_step_at_a_time(outline):
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_header_cells_say_what_they_head(outline):
    heads = outline.all("th")
    assert heads and all(a.get("scope") in ("col", "row") for a in heads)


def test_what_scrolls_can_be_reached_by_keyboard(outline):
    scrolling = [a for a in outline.all("div") if a.get("class") in ("scroll", "wide")]
    assert scrolling
    assert all(a.get("tabindex") == "0" and a.get("aria-label", "").strip() for a in scrolling)


def palettes() -> dict[str, dict[str, str]]:
    css = TEMPLATE.read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{([^}]*--ground[^}]*--blue[^}]*)\}", css)
    return {
        name: dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for name, block in (("light", light), ("dark", dark))
    }


def luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("text", TEXT)
@pytest.mark.parametrize("ground", GROUNDS)
def test_text_stands_out_from_its_ground(theme, text, ground):
    colours = palettes()[theme]
    one, other = sorted((luminance(colours[text]), luminance(colours[ground])))
    assert (other + 0.05) / (one + 0.05) >= 4.5


def test_no_colour_of_the_style_sheet_escapes_the_contrast_test():
    css = re.search(r"<style>(.*?)</style>", TEMPLATE.read_text(encoding="utf-8"), re.DOTALL)[1]
    css = re.sub(r"@media print \{.*", "", css, flags=re.DOTALL)
    outside = re.sub(r":root \{[^}]*\}", "", css)
    assert set(re.findall(r"#[0-9a-fA-F]{3,6}\b", outside)) == {"#000"}  # behind a video
    assert set(re.findall(r"[^-]color: var\(--(\w+)\)", outside)) <= set(TEXT)
    assert set(re.findall(r"background: var\(--(\w+)\)", outside)) <= set(GROUNDS)


def test_pictures_made_elsewhere_stand_under_their_heading_and_missing_ones_are_named(html):
    assert '<h2 id="section-1">Activation maps</h2>' in html
    assert "Not embedded, missing or too large for one page: gone.png." in html


def test_page_stays_below_ten_megabytes(tmp_path):
    names = [f"{n}.png" for n in range(7)]
    for name in names:
        (tmp_path / name).write_bytes(bytes(1_000_000))
    pictures = [PictureFile(path=tmp_path / name, alt=name) for name in names]
    html = render_page(grid(VANILLA, WINS), ReportContext(pictures=pictures))
    assert len(html.encode()) < 10_000_000
    assert "too large for one page: 4.png, 5.png, 6.png." in html
