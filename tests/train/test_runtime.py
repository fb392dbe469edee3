"""Two processes under torchrun (gloo, CPU): the same training as one, and no hang when one dies."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch

from stretchysnake import VideoMambaConfig
from stretchysnake.models.checkpoints import read_checkpoint
from stretchysnake.train.loop import train
from stretchysnake.train.run import TrainRun
from stretchysnake.train.runtime import SINGLE, Runtime

WORKER = """
import json, os, signal, sys
from stretchysnake.train import loop
from stretchysnake.train.run import TrainRun
from stretchysnake.train.runtime import open_runtime

run = TrainRun.from_dict(json.loads(sys.argv[1]))
rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
whole = loop.take_step

def dying(state, model, batch, *arguments, **options):
    if rank == 1 and batch.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(state, model, batch, *arguments, **options)

loop.take_step = dying
with open_runtime(rank=rank, world_size=world_size) as runtime:
    loop.train(run, runtime=runtime)
"""


def torchrun(run, tmp_path, *, die_at=-1):
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    return subprocess.run(
        [sys.executable, *command, json.dumps(asdict(run)), str(die_at)],
        capture_output=True,
        text=True,
        timeout=580,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )


@pytest.fixture
def run(clip_folder, tmp_path):
    return TrainRun(
        data=str(clip_folder),
        out=str(tmp_path / "two"),
        variant="static_tokens",
        model=VideoMambaConfig.named("nano", embed_dim=16, depth=2, num_classes=0),
        steps=4,
        batch_size=5,  # not divisible by two: shares of two and three
        precision="fp64",
        checkpoint_every=2,
        cache=str(tmp_path / "cache"),
    )


def test_a_killed_rank_is_an_error_and_two_ranks_end_as_one(run, tmp_path):
    killed = torchrun(run, tmp_path, die_at=3)
    assert killed.returncode != 0
    assert "Signal 9 (SIGKILL)" in killed.stderr or "exitcode  : -9" in killed.stderr
    assert not (tmp_path / "two" / "run.json").exists()
    done = torchrun(run, tmp_path)  # goes on from the checkpoint of step 2
    assert done.returncode == 0, done.stderr[-2000:]
    assert "going on from" in done.stderr
    one = train(replace(run, out=str(tmp_path / "one")))
    first = read_checkpoint(one.weights)[0]
    second = read_checkpoint(tmp_path / "two" / "weights.safetensors")[0]
    assert all((first[name] - second[name]).abs().max() < 1e-10 for name in first)
    assert any(not torch.equal(first[name], torch.zeros_like(first[name])) for name in first)


def test_one_process_needs_no_connection():
    assert SINGLE.gather("x") == ["x"]
    assert SINGLE.from_first("y") == "y"
    assert SINGLE.device("cpu") == torch.device("cpu")
    assert Runtime(rank=1, world_size=2).is_first is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_absent_gpu_is_said():
    with pytest.raises(RuntimeError, match=r"device \(cuda\) is not there"):
        SINGLE.device("cuda")
