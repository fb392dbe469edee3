"""An interrupted training goes on where it was: by the same command, by --resume, in the middle of an epoch."""

import json
import os
import signal
from contextlib import closing
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from stretchysnake import VideoMambaConfig, cli
from stretchysnake.data.clips import training_order
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.loader import (
    DecodedClips,
    DecodingLimits,
    training_batches,
    training_steps,
)
from stretchysnake.data.decoding.video_writing import write_video
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.train import loop
from stretchysnake.train.checkpoints.checkpoint import checkpoints_in
from stretchysnake.train.interrupt import TrainingInterrupted
from stretchysnake.train.loop import total_steps, train
from stretchysnake.train.run import OptimConfig, TrainRun
from stretchysnake.whole_file import Damaged


@pytest.fixture
def run(clip_folder, tmp_path):
    return TrainRun(
        data=str(clip_folder),
        out=str(tmp_path / "run"),
        variant="static_tokens",
        model=VideoMambaConfig.named("nano", embed_dim=16, depth=2, num_classes=0, drop_path=0.3),
        steps=8,
        batch_size=3,
        ema_decay=0.9,
        cache=str(tmp_path / "cache"),
    )


def stop_after(monkeypatch, step, number=signal.SIGTERM):
    """Send this process the signal during a step, once."""
    whole, sent = loop.take_step, []

    def sending(state, model, batch, *arguments, **options):
        if batch.step == step and not sent:
            sent.append(True)
            os.kill(os.getpid(), number)
        return whole(state, model, batch, *arguments, **options)

    monkeypatch.setattr(loop, "take_step", sending)


def state_of(out):
    files = ("weights.safetensors", "weights_ema.safetensors")
    return [read_checkpoint(Path(out) / name)[0] for name in files]


def same(first, second):
    return all(torch.equal(a[n], b[n]) for a, b in zip(first, second, strict=True) for n in a)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_signal_writes_a_checkpoint_and_the_same_run_goes_on_exactly(
    run, tmp_path, monkeypatch, number, code
):
    whole = train(replace(run, out=str(tmp_path / "whole")))
    stop_after(monkeypatch, 4, number)
    before = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted, match=r"of 8; a checkpoint is written.*--resume") as e:
        train(run)
    assert e.value.exit_code == code
    assert signal.getsignal(number) is before
    assert len(checkpoints_in(Path(run.out) / "checkpoints")) == 1
    again = train(run)
    assert again.losses == whole.losses
    assert same(state_of(run.out), state_of(tmp_path / "whole"))
    assert (again.clips, again.tokens) == (whole.clips, whole.tokens)


def test_run_with_every_augmentation_goes_on_exactly(run, tmp_path, monkeypatch):
    strong = Augmentation(
        flip=True, rand_augment=(2, 15), erase=0.5, mixup=0.8, cutmix=1.0, crop_scale=(0.3, 1.0)
    )
    run = replace(run, augmentation=strong, label_smoothing=0.1, precision="fp16", batch_size=5)
    whole = train(replace(run, out=str(tmp_path / "whole")))
    plain = train(replace(run, out=str(tmp_path / "plain"), augmentation=Augmentation()))
    assert all(a != b for (_, a), (_, b) in zip(whole.losses, plain.losses, strict=True))
    stop_after(monkeypatch, 4)
    with pytest.raises(TrainingInterrupted):
        train(run)
    assert train(run).losses == whole.losses
    assert same(state_of(run.out), state_of(tmp_path / "whole"))


def test_command_line_resumes_from_the_folder_alone(run, monkeypatch, capsys):
    stop_after(monkeypatch, 3)
    with pytest.raises(TrainingInterrupted):
        train(run)
    assert cli.main(["train", "--resume", run.out]) == 0
    assert "after 8 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--resume", "absent"], "must be the folder of a started training"),
        (["--resume", __file__], "must be the folder of a started training"),
        (["--resume"], "takes the folder of a started training and nothing else"),
        (
            ["--resume", "x", "--steps", "9"],
            "takes the folder of a started training and nothing else",
        ),
        (["pretrain_static_token"], "did you mean pretrain_static_tokens"),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_2(arguments, text, capsys):
    assert cli.main(["train", *arguments]) == 2
    printed = capsys.readouterr().err.strip()
    assert text in printed and len(printed.splitlines()) == 1


