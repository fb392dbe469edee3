"""The quickstart, shrunk: all six methods from generated videos to the report."""

from dataclasses import replace
from pathlib import Path

import pytest

from stretchysnake import VARIANTS
from stretchysnake.cli.measurements.quickstart import without_flag
from stretchysnake.data import motion_digits
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.recipes.motion_digits import SUITES
from stretchysnake.recipes.quickstart import (
    QuickstartRun,
    of_other_videos,
    pretrained_quickstart,
    quickstart,
    shipped_by_variant,
    train_run,
)
from stretchysnake.results.rows import read_rows
from stretchysnake.train.run import OptimConfig


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory):
    run = QuickstartRun(
        out=str(tmp_path_factory.mktemp("quickstart")),
        methods=tuple(VARIANTS),
        steps=2,
        batch_size=2,
        suites=("short", "fine", "long"),
        frames=(4, 8),
        sizes=(16, 32),
        source_clips=40,
        gallery_clips=24,
        query_clips=24,
        jobs=1,
    )
    return run, quickstart(run)


def test_all_six_methods_train_sweep_and_show(shrunk):
    run, (report, headlines) = shrunk
    rows = read_rows(f"{run.out}/rows.jsonl")
    assert len(rows) == 6 * 3 * 4
    assert {row.model for row in rows} == set(VARIANTS)
    assert all(row.status == "ok" and row.num_queries == 24 for row in rows)
    assert all(row.note == "trained on from videomamba-nano" for row in rows)
    assert len(headlines) == 5
    assert headlines[3] == "All trainings went on from the same weights."
    page = Path(report).read_text()
    assert "static tokens" in page.lower()
    assert "All trainings went on from the same weights." in page
    assert "videomamba-nano, came with the package: variant vanilla" in page


def test_trainings_go_on_from_what_came_with_the_package(shrunk):
    """Two steps change the trained weights by less than a training from scratch is away from them."""
    run, _ = shrunk
    begun, _ = read_checkpoint(shipped_by_variant()["vanilla"].file)
    for method in ("vanilla", "static_tokens"):
        wanted = train_run(run, method, 0, data="", cache="")
        ended, _ = read_checkpoint(f"{wanted.out}/weights.safetensors")
        for name, before in begun.items():
            if not name.startswith("head"):  # forty clips have fewer classes
                assert (ended[name] - before).norm() < 0.1 * before.norm() + 0.02, name


def test_from_scratch_when_told(tmp_path):
    run = QuickstartRun(out=str(tmp_path), start=None)
    assert train_run(run, "vanilla", 0, data="", cache="").weights is None
    assert (
        train_run(replace(run, start="x.pth"), "vanilla", 0, data="", cache="").weights == "x.pth"
    )


def test_second_call_repeats_nothing(shrunk):
    run, first = shrunk
    before = Path(run.out, "rows.jsonl").read_text()
    assert quickstart(run)[1] == first[1]
    assert Path(run.out, "rows.jsonl").read_text() == before


def test_a_device_of_no_name_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match=r"device \('gpu'\) must be one of: auto, cpu, cuda"):
        QuickstartRun(out=str(tmp_path / "q"), device="gpu")
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"suites": ("foo",)}, r"suites \(foo\) must be of: short, fine, long"),
        ({"suites": ("source",)}, r"suites \(source\) must be of"),
        ({"methods": ()}, r"methods \(\) must hold one or more, each once"),
        ({"methods": ("flexvit",)}, r"variant \('flexvit'\) is not known \(did you mean flexivit"),
        ({"steps": 0}, r"steps \(0\) must be at least 1"),
        ({"batch_size": 0}, r"batch_size \(0\) must be at least 1"),
        ({"sizes": (33,)}, r"size \(33\) must be a multiple of patch_size \(8\); nearest: 32, 40"),
        ({"sizes": (-32,)}, r"size \(-32\) must be a positive integer"),
        ({"frames": (8, 32)}, r"frames \(32\) and sizes \(16\) must be at most 16 and 64"),
        ({"source_clips": 0}, r"source_clips \(0\) must be at least 1"),
        ({"gallery_clips": 23}, r"gallery_clips \(23\) must be at least 24"),
        ({"gallery_clips": 9, "suites": ("short",)}, r"gallery_clips \(9\) must be at least 10"),
        ({"query_clips": 0}, r"query_clips \(0\) must be at least 1"),
    ],
)
def test_what_cannot_be_made_or_measured_is_refused(changed, text):
    with pytest.raises(ValueError, match=text):
        QuickstartRun(**changed)


