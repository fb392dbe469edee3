"""docs/backbones.md says what the models are; the benchmark of all of them runs, small."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
SIZES = runpy.run_path(str(ROOT / "benchmarks" / "backbone_sizes.py"))
PAGE = (ROOT / "docs" / "backbones.md").read_text()
ROWS = {
    cells[1].strip(" `"): [cell.strip() for cell in cells[2:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| `") and (cells := line.split("|"))
}


def test_every_published_size_has_its_row():
    assert set(SIZES["published_names"]()) <= set(ROWS)


@pytest.mark.parametrize("name", SIZES["published_names"]())
def test_parameters_on_the_page_are_those_of_the_model(name):
    parameters, official, gmacs, official_gmacs = ROWS[name][1:]
    assert float(parameters) == pytest.approx(SIZES["parameters_of"](name) / 1e6, abs=0.005)
    if official:
        assert float(official) == pytest.approx(float(parameters), rel=1e-3)
    if official_gmacs:
        assert float(official_gmacs) == pytest.approx(float(gmacs), rel=1e-3)


@pytest.mark.parametrize("name", ["timesformer-base", "mvit-base", "hiera-base", "video-swin-tiny"])
def test_gmacs_on_the_page_are_those_counted(name):
    assert float(ROWS[name][3]) == pytest.approx(SIZES["gmacs_of"](name), abs=0.005)


def run_script(monkeypatch, name, *words):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(ROOT / "benchmarks" / name), run_name="__main__")


def test_the_benchmark_of_all_backbones_runs_and_can_be_drawn(tmp_path, monkeypatch, capsys):
    out, drawn = tmp_path / "found.json", tmp_path / "drawn.svg"
    before = torch.get_num_threads()
    try:
        words = ("--quick", "--repeats", "1", "--threads", "1", "--out", out)
        run_script(monkeypatch, "backbones.py", *words)
    finally:
        torch.set_num_threads(before)
    found = json.loads(out.read_text())
    assert {cell["model"] for cell in found["cells"]} == set(found["models"])
    for cell in found["cells"]:
        assert len(cell["processor"]) == 1 and cell["processor"][0] > 0
        assert cell["measured_mib"] <= cell["counted_mib"] / 0.94 + 0.1
    assert max(gate["error_against_fp64"] for gate in found["models"].values()) < 1e-4
    assert capsys.readouterr().out.count("-nano") >= len(found["cells"])
    run_script(monkeypatch, "backbones_picture.py", out, drawn)
    assert "videomamba-nano" in drawn.read_text()