def test_unfinished_run_is_not_overwritten_by_another(run, monkeypatch):
    stop_after(monkeypatch, 3)
    with pytest.raises(TrainingInterrupted):
        train(run)
    with pytest.raises(ValueError, match="holds an unfinished run with other settings"):
        train(replace(run, steps=9))


def test_damaged_newest_checkpoint_is_told_and_the_one_before_is_used(
    run, tmp_path, monkeypatch, capsys
):
    whole = train(replace(run, out=str(tmp_path / "whole")))
    stop_after(monkeypatch, 5)
    with pytest.raises(TrainingInterrupted):
        train(replace(run, checkpoint_every=3))
    newest = checkpoints_in(Path(run.out) / "checkpoints")[-1] / "training.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    with pytest.raises(Damaged, match="newest good one is step-00000003"):
        train(replace(run, on_damaged="stop"))
    assert train(run).losses == whole.losses
    assert "going back to step-00000003" in capsys.readouterr().err


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """117 records of one short video, each told by its label."""
    path = tmp_path_factory.mktemp("counted") / "clip.mp4"
    write_video(path, np.zeros((2, 16, 16, 3), dtype=np.uint8))
    return [VideoRecord(str(path), label) for label in range(117)]


@pytest.mark.parametrize("shuffle", [True, False], ids=["shuffled", "in order"])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_stop_in_the_middle_of_an_epoch_loses_and_repeats_no_sample(
    counted, monkeypatch, batch_size, num_workers, shuffle
):
    monkeypatch.setattr(training_order, "scales_at", lambda *_, **__: (Scale(2, 16, 8),))
    steps = 117 if batch_size == 1 else 60
    options = {
        "variant": "-",
        "batch_size": batch_size,
        "seed": 0,
        "steps": steps,
        "shuffle": shuffle,
    }
    limits = DecodingLimits(num_workers=num_workers)
    seen = []
    # stopped after steps 13 and 40, and gone on with another number of ranks each time
    for start, end, world_size in ((0, 13, 1), (13, 40, 2), (40, steps, 1)):
        shares = []
        for rank in range(world_size):
            clips = DecodedClips(counted, limits=limits)
            ranks = {"rank": rank, "world_size": world_size, "prefetch": 2 * rank}
            drawn = training_batches(clips, start_step=start, **options, **ranks)
            with closing(drawn):
                shares.append([batch.labels.tolist() for batch in islice(drawn, end - start)])
        seen += [[i for part in parts for i in part] for parts in zip(*shares, strict=True)]
    assert seen == [step.indices for step in training_steps(117, **options)]
    samples = [index for batch in seen for index in batch]
    for epoch in range(len(samples) // 117):
        indices = samples[117 * epoch : 117 * (epoch + 1)]
        assert sorted(indices) == list(range(117))
        assert (indices == list(range(117))) is not shuffle


def test_run_survives_json_and_wrong_fields_are_named(run):
    values = json.loads(json.dumps(asdict(run)))
    assert TrainRun.from_dict(values) == run
    with pytest.raises(ValueError, match="unknown field stepz; did you mean steps"):
        TrainRun.from_dict({**values, "stepz": 3})
    with pytest.raises(ValueError, match="not the fields of a TrainRun"):
        TrainRun.from_dict({"data": "x"})


def test_digests_of_earlier_versions_hold():
    assert TrainRun(data="a.csv", out="x").digest() == "cb0f51d8edf9aa11"
    bf16 = TrainRun(data="a.csv", out="x", steps=7, precision="bf16")
    assert bf16.digest() == "8d082d4fb95fc9c7"
    assert (
        replace(bf16, device="cpu", checkpoint_every=5, parallel="fsdp", rank_timeout=9.0).digest()
        == bf16.digest()
    )
    for change in (
        {"ema_decay": 0.9},
        {"optim": OptimConfig(layer_decay=0.8)},
        {"accumulate": 2},
        {"augmentation": Augmentation(erase=0.1)},
        {"shuffle": False},
        {"compile": True},
    ):
        assert replace(bf16, **change).digest() != bf16.digest()


def test_epochs_become_steps(run):
    assert total_steps(replace(run, epochs=2), 12) == 8
    budget = replace(run, epochs=1, token_budget=256)
    steps = total_steps(budget, 100)
    drawn = list(
        training_steps(
            100, variant=run.bound_variant, batch_size=3, seed=0, steps=steps, token_budget=256
        )
    )
    assert sum(len(step.indices) for step in drawn[:-1]) < 100 <= sum(len(s.indices) for s in drawn)
