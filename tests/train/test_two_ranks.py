"""Two processes under torchrun (gloo, CPU): the same training as one, whole or sliced, and no hang when one dies."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from shaped_clips import write_shaped

from stretchysnake import VideoMambaConfig, cli
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.records import VideoRecord, read_records, write_records
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.train.checkpoints.checkpoint import (
    SLICES,
    checkpoints_in,
    verify,
)
from stretchysnake.train.loop import train
from stretchysnake.train.run import TrainRun
from stretchysnake.whole_file import Damaged

PROGRAM = Path(__file__).with_name("two_ranks.py")


def torchrun(jobs, folder, *, timeout=1800):
    (folder / "jobs.json").write_text(json.dumps(jobs))
    return two_ranks(str(PROGRAM), str(folder / "jobs.json"), timeout=timeout)


def two_ranks(*words, timeout):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *command, *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )


def run_in(folder, data, **changes):
    return TrainRun(
        **{
            "data": str(data),
            "out": str(folder / "out"),
            "variant": "static_tokens",
            "model": VideoMambaConfig.named(
                "nano", embed_dim=16, depth=2, num_classes=0, drop_path=0.3
            ),
            "steps": 4,
            "batch_size": 5,  # not divisible by two: shares of two and three
            "precision": "fp64",
            "ema_decay": 0.9,
            "checkpoint_every": 2,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def studied(clip_folder, tmp_path_factory):
    """Runs by name, each trained by one process and by two; what the two said; where their files are."""
    folder = tmp_path_factory.mktemp("two")
    rotten = bytearray(Path(clip_folder, "class0", "0.mp4").read_bytes())
    rotten[len(rotten) // 3 : len(rotten) // 2] = bytes(len(rotten) // 2 - len(rotten) // 3)
    (folder / "rotten.mp4").write_bytes(rotten)
    records = [*read_records(clip_folder), VideoRecord(str(folder / "rotten.mp4"), 1)]
    write_records(folder / "bad.csv", records)
    write_records(folder / "seen.csv", [r for r in records if "/0.mp4" not in r.path][:-1])
    write_records(folder / "unseen.csv", [r for r in records if "/0.mp4" in r.path])  # two and one
    cache = {"cache": str(folder / "cache")}
    mixing = {
        "augmentation": Augmentation(mixup=0.8, cutmix=1.0, erase=0.5),
        "label_smoothing": 0.1,
    }
    plain = run_in(folder, clip_folder, **cache)
    # the rotten file is found when it is decoded, by the rank that has it in its share
    bad = run_in(folder, folder / "bad.csv", num_workers=0, steps=6, batch_size=3)
    runs = {
        "plain": plain,
        "parts": replace(plain, tokens_per_pass=256, activation_checkpointing=True),
        "mixed": replace(plain, **mixing, accumulate=2),
        "scales": replace(plain, **mixing, scales_per_step=3, batch_size=7),
        # every rank has other shapes, so another number of passes
        "shapes": replace(
            plain,
            data=str(write_shaped(folder, count=9)),
            held_out=str(write_shaped(folder, count=5, first=20)),
            fit="keep",
            scales_per_step=2,
        ),
        "probe": replace(plain, trainable="head"),
        "held out": replace(
            plain,
            data=str(folder / "seen.csv"),
            held_out=str(folder / "unseen.csv"),
            held_out_every=2,
            batch_size=4,
        ),
        "skip": replace(bad, on_error="skip"),
        "replace": replace(bad, on_error="replace"),
    }
    # only the plain ones are taken up at an earlier step: the others save at their end alone
    runs = {n: run if n == "plain" else replace(run, checkpoint_every=6) for n, run in runs.items()}
    jobs = []
    for name, run in runs.items():
        train(replace(run, out=str(folder / f"one-{name}")))
        for parallel in ("ddp", "fsdp"):
            out = str(folder / f"{parallel}-{name}")
            jobs.append({"run": asdict(replace(run, parallel=parallel, out=out))})
    for name, source in (
        ("again", "fsdp-plain"),
        ("ddp to fsdp", "ddp-plain"),
        ("1 to 2", "one-plain"),
    ):
        changed = replace(plain, parallel="fsdp", out=str(folder / name))
        jobs.append({"run": asdict(changed), "from": str(folder / source), "after": 2})
    poisoned = replace(plain, parallel="fsdp", out=str(folder / "poisoned"))
    jobs.append({"run": asdict(poisoned), "poison": [1, 2]})
    done = torchrun(jobs, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "said.txt").write_text(done.stderr)
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return runs, said, folder


def weights_of(out):
    names = ("weights.safetensors", "weights_ema.safetensors")
    return {(name, key): t for name in names for key, t in read_checkpoint(out / name)[0].items()}


def assert_near(first, second, tolerance=1e-10):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert (tensor - second[name]).abs().max() <= tolerance, name


@pytest.mark.parametrize(
    "name", ["plain", "parts", "mixed", "scales", "shapes", "probe", "held out", "skip", "replace"]
)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_end_as_one(studied, parallel, name):
    _, said, folder = studied
    one, two = folder / f"one-{name}", folder / f"{parallel}-{name}"
    assert_near(weights_of(one), weights_of(two))
    start, end = (
        read_checkpoint(folder / f"one-{n}" / "weights.safetensors")[0] for n in ("plain", name)
    )
    assert name == "plain" or any(not torch.equal(start[key], end[key]) for key in end)
    losses = [json.loads(line) for line in (one / "loss.jsonl").read_text().splitlines()]
    told = [item for item in said if item["out"] == str(two)]
    assert sorted(item["rank"] for item in told) == [0, 1]
    for (
        item
    ) in told:  # every rank counts the same steps, losses and clips, also where clips were bad
        assert [step for step, _ in item["losses"]] == [step for step, _ in losses]
        assert [v for _, v in item["losses"]] == pytest.approx([v for _, v in losses], abs=1e-10)
    first, second = (json.loads((out / "run.json").read_text()) for out in (one, two))
    assert first["bad_files"] == second["bad_files"]
    assert first["result"]["clips"] == second["result"]["clips"] == told[0]["clips"]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_measure_a_held_out_list_as_one(studied, parallel):
    _, _, folder = studied
    one, two = (folder / f"{name}-held out" for name in ("one", parallel))
    first, second = (json.loads((out / "run.json").read_text())["held_out"] for out in (one, two))
    assert [score["step"] for score in first["scores"]] == [2, 4]
    for a, b in zip(first["scores"], second["scores"], strict=True):
        assert (a["top1"], a["num_clips"]) == (b["top1"], b["num_clips"]) == (b["top1"], 3)
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-10)
    assert first["best"]["step"] == second["best"]["step"]
    best = [read_checkpoint(out / "weights_best.safetensors")[0] for out in (one, two)]
    assert_near(*best)


def test_nan_on_one_rank_skips_the_step_on_all_and_names_the_file(studied):
    runs, said, folder = studied
    told = [item for item in said if item["out"] == str(folder / "poisoned")]
    assert [[step for step, _ in item["losses"]] for item in told] == [[0, 1, 3]] * 2
    line = next(
        text for text in (folder / "said.txt").read_text().splitlines() if "skipped step 2" in text
    )
    records = read_records(runs["plain"].data)
    shares = {item["rank"]: item["requests"] for item in told}
    bad = records[shares[1][3 * 2 + 1]].path  # the second of three clips of step 2
    assert f"non-finite pixels in files {bad}" in line and "weights unchanged" in line


def test_bad_clips_were_met(studied):
    _, _, folder = studied
    for name, kind in (("skip", "skipped"), ("replace", "replaced")):
        bad = json.loads((folder / f"fsdp-{name}" / "run.json").read_text())["bad_files"]
        assert bad[kind] >= 1 and "rotten.mp4" in bad["files"][0]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_each_rank_reads_its_own_share_alone(studied, parallel):
    _, said, folder = studied
    told = [item for item in said if item["out"] == str(folder / f"{parallel}-plain")]
    shares = {item["rank"]: item["requests"] for item in told}
    assert (len(shares[0]), len(shares[1])) == (2 * 4, 3 * 4)
    together = [shares[0][2 * i : 2 * i + 2] + shares[1][3 * i : 3 * i + 3] for i in range(4)]
    order = [index for step in together for index in step]
    assert sorted(order[:12]) == list(range(12))  # an epoch: no sample lost, none twice


def test_sliced_checkpoint_is_verified_whole(studied, tmp_path):
    path = checkpoints_in(studied[2] / "fsdp-plain" / "checkpoints")[-1]
    verify(path)
    slices = sorted((path / SLICES).iterdir())
    assert len(slices) == 2
    assert not [
        file
        for file in path.rglob("*")
        if file.is_file() and file.suffix not in (".json", ".safetensors")
    ]
    for damage in ("flip", "missing", "added", "linked"):
        copy = tmp_path / damage / path.name
        shutil.copytree(path, copy)
        file = copy / SLICES / slices[1].name
        if damage == "flip":
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 4
            file.write_bytes(content)
        elif damage == "missing":
            file.unlink()
        elif damage == "added":
            shutil.copy(file, file.with_name("shard-00003-model-00001-of-00001.safetensors"))
        else:
            shutil.move(copy / SLICES, tmp_path / "elsewhere")
            (copy / SLICES).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(Damaged, match=SLICES):
            verify(copy)


def test_sliced_run_resumes_exactly_and_from_whole_ones(studied):
    _, _, folder = studied
    whole = weights_of(folder / "fsdp-plain")
    assert_near(whole, weights_of(folder / "again"), tolerance=0)
    assert_near(whole, weights_of(folder / "ddp to fsdp"))
    assert_near(whole, weights_of(folder / "1 to 2"))


def test_killed_rank_is_an_error_and_one_rank_goes_on(clip_folder, tmp_path):
    run = run_in(tmp_path, clip_folder, cache=str(tmp_path / "cache"), parallel="fsdp")
    killed = torchrun([{"run": asdict(run), "die": [1, 3]}], tmp_path)
    assert killed.returncode != 0
    assert "Signal 9 (SIGKILL)" in killed.stderr or "exitcode  : -9" in killed.stderr
    assert (
        "rank 0: another rank ended, or did not answer within rank_timeout (600 s)" in killed.stderr
    )
    assert not (tmp_path / "out" / "run.json").exists()
    assert (checkpoints_in(tmp_path / "out" / "checkpoints")[-1] / SLICES).is_dir()
    again = train(run)  # one process goes on from the slices of two
    whole = train(replace(run, out=str(tmp_path / "whole")))
    assert [v for _, v in again.losses] == pytest.approx([v for _, v in whole.losses], abs=1e-10)
    assert_near(weights_of(tmp_path / "out"), weights_of(tmp_path / "whole"))


@pytest.mark.slow
def test_what_rank_0_does_alone_is_waited_for_beyond_the_limit(tmp_path):
    done = two_ranks(
        str(PROGRAM.with_name("patient_ranks.py")), "works", str(tmp_path), timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(done.stdout.splitlines()) == ["rank 0 is there", "rank 1 is there"]


def test_end_of_rank_0_ends_a_patient_wait_at_once(tmp_path):
    done = two_ranks(str(PROGRAM.with_name("patient_ranks.py")), "dies", str(tmp_path), timeout=240)
    assert done.returncode != 0 and "is there" not in done.stdout
    assert "rank 1: another rank ended" in done.stderr or "exitcode  : 3" in done.stderr


@pytest.mark.slow
def test_rank_that_hangs_is_an_error_after_the_time_allowed(clip_folder, tmp_path):
    run = run_in(tmp_path, clip_folder, cache=str(tmp_path / "cache"), rank_timeout=5.0)
    hung = torchrun([{"run": asdict(run), "hang": [1, 3]}], tmp_path)
    assert hung.returncode != 0
    assert "rank 0: another rank ended, or did not answer within rank_timeout (5 s)" in hung.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--weights", "w.pth", "--gallery", "g", "--queries", "q"],
        ["train", "--data", "d"],
    ],
    ids=lambda words: words[0],
)
def test_limit_of_waiting_is_a_field_of_both_verbs(words, capsys):
    assert cli.main([*words, "--out", "o", "--rank_timeout", "0"]) == 2
    assert "rank_timeout (0.0) must be positive seconds" in capsys.readouterr().err
