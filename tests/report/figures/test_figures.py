import re
import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest
from hand_made_rows import DATASET, VANILLA, WINS, cell, grid

from stretchysnake.report.figures.cost_front import accuracy_over_cost, pareto_front
from stretchysnake.report.figures.heat_map import readable_on
from stretchysnake.report.figures.picture import COLOURS, Picture, style
from stretchysnake.report.figures.protocol_bars import protocol_bars, protocol_cells, protocol_table
from stretchysnake.report.figures.size_curves import accuracy_over_size
from stretchysnake.report.figures.summary import chosen_cells, summary
from stretchysnake.report.figures.trade_offs import heat_maps
from stretchysnake.report.tables.cells import cells_of, main_rows
from stretchysnake.results.rows import select

DRAW = {
    "heat_maps": lambda rows: heat_maps(rows, dataset=DATASET),
    "accuracy_over_size": lambda rows: accuracy_over_size(rows, dataset=DATASET, chance=0.1),
    "accuracy_over_cost": lambda rows: accuracy_over_cost(rows, dataset=DATASET),
}


@pytest.mark.parametrize("name", DRAW)
def test_figure_is_the_same_xml_every_time(name):
    first, second = (DRAW[name](grid(VANILLA, WINS)).inline() for _ in range(2))
    assert first == second
    assert ET.fromstring(first).attrib["role"] == "img"


def test_no_figure_has_an_empty_axis():
    only_oom, no_cost = [cell("vanilla", 8, 32, None)], [cell("flexivit", 8, 32, 0.0, gflops=None)]
    assert DRAW["accuracy_over_size"](only_oom) is None
    assert DRAW["accuracy_over_cost"](only_oom) is None
    assert DRAW["accuracy_over_cost"](no_cost) is None
    assert DRAW["heat_maps"](no_cost) is None  # neither vanilla nor static tokens
    assert summary(no_cost) is None and protocol_bars(no_cost) is None
    assert DRAW["heat_maps"](only_oom).inline().startswith("<svg")  # says OOM
    assert DRAW["accuracy_over_size"](no_cost).inline().startswith("<svg")


def test_figure_follows_the_ink_of_the_page_and_is_described():
    svg = heat_maps(grid(VANILLA, WINS), dataset=DATASET).inline()
    assert "currentColor" in svg
    assert f'aria-label="Heat maps of top1 on {DATASET}' in svg


def test_two_figures_share_no_id():
    ids = [
        set(re.findall(r'\bid="([^"]*)"', DRAW[name](grid(VANILLA, WINS)).inline()))
        for name in DRAW
    ]
    assert not ids[0] & ids[1] | ids[1] & ids[2] | ids[0] & ids[2]


def test_maps_of_two_models_take_the_seeds_that_both_have_whatever_a_third_has():
    rows = [
        cell(model, 8, 32, value, seed=seed)
        for model, values in {
            "vanilla": (0.2, 0.4),
            "static_tokens": (0.5, 0.9),
            "temporal": (0.3,),
        }.items()
        for seed, value in enumerate(values)
    ]
    picture = heat_maps(rows, dataset=DATASET)
    with style("#000000") as plt:
        shown = [text.get_text() for axis in picture.draw(plt).axes for text in axis.texts]
        plt.close("all")
    assert shown == ["30", "70", "+40"]
    assert "in percent, means of 2 seeds, over frames" in picture.caption
    assert "in percent over frames" in heat_maps(rows[:1], dataset=DATASET).caption


def test_hostile_model_name_stays_inside_the_label():
    svg = accuracy_over_size([cell('"><b>$^$', 8, 32, 0.5)], dataset=DATASET).inline()
    assert "<b>" not in svg


def test_missing_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(RuntimeError, match=r"pip install 'stretchysnake\[report\]'"):
        heat_maps(grid(VANILLA, WINS), dataset=DATASET).inline()


def test_files_are_dark_on_white_and_the_same_every_time():
    picture = heat_maps(grid(VANILLA, WINS), dataset=DATASET)
    svg = picture.svg()
    assert svg == picture.svg() and "currentColor" not in svg
    drawn = ET.fromstring(svg)
    assert drawn.attrib["aria-label"] == picture.alt
    assert drawn[0].attrib == {"width": "100%", "height": "100%", "fill": "white"}  # below all else
    assert picture.png().startswith(b"\x89PNG\r\n") and picture.png() == picture.png()
    assert picture.file_name == "heat-motion-digits-short"
    assert Picture(name="../ .", alt="", draw=None).file_name == "picture"


# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
SIGHTS = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}  # fmt: skip
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ rgb / np.array([0.9505, 1, 1.089])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHTS)
def test_model_colours_stay_apart(sight):
    seen = [lab(np.clip(np.array(SIGHTS[sight]) @ linear(c), 0, 1)) for c in COLOURS.values()]
    distances = [np.linalg.norm(a - b) for a, b in combinations(seen, 2)]
    assert min(distances) > 18  # Okabe and Ito's six: 16


@pytest.mark.parametrize("ground", ["#ffffff", "#1a2028"], ids=["light page", "dark page"])
def test_model_colours_stand_out_from_the_page(ground):
    light = [float(TO_XYZ[1] @ linear(c)) + 0.05 for c in (*COLOURS.values(), ground)]
    assert min(max(c, light[-1]) / min(c, light[-1]) for c in light[:-1]) > 2.99  # WCAG: 3


def test_numbers_on_a_map_are_readable_on_every_fill():
    for share in np.linspace(0, 1, 101):
        fill = (share, 0.7 * share + 0.1, 1 - share)
        light = float(TO_XYZ[1] @ linear("#" + "".join(f"{round(255 * c):02x}" for c in fill)))
        ink = {"black": 0.0, "white": 1.0}[readable_on(fill)]
        assert (max(light, ink) + 0.05) / (min(light, ink) + 0.05) > 4.5


