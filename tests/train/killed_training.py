"""Kills trainings and saves at random moments; run as a program, so that it forks before torch starts any thread.

python killed_training.py train DATA WORK TRIALS     each trial: killed, resumed until done, compared byte for byte
python killed_training.py save DATA WORK TRIALS      each trial: a loop of saves, killed at a random time
"""

import gc
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # the optimiser imports it at its first step; once here instead of once in every child
from safetensors.torch import load_file

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.train import loop
from stretchysnake.train.checkpoints import checkpoint
from stretchysnake.train.run import TrainRun

STEPS = 16


def small_run(data: str, out: Path) -> TrainRun:
    return TrainRun(
        data=data,
        out=str(out),
        variant="static_tokens",
        model=VideoMambaConfig.named("nano", embed_dim=16, depth=2, num_classes=0, drop_path=0.3),
        steps=STEPS,
        batch_size=4,
        accumulate=2,
        ema_decay=0.9,
        checkpoint_every=4,
        cache=str(out.parent / "cache"),
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(function, *arguments) -> int:
    """The exit status of the function in a forked process."""
    child = os.fork()
    if child == 0:
        gc.freeze()  # as in tests/search/killed_at.py
        code = 1
        try:
            function(*arguments)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def train_killed(run: TrainRun, place: str, count: int) -> None:
    """Train, and die at the count-th step or the count-th sync or rename of a save."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 the process ends
    torch.set_num_threads(1)
    left = count

    def dying(function):
        def called(*arguments, **options):
            nonlocal left
            left -= 1
            if left <= 0:
                die()
            return function(*arguments, **options)

        return called

    if place == "step":
        loop.take_step = dying(loop.take_step)
    elif place == "save":
        checkpoint._sync = dying(checkpoint._sync)
    loop.train(run)


def outcome(out: Path) -> dict:
    """Everything a run ends with; tensors by value, as safetensors writes its header in any order."""
    last = checkpoint.checkpoints_in(out / "checkpoints")[-1]
    assert last.name == f"step-{STEPS:08d}"
    return {
        "losses": (out / "loss.jsonl").read_bytes(),
        **{
            path.name: {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
            for path in (
                out / "weights.safetensors",
                out / "weights_ema.safetensors",
                last / "training.safetensors",
            )
        },
    }


def kill_trainings(data: str, work: Path, trials: int) -> dict:
    assert in_child(train_killed, small_run(data, work / "whole"), "none", 0) == 0
    wanted, equal, kills = outcome(work / "whole"), 0, 0
    for trial in range(trials):
        rng = random.Random(trial)
        run = small_run(data, work / f"killed{trial}")
        place = "save" if trial % 2 else "step"
        # a save has six syncs here, and four saves are due: the range covers the second to the last but one
        count = rng.randrange(8, 20) if place == "save" else rng.randrange(2, STEPS)
        status = in_child(train_killed, run, place, count)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
        kills += 1
        assert in_child(train_killed, run, "none", 0) == 0
        equal += outcome(Path(run.out)) == wanted
    return {"trials": trials, "kills": kills, "equal": equal}


def save_forever(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = VideoMamba(VideoMambaConfig.named("nano", embed_dim=16, depth=1, num_classes=3))
    step = 0
    if found := checkpoint.newest_good(folder):
        step = checkpoint.read_state(found)["step"]
    while True:
        step += 1
        checkpoint.write_checkpoint(
            folder,
            step,
            weights=model.state_dict(),
            config=model.config,
            metadata={},
            training={"x": torch.ones(50_000)},
            state={"clips": 1},
        )
        checkpoint.prune(folder, keep=2)


def kill_saves(work: Path, trials: int) -> dict:
    folder, readable, steps, inside = work / "saves", 0, 0, 0
    for trial in range(trials):
        before = checkpoint.newest_good(folder) if folder.exists() else None
        least = checkpoint.read_state(before)["step"] if before else 0
        child = os.fork()
        if child == 0:
            gc.freeze()
            save_forever(folder)
        # until one is there the first time, then at once: nearly every kill falls into a save
        while not checkpoint.checkpoints_in(folder):
            time.sleep(0.005)
        time.sleep(random.Random(trial).uniform(0.02, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        inside += any(folder.glob(".step-*"))
        complaints = []
        found = checkpoint.newest_good(folder, say=complaints.append)
        readable += found is not None and not complaints
        steps = checkpoint.read_state(found)["step"]
        assert steps >= least
    return {"trials": trials, "readable": readable, "saves": steps, "inside a save": inside}


if __name__ == "__main__":
    what, data, work, trials = sys.argv[1:]
    Path(work).mkdir(parents=True, exist_ok=True)
    if what == "train":
        print(json.dumps(kill_trainings(data, Path(work), int(trials))))
    else:
        print(json.dumps(kill_saves(Path(work), int(trials))))
