"""Bad files in an evaluation: reported, excluded or counted wrong by choice, n shown, none replaced."""

import importlib
import os
import shutil
import signal
from pathlib import Path

import pytest

from stretchysnake import cli
from stretchysnake.data.decoding.video import DecodeError
from stretchysnake.data.records import read_records, write_records
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.search.embed import embed


@pytest.fixture
def lists(clip_folder, tmp_path):
    """Gallery and queries of twelve; of the queries three are empty, cut and missing, of the gallery one is empty."""
    folders = [
        Path(shutil.copytree(clip_folder, tmp_path / name)) for name in ("gallery", "queries")
    ]
    (folders[0] / "class2" / "3.mp4").write_bytes(b"")
    files = [str(tmp_path / f"{name}.csv") for name in ("gallery", "queries")]
    for folder, file in zip(folders, files, strict=True):
        write_records(file, read_records(folder))
    (folders[1] / "class0" / "0.mp4").write_bytes(b"")
    cut = folders[1] / "class1" / "1.mp4"
    cut.write_bytes(cut.read_bytes()[:700])
    (folders[1] / "class2" / "2.mp4").unlink()
    return files


def run(trained, lists, tmp_path, **options):
    gallery, queries = lists
    return EvaluateRun(weights=trained[1].weights, gallery=gallery, queries=queries, frames=[4], sizes=[16],
                       out=str(tmp_path / "rows.jsonl"), **options)  # fmt: skip


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "decoded"])
def test_bad_queries_are_left_out_named_and_counted(trained, lists, tmp_path, capsys, cached):
    cache = str(tmp_path / "cache") if cached else None
    (row,) = evaluate(run(trained, lists, tmp_path, cache=cache))
    assert (row.num_queries, row.num_expected, row.num_gallery) == (9, 12, 11)
    said = capsys.readouterr().err
    assert "queries: 9 of 12 videos could be read" in said
    assert "gallery: 11 of 12 videos could be read" in said
    assert all(f": {kind}:" in said for kind in ("empty", "truncated", "missing"))


def test_counted_wrong_is_the_same_hits_over_all_queries(trained, lists, tmp_path):
    (left_out,) = evaluate(run(trained, lists, tmp_path))
    (excluded,) = evaluate(run(trained, lists, tmp_path, on_error="exclude"))
    assert excluded == left_out
    (wrong,) = evaluate(run(trained, lists, tmp_path, on_error="wrong"))
    assert wrong.value * 12 == pytest.approx(left_out.value * 9)
    assert (wrong.num_queries, wrong.num_expected) == (12, 12)
    assert "3 of 12 queries could not be read and count as wrong" in wrong.note


def test_the_exit_code_asks_for_a_choice(trained, lists, tmp_path, capsys):
    arguments = ["evaluate", "--weights", trained[1].weights, "--gallery", lists[0], "--queries", lists[1],
                 "--frames", "[4]", "--sizes", "[16]", "--out", str(tmp_path / "rows.jsonl")]  # fmt: skip
    assert cli.main(arguments) == 1
    assert cli.main([*arguments, "--on_error", "exclude"]) == 0
    assert cli.main([*arguments, "--on_error", "wrong"]) == 0
    assert cli.main([*arguments, "--on_error", "replace"]) == 2
    assert "on_error ('replace') must be one of: report, exclude, wrong" in capsys.readouterr().err


def test_embed_survives_a_decoder_that_dies(trained, clip_folder, monkeypatch):
    module = importlib.import_module("stretchysnake.search.decoding")
    read = module.read_frames

    def die_on_one(path, *arguments, **options):
        if path.endswith("class1/2.mp4"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return read(path, *arguments, **options)

    monkeypatch.setattr(module, "read_frames", die_on_one)
    found = embed(clip_folder, weights=trained[1].weights, num_frames=4, size=16)
    assert len(found.paths) == 11
    ((path, reason),) = found.failures
    assert path.endswith("class1/2.mp4") and "crashed the decoder (SIGSEGV)" in reason


def test_a_damaged_evaluation_never_raises_for_one_file(trained, lists, tmp_path):
    """The policy is about files; a list without one good file is still an error."""
    gone = tmp_path / "gone.csv"
    gone.write_text("path,label\ngone1.mp4,0\ngone2.mp4,1\n")
    with pytest.raises((ValueError, DecodeError), match="none of the 2 videos could be read"):
        evaluate(run(trained, (lists[0], str(gone)), tmp_path))
