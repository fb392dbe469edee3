"""Every architecture of the table through every verb: two steps of training, measuring, an index, a classifier, a file."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from small_backbones import names, small_config

from stretchysnake import cli
from stretchysnake.data.records import read_records
from stretchysnake.flexibility import sets_around
from stretchysnake.models.architectures import build_model
from stretchysnake.models.backbone import pixels_of
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.models.weights.loading import load_model
from stretchysnake.results.rows import read_rows
from stretchysnake.train.checkpoints.checkpoint import checkpoints_in
from stretchysnake.train.loop import train
from stretchysnake.train.run import TrainRun

every = pytest.mark.parametrize("name", names())


@pytest.fixture(scope="session")
def frames(tmp_path_factory):
    """A folder for the frame cache: every training reads the same decoded clips."""
    return tmp_path_factory.mktemp("frames")


def run_of(name, out, data, frames, **changes):
    config = small_config(name)
    return TrainRun(
        **{
            "data": str(data), "out": str(out), "model": config, "sets": sets_around(config.native), "steps": 2,
            "batch_size": 4, "cache": str(frames), "cache_frames": 8, "cache_size": 56, "checkpoint_every": 1,
            "ema_decay": 0.9, "seed": 3, **changes,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def trainings(clip_folder, frames, tmp_path_factory):
    """architecture -> (run, result) of two steps of static tokens, trained when first asked for."""
    folder, done = tmp_path_factory.mktemp("trainings"), {}

    def of(name):
        if name not in done:
            run = run_of(name, folder / name, clip_folder, frames)
            done[name] = run, train(run)
        return done[name]

    return of


@every
def test_two_steps_change_every_weight_and_resume_bit_for_bit(name, trainings, frames, tmp_path):
    run, result = trainings(name)
    assert len(result.losses) == 2
    ended = read_checkpoint(result.weights)[0]
    first = checkpoints_in(Path(run.out) / "checkpoints")
    assert len(first) == 2
    # the same run from its first step's checkpoint: dropout, drop path and running statistics among it
    again = run_of(name, tmp_path / "again", run.data, frames)
    import shutil

    shutil.copytree(run.out, again.out)
    (Path(again.out) / "run.json").unlink()
    for path in (Path(again.out) / "checkpoints").glob("step-*2"):
        shutil.rmtree(path)
    torch.manual_seed(99)
    torch.rand(5)
    resumed = train(again)
    assert len(resumed.losses) == 2
    found = read_checkpoint(resumed.weights)[0]
    assert found.keys() == ended.keys()
    assert all(torch.equal(found[key], ended[key]) for key in ended)
    torch.manual_seed(run.seed)
    fresh = build_model(load_model(result.weights)[0].config).state_dict()
    moved = [key for key in ended if not torch.equal(ended[key], fresh[key])]
    assert len(moved) > len(ended) / 2, set(ended) - set(moved)