def test_pareto_front_keeps_what_nothing_cheaper_reaches():
    rows = [
        cell("vanilla", 8, size, value, gflops=cost)
        for size, value, cost in ((16, 0.5, 1.0), (24, 0.4, 2.0), (32, 0.7, 3.0), (48, 0.7, 4.0), (64, None, 9.0))
    ]  # fmt: skip
    front = pareto_front(cells_of(rows, dataset=DATASET).values())
    assert [(c.size, c.value) for c in front] == [(16, 0.5), (32, 0.7)]
    assert (
        pareto_front(cells_of([cell("vanilla", 8, 16, 0.5, gflops=None)], dataset=DATASET).values())
        == []
    )


def test_six_models_get_a_panel_for_each_t_and_bands_need_seeds():
    rows = [
        cell(model, t, s, 0.5, seed=seed)
        for model in COLOURS for t in (4, 8) for s in (16, 32) for seed in (0, 1)
    ]  # fmt: skip
    picture = accuracy_over_size(rows, dataset=DATASET)
    with style("black") as plt:
        figure = picture.draw(plt)
        assert [axis.get_title(loc="left") for axis in figure.axes] == ["T = 4", "T = 8"]
        assert all(len(axis.collections) == 6 for axis in figure.axes)
        plt.close(figure)
    assert "± one standard deviation over seeds" in picture.caption
    assert (
        "standard deviation"
        not in accuracy_over_size(select(rows, seed=0), dataset=DATASET).caption
    )


def test_summary_takes_the_gallerys_choice_only_where_all_have_it():
    rows = [
        cell("vanilla", 8, 16, 0.4),
        cell("vanilla", 8, 32, 0.6),
        cell("static_tokens", 8, 16, 0.5),
    ]
    guides = [
        cell(row.model, 8, row.size, 0.9 if row.size == 16 else 0.1, metric="gallery_top1")
        for row in rows
    ]
    chosen_by, found = chosen_cells(rows)
    assert (chosen_by, found[DATASET, "vanilla"].value) == ("top1", 0.6)
    chosen_by, found = chosen_cells(rows + guides)
    assert (chosen_by, found[DATASET, "vanilla"].value) == ("gallery_top1", 0.4)
    assert chosen_cells(rows + guides[:2])[0] == "top1"
    assert "so a little flattered" in summary(rows).caption
    assert "without the test queries" in summary(rows + guides).caption


def test_summary_takes_the_seeds_that_all_models_of_a_data_set_have():
    rows = [
        cell("vanilla", 8, 32, 0.6),
        cell("static_tokens", 8, 32, 0.5),
        cell("static_tokens", 8, 32, 0.9, seed=1),
        cell("static_tokens", 8, 32, 0.7, dataset="other", seed=1),  # alone there
    ]
    _, found = chosen_cells(rows)
    assert {place: best.value for place, best in found.items()} == {
        (DATASET, "vanilla"): 0.6,
        (DATASET, "static_tokens"): 0.5,
        ("other", "static_tokens"): 0.7,
    }


def test_bars_stand_at_vanillas_scale_and_say_what_is_missing():
    rows = grid(VANILLA, WINS)
    rows += [
        cell("vanilla", 8, 32, 0.9, protocol="probe"),
        cell("vanilla", 16, 64, 0.1, protocol="probe"),
    ]
    found = protocol_cells(rows)
    assert {key: c.value for key, c in found.items()} == {
        ("retrieval", DATASET, "vanilla"): VANILLA[1],
        ("retrieval", DATASET, "static_tokens"): WINS[1],
        ("probe", DATASET, "vanilla"): 0.9,
    }
    with style("black") as plt:
        figure = protocol_bars(rows).draw(plt)
        words = [text.get_text() for axis in figure.axes for text in axis.texts]
        plt.close(figure)
    assert words == ["80.0", "85.0", "90.0"]
    assert "Linear probe: vanilla alone." in protocol_bars(rows).caption
    table = protocol_table(rows)
    assert table.rows[0][:5] == (DATASET, "retrieval", "vanilla", "8 × 32 px", "80.0 [75.8, 83.6]")
    assert protocol_table(grid(VANILLA, WINS)) is None


def test_bars_of_a_protocol_measured_elsewhere_say_where():
    rows = [
        *grid(VANILLA, WINS),
        *(cell(m, 16, 32, 0.5, protocol="finetune") for m in ("vanilla", "static_tokens")),
    ]
    assert "T = 8, S = 32 px, T = 16, S = 32 px" in protocol_bars(rows).caption


def test_rows_of_a_vanilla_trained_at_another_t_stay_out_of_the_main_figures():
    rows = grid(VANILLA, WINS, run_id="main")
    rows += [cell("static_tokens", 8, 32, 0.85, run_id="static", native=True)]
    other = [
        cell("vanilla", 16, 32, 0.99, run_id="other", native=True),
        cell("vanilla", 8, 16, 0.01, run_id="other"),
    ]
    assert main_rows(rows + other) == rows
    assert main_rows(rows) == rows


def test_a_hole_among_the_bars_says_so():
    rows = [*grid(VANILLA, WINS), *grid(VANILLA, WINS, dataset="other")]
    rows += [cell("vanilla", 8, 32, 0.9, protocol="probe", dataset=d) for d in (DATASET, "other")]
    rows += [cell("static_tokens", 8, 32, 0.9, protocol="probe", dataset="other")]
    with style("black") as plt:
        figure = protocol_bars(rows).draw(plt)
        words = [text.get_text() for text in figure.axes[1].texts]
        plt.close(figure)
    assert words == ["90.0", "not measured", "90.0", "90.0"]
