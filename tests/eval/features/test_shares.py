"""Two processes under torchrun (gloo): the same rows and features as one, each clip once, bad files known to all."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from stretchysnake.eval.features.feature_cache import load_features
from stretchysnake.eval.features.shares import agree_on_failure, own_share
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.ranks import SINGLE, Runtime
from stretchysnake.results.rows import read_rows


@pytest.mark.parametrize("count, batch, ranks", [(0, 4, 2), (3, 4, 2), (12, 5, 2), (41, 4, 3)])
def test_shares_are_the_batches_of_one_process(count, batch, ranks):
    shares = [own_share(count, batch, Runtime(rank=r, world_size=ranks)) for r in range(ranks)]
    assert sorted(i for share in shares for i in share) == list(range(count))
    for share in shares:
        for start in range(0, len(share), batch):
            part = share[start : start + batch]
            assert part == list(range(part[0], part[0] + len(part))) and part[0] % batch == 0


def test_other_errors_than_memory_are_passed_on():
    agree_on_failure(None, SINGLE)
    with pytest.raises(RuntimeError, match="kernel"):
        agree_on_failure(RuntimeError("kernel"), SINGLE)
    with pytest.raises(MemoryError):
        agree_on_failure(MemoryError("full"), SINGLE)


@pytest.fixture(scope="module")
def two_and_one(trained, clip_folder, tmp_path_factory):
    """(rows and folder of two ranks, of one process) on videos of which one turns out cut while it is decoded."""
    root = tmp_path_factory.mktemp("ranks")
    videos = shutil.copytree(clip_folder, root / "videos")
    whole = (videos / "class1" / "2.mp4").read_bytes()
    (videos / "class1" / "2.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    found = []
    for name in ("two", "one"):
        out = root / name
        settings = {
            "weights": trained[1].weights,
            "gallery": str(clip_folder),
            "queries": str(videos),
            "out": str(out / "rows.jsonl"),
            "feature_cache": str(out / "features"),
        }
        lists = {"frames": [4], "sizes": [16, 32], "protocols": ["retrieval", "probe", "finetune"]}
        if name == "one":
            rows = evaluate(EvaluateRun(**settings, **lists, batch_size=5))
        else:
            words = [f"--{key}={value}" for key, value in settings.items()]
            words += [f"--{key}=[{','.join(map(str, v))}]" for key, v in lists.items()]
            done = subprocess.run(
                [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                 "-m", "stretchysnake.cli", "evaluate", *words, "--batch_size=5"],
                capture_output=True,
                text=True,
                timeout=300,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
            )  # fmt: skip
            rows = read_rows(out / "rows.jsonl") if (out / "rows.jsonl").exists() else done.stderr
        found.append((rows, out))
    return found


def test_rows_of_two_ranks_are_those_of_one(two_and_one):
    (two, _), (one, _) = two_and_one
    assert len(two) == len(one) == 6, two
    for a, b in zip(two, one, strict=True):
        for name in ("protocol", "num_frames", "size", "value", "correct", "queries", "num_queries",
                     "num_expected", "num_gallery", "note"):  # fmt: skip
            assert getattr(a, name) == getattr(b, name), name


def test_features_of_two_ranks_are_those_of_one_in_order(two_and_one):
    stored = [
        {
            path.name: load_features(path)
            for path in sorted((out / "features").glob("*.safetensors"))
        }
        for _, out in two_and_one
    ]
    assert stored[0].keys() == stored[1].keys() and len(stored[0]) == 4
    for name, two in stored[0].items():
        one = stored[1][name]
        assert two.paths == one.paths and len(set(two.paths)) == len(two.paths)
        torch.testing.assert_close(two.features, one.features, rtol=1e-5, atol=1e-5)
