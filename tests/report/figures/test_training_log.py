"""log.html of a finished training: what it says, and that it is well-formed and loads nothing."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from stretchysnake.report.figures.training_log import binned, write_training_log


@pytest.fixture
def folder(tmp_path):
    run = {"variant": "static_tokens", "data": "<clips>&", "seed": 3, "precision": "fp32"}
    result = {"seconds": 10.0, "clips": 400, "tokens": 9000}
    finished = {"run": run, "result": result, "environment": {"torch": "2.13"}}
    (tmp_path / "run.json").write_text(json.dumps(finished))
    losses = [[step, 2.0 - step / 100] for step in range(100) if step != 7]
    (tmp_path / "loss.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in losses))
    events = [{"event": "step", "step": step, "lr": step / 1000} for step in range(0, 100, 10)]
    events += [{"event": "skipped", "step": 7}, {"event": "resumed", "step": 50}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return tmp_path


def test_page_shows_the_lines_and_what_happened(folder):
    page = write_training_log(folder).read_text()
    charts = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    assert [chart.get("aria-label") for chart in charts] == [
        "loss over steps 0 to 99, from 2 to 1.01",
        "learning rate over steps 0 to 90, from 0 to 0.09",
    ]
    line = charts[0].find("polyline").get("points").split()
    heights = [float(point.split(",")[1]) for point in line]
    assert len(line) == 20 and heights == sorted(heights)  # the loss falls, so the line does
    marks = [element.get("class") for element in charts[0].iter("line")]
    assert marks.count("skipped") == 1 and marks.count("resumed") == 1
    assert "40.0 clips/s" in page and "1 not finite" in page
    assert "&lt;clips&gt;&amp;" in page and "<clips>" not in page
    assert "http" not in page and "<script" not in page


def test_bins_keep_mean_and_extremes():
    points = [(step, float(step % 2)) for step in range(1000)]
    bins = binned(points)
    assert len(bins) == 200
    assert all(
        (mean, low, high) == (pytest.approx(0.5, abs=0.11), 0, 1) for _, mean, low, high in bins
    )
    assert binned([(4, 1.5)]) == [(4, 1.5, 1.5, 1.5)]
    assert binned([]) == []


def test_run_without_a_step_and_without_a_log_has_a_page(folder):
    (folder / "loss.jsonl").write_text("")
    (folder / "log.jsonl").unlink()
    assert "no step was done" in write_training_log(folder).read_text()


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_folder_without_a_finished_training_is_refused(folder, content):
    (folder / "run.json").unlink()
    if content:
        (folder / "run.json").write_text(content)
    with pytest.raises(ValueError, match="holds no finished training"):
        write_training_log(folder)