def test_weights_to_start_from_that_are_not_there_are_told_before_a_video_is_made(tmp_path):
    run = QuickstartRun(out=str(tmp_path / "q"), start="videomamba-nan")
    with pytest.raises(ValueError, match=r"weights \(videomamba-nan\)"):
        quickstart(run)
    assert not (tmp_path / "q").exists()


def test_suites_have_the_classes_that_the_videos_have():
    classes = {name: motion_digits.info(name)["classes"] for name in motion_digits.SUITES[1:]}
    assert {name: len(of) for name, of in classes.items()} == SUITES


def test_the_weights_that_came_with_the_package_are_measured_and_never_told_as_trained_here(
    shrunk, tmp_path, monkeypatch
):
    def train(*_, **__):
        raise AssertionError("nothing is trained")

    monkeypatch.setattr("stretchysnake.train.loop.train", train)
    videos = Path(shrunk[0].out) / "motion-digits"
    few = {"frames": (8,), "sizes": (16, 32), "suites": ("short",), "jobs": 1}
    as_there = {"data": str(videos), "source_clips": 40, "gallery_clips": 24, "query_clips": 24}
    run = replace(pretrained_quickstart(), out=str(tmp_path / "out"), **few, **as_there)
    report, lines = quickstart(run)
    rows = read_rows(tmp_path / "out" / "rows.jsonl")
    assert [(row.model, row.size) for row in rows] == [
        ("vanilla", 16), ("vanilla", 32), ("static_tokens", 16), ("static_tokens", 32),
    ]  # fmt: skip
    for row in rows:
        own = shipped_by_variant()[row.model]
        assert row.run_id == f"{own.trained['digest']}-shipped"
        assert row.note == f"{own.name}, {own.said}" and row.seed == own.trained["seed"]
        assert f"trained for {own.trained['steps']:,} steps," in row.note
        assert f" seed {row.seed}, on MotionDigits" in row.note
    page = Path(report).read_text(encoding="utf-8")
    assert page.count("Nothing was trained here.") == 2 and "final loss" not in page
    assert not [name for name in ("steps", "batch_size", "optim") if f" {name} = " in page]
    assert "stretchysnake quickstart --pretrained --out" in page and "make quickstart" not in page
    assert any(line.startswith("stretchysnake-nano, came with the package") for line in lines)
    lists = {"gallery": str(videos / "short-train.csv"), "queries": str(videos / "short-test.csv")}
    alone = EvaluateRun(
        weights="stretchysnake-nano", out=str(tmp_path / "alone.jsonl"), frames=[8], sizes=[16, 32],
        cache=str(videos / "frame-cache"), device="cpu", **lists
    )  # fmt: skip
    assert [row.value for row in evaluate(alone)] == [row.value for row in rows[2:]]
    before = (tmp_path / "out" / "rows.jsonl").read_bytes()
    assert quickstart(run)[1] == lines
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == before


def test_weights_of_another_version_of_the_videos_are_said(shrunk, monkeypatch):
    trained = {("vanilla", 0): shipped_by_variant()["vanilla"]}
    monkeypatch.setattr("stretchysnake.data.motion_digits.VERSION", 10**6)
    (said,) = of_other_videos(trained)
    assert "version 1000000: videomamba-nano never saw their kind" in said


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"start": None}, r"start \(None\) belongs to a training"),
        ({"steps": 5}, r"steps \(5\) belongs to a training, and with pretrained nothing is trained"),
        ({"seeds": (0, 1)}, r"seeds \(\(0, 1\)\) belongs to a training"),
        ({"optim": OptimConfig(lr=1.0)}, r"optim \(.*\) belongs to a training"),
        ({"methods": ("vanilla", "flexivit")}, r"methods \(flexivit\) must be of those whose weights"),
    ],
)  # fmt: skip
def test_what_pretrained_cannot_do_is_refused(changed, text):
    with pytest.raises(ValueError, match=text):
        replace(pretrained_quickstart(), **changed)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--pretrained", "--out", "x"], ["--out", "x"]),
        (["--out", "x", "--pretrained", "true"], ["--out", "x"]),
        (["--pretrained=true"], []),
        (["--pretrained", "false", "--steps", "3"], ["--pretrained", "false", "--steps", "3"]),
        (["--steps", "3"], ["--steps", "3"]),
    ],
)
def test_the_flag_stands_alone_or_has_a_value(words, left):
    assert without_flag(words) == left
