"""The examples run, shrunk."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

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
    tested |= {"ray_embed", "mteb_video"}
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


def stand_in(monkeypatch, name, **held):
    """A module of this name that holds as much of another package as an example asks for."""
    module = ModuleType(name)
    vars(module).update(held)
    monkeypatch.setitem(sys.modules, name, module)


class HeldVideos:
    """As much of a datasets.Dataset as the encoder asks for: a column of {path, bytes} once nothing is decoded."""

    def __init__(self, *videos):
        self.videos = list(videos)

    def cast_column(self, name, feature):
        assert name == "video" and feature.decode is False
        return {"video": self.videos}


def test_the_encoder_of_mteb_video(trained, clip_folder, tmp_path, monkeypatch):
    """Rows in the order of the data set, files by path and in memory, one twice: those of `embed`, bit for bit."""
    stand_in(monkeypatch, "mteb")
    stand_in(monkeypatch, "mteb.models")
    stand_in(monkeypatch, "mteb.models.abs_encoder", AbsEncoder=object)
    stand_in(monkeypatch, "mteb.models.model_meta", ModelMeta=SimpleNamespace)
    stand_in(monkeypatch, "datasets", Video=lambda decode: SimpleNamespace(decode=decode))
    spec = importlib.util.spec_from_file_location("mteb_video", EXAMPLES / "mteb_video.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    told = example.meta(trained[1].weights, num_frames=4, size=16)
    assert told.experiment_kwargs == {"num_frames": 4, "size": 16} and told.embed_dim == 64
    encoder = told.loader("name", **told.loader_kwargs)
    paths = [str(clip_folder / f"class{n}/1.mp4") for n in (2, 0, 1)]
    videos = [
        {"path": paths[0], "bytes": None},
        {"path": "gone/name.mp4", "bytes": Path(paths[1]).read_bytes()},
        {"path": paths[2], "bytes": None},
        {"path": paths[0], "bytes": None},
    ]
    of_task = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    found = encoder.encode(SimpleNamespace(dataset=HeldVideos(*videos)), **of_task)
    options = {"weights": trained[1].weights, "num_frames": 4, "size": 16}
    wanted = stretchysnake.embed(paths, **options).features.numpy()
    assert np.array_equal(found, wanted[[0, 1, 2, 0]])
    bad = HeldVideos({"path": None, "bytes": b"\0" * 50})
    with pytest.raises(RuntimeError, match=r"1 videos cannot be read: .*unreadable"):
        encoder.encode(SimpleNamespace(dataset=bad), **of_task)
