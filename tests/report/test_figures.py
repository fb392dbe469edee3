import re
import xml.etree.ElementTree as ET

import pytest
from hand_made_rows import DATASET, VANILLA, WINS, cell, grid

from stretchysnake.report import figures

DRAW = {
    "heat_maps": lambda rows: figures.heat_maps(rows, dataset=DATASET),
    "accuracy_over_size": lambda rows: figures.accuracy_over_size(
        rows, dataset=DATASET, chance=0.1
    ),
    "accuracy_over_cost": lambda rows: figures.accuracy_over_cost(rows, dataset=DATASET),
}


@pytest.mark.parametrize("name", DRAW)
def test_figure_is_the_same_xml_every_time(name):
    first, second = (DRAW[name](grid(VANILLA, WINS)) for _ in range(2))
    assert first == second
    assert ET.fromstring(first).attrib["role"] == "img"


@pytest.mark.parametrize("name", DRAW)
@pytest.mark.parametrize(
    "rows",
    [[cell("flexivit", 8, 32, 0.0, gflops=None)], [cell("vanilla", 8, 32, None)]],
    ids=["one cell", "only OOM"],
)
def test_figure_of_almost_nothing_is_still_drawn(name, rows):
    assert DRAW[name](rows).startswith("<svg")


def test_figure_follows_the_ink_of_the_page_and_is_described():
    svg = figures.heat_maps(grid(VANILLA, WINS), dataset=DATASET)
    assert "currentColor" in svg
    assert f'aria-label="Heat maps of top1 on {DATASET}' in svg


def test_two_figures_share_no_id():
    ids = [set(re.findall(r'\bid="([^"]*)"', DRAW[name](grid(VANILLA, WINS)))) for name in DRAW]
    assert not ids[0] & ids[1] | ids[1] & ids[2] | ids[0] & ids[2]


def test_hostile_model_name_stays_inside_the_label():
    svg = figures.accuracy_over_size([cell('"><b>$^$', 8, 32, 0.5)], dataset=DATASET)
    assert "<b>" not in svg


def test_missing_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(RuntimeError, match=r"pip install 'stretchysnake\[report\]'"):
        figures.heat_maps(grid(VANILLA, WINS), dataset=DATASET)
