"""The examples run, shrunk."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import stretchysnake
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.flexibility import VARIANTS

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name, *arguments):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(*map(str, arguments))


def test_every_example_is_run_here():
    tested = {"features", "retrieval", "own_variant", "own_data_set", "budget"}
    tested |= {"ray_embed", "mteb_video"}  # below, where their packages are installed
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


def test_features(trained, clip_folder, capsys):
    run("features", trained[1].weights, clip_folder / "class0/0.mp4", clip_folder / "class1/0.mp4")
    assert capsys.readouterr().out.count("(2, 64), cosines between the videos") == 3


def test_retrieval(trained, clip_folder, tmp_path, capsys):
    run("retrieval", trained[1].weights, clip_folder, tmp_path / "index")
    said = capsys.readouterr().out
    assert "12 videos in" in said and said.count(".mp4: ") == 3


def test_own_variant(clip_folder, tmp_path, capsys):
    try:
        run("own_variant", clip_folder, tmp_path / "out", 2)
    finally:
        VARIANTS.pop("growing", None)
    assert (
        "step 0: Scale(num_frames=" in (said := capsys.readouterr().out)
        and "weights.safetensors" in said
    )


def test_own_data_set(clip_folder, tmp_path, capsys):
    run("own_data_set", clip_folder, tmp_path / "out", 2)
    said = capsys.readouterr().out
    assert "train: 9 videos" in said and "test: 3 videos" in said
    assert said.count("% of 3 queries") == 4


def test_budget(trained, clip_folder, query_folder, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    lists = {"gallery": str(clip_folder), "queries": str(query_folder)}
    evaluate(
        EvaluateRun(weights=trained[1].weights, out=str(rows), frames=[4], sizes=[16, 32], **lists)
    )
    run("budget", trained[1].weights, rows, "1 GFLOPs", "1 MFLOPs")
    said = capsys.readouterr().out
    assert "Pareto front: T=4 S=" in said and "is below the cheapest cell measured" in said


def test_ray_embed(trained, clip_folder, tmp_path, monkeypatch):
    """Rows are those of one call, whatever the blocks; a bad file has its reason and ends nothing."""
    ray = pytest.importorskip("ray")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # writes no token into the home folder
    (tmp_path / "bad.mp4").write_bytes(b"\0" * 50)
    paths = [*sorted(map(str, clip_folder.rglob("*.mp4")))[:5], str(tmp_path / "bad.mp4")]
    (tmp_path / "videos.txt").write_text("".join(f"{path}\n" for path in paths))
    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=150_000_000)
    try:
        run("ray_embed", trained[1].weights, tmp_path / "videos.txt", tmp_path / "out", 2)
    finally:
        ray.shutdown()
    rows = {row["path"]: row for row in parquet.read_table(tmp_path / "out").to_pylist()}
    wanted = stretchysnake.embed(paths[:-1], weights=trained[1].weights)
    assert rows.keys() == set(paths) and "unreadable" in rows[paths[-1]]["failure"]
    for path, features in zip(wanted.paths, wanted.features.numpy(), strict=True):
        assert np.array_equal(np.float32(rows[path]["features"]), features)
        assert rows[path]["failure"] == ""
