"""Bad files of a training: the order of the others, what is said, what is tried again, and when it is the end."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stretchysnake import VideoMambaConfig, VideoRecord, cli, read_records
from stretchysnake.data.clips.bad_clips import BadDraw, BadFile
from stretchysnake.data.clips.loader import Batch
from stretchysnake.data.records import write_records
from stretchysnake.flexibility import Scale
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.ranks import SINGLE
from stretchysnake.train import loop
from stretchysnake.train.checkpoints.checkpoint import checkpoints_in, read_state
from stretchysnake.train.interrupt import TrainingInterrupted
from stretchysnake.train.loop import train
from stretchysnake.train.run import TrainRun
from stretchysnake.train.step import StepOutcome
from stretchysnake.train.watch import bad_files
from stretchysnake.train.watch.bad_files import BadFileWatch, TooManyBadFiles


@pytest.fixture
def run(clip_folder, tmp_path):
    """Six passes over a list of twelve files of its own, four clips a step; drop path and an average are on."""
    shutil.copytree(clip_folder, tmp_path / "clips")
    write_records(tmp_path / "list.csv", read_records(tmp_path / "clips"))
    return TrainRun(
        data=str(tmp_path / "list.csv"),
        out=str(tmp_path / "run"),
        variant="vanilla",
        model=VideoMambaConfig.named("nano", embed_dim=16, depth=2, num_classes=0, drop_path=0.3),
        epochs=6,
        batch_size=4,
        num_workers=0,
        ema_decay=0.9,
    )


@pytest.fixture
def drawn(monkeypatch):
    """(step, learning rate, clips, bad draws) of each step as it is taken."""
    seen, whole = [], loop.take_step

    def noting(state, model, batch, *arguments, lr, **options):
        seen.append((batch.step, lr, batch.video.to("cpu"), batch.bad))
        return whole(state, model, batch, *arguments, lr=lr, **options)

    monkeypatch.setattr(loop, "take_step", noting)
    return seen


def stop_after(monkeypatch, step):
    taken, sent = loop.take_step, []

    def sending(state, model, batch, *arguments, **options):
        if batch.step == step and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return taken(state, model, batch, *arguments, **options)

    monkeypatch.setattr(loop, "take_step", sending)


def events_of(run, event):
    lines = (Path(run.out) / "log.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == event]


@pytest.mark.parametrize("cached", [False, True], ids=["decoded", "cached"])
def test_resume_with_an_unreadable_file_draws_the_same_other_clips(
    run, tmp_path, monkeypatch, drawn, capsys, cached
):
    """The review's case: stopped after step 4 of 18, and one of the twelve files is unreadable from then on."""
    cache = str(tmp_path / "cache") if cached else None
    run = replace(run, cache=cache, cache_frames=8, cache_size=32)
    train(replace(run, out=str(tmp_path / "whole")))
    whole = {step: (lr, video) for step, lr, video, _ in drawn}
    assert sorted(whole) == list(range(18))
    drawn.clear()
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(TrainingInterrupted):
            train(run)
    lost = tmp_path / "clips" / "class1" / "2.mp4"
    lost.write_bytes(lost.read_bytes()[:200])
    drawn.clear()
    result = train(run)
    assert [step for step, _ in result.losses] == list(range(18))
    assert [step for step, *_ in drawn] == list(range(4, 18))
    replaced = 0
    for step, lr, video, bad in drawn:
        assert lr == whole[step][0]
        differ = [not torch.equal(a, b) for a, b in zip(video, whole[step][1], strict=True)]
        assert sum(differ) == len(bad) and all(draw.path == str(lost) for draw in bad)
        replaced += len(bad)
    assert 4 <= replaced <= 6  # once in each of the passes left
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bad file")]
    assert len(told) == 1 and str(lost) in told[0] and "takes its place" in told[0]
    (event,) = events_of(run, "bad_file")
    assert (event["path"], event["outlook"]) == (str(lost), "out")
    assert cached or event["replaced_by"] in told[0]
    written = json.loads((Path(run.out) / "run.json").read_text())
    assert written["bad_files"]["replaced"] == replaced and len(written["bad_files"]["files"]) == 1


def test_resumed_run_with_bad_files_ends_as_the_whole_one(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "clips" / "class0" / "1.mp4").write_bytes(b"no video")
    whole = train(replace(run, out=str(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(TrainingInterrupted):
            train(run)
    (path,) = checkpoints_in(Path(run.out) / "checkpoints")
    ((index, *_),) = read_state(path)["bad_files"]
    assert index == 1
    capsys.readouterr()
    again = train(run)
    assert "1 files known to be bad are not tried again" in capsys.readouterr().err
    assert again.losses == whole.losses
    first, second = (read_checkpoint(result.weights)[0] for result in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    both = [
        json.loads((Path(out) / "run.json").read_text()) for out in (run.out, tmp_path / "whole")
    ]
    assert both[0]["bad_files"] == both[1]["bad_files"] and both[0]["bad_files"]["replaced"] == 6


def test_repaired_file_is_tried_again_after_a_stop(run, tmp_path, monkeypatch, capsys):
    broken = tmp_path / "clips" / "class0" / "1.mp4"
    content = broken.read_bytes()
    broken.write_bytes(b"no video")
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(TrainingInterrupted):
            train(run)
    broken.write_bytes(content)
    train(run)
    assert f"{broken}: has changed since it was found bad" in capsys.readouterr().err
    written = json.loads((Path(run.out) / "run.json").read_text())
    assert written["bad_files"]["files"] == [] and written["num_records"] == 12


def test_checkpoint_of_an_earlier_version_goes_on_with_a_note(run, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(TrainingInterrupted):
            train(run)
    whole = loop.restore_first.__globals__["read_state"]
    later = ("bad_files", "held_out", "replaced", "left_out")

    def as_before(path):
        return {name: value for name, value in whole(path).items() if name not in later}

    monkeypatch.setitem(loop.restore_first.__globals__, "read_state", as_before)
    assert len(train(run).losses) == 18
    assert "is of an earlier version, whose order of clips followed" in capsys.readouterr().err


def test_nine_bad_files_of_twelve_end_the_run_with_the_list(run, tmp_path, capsys):
    for record in read_records(run.data)[3:]:
        Path(record.path).write_bytes(b"no video")
    assert cli.main(["train", "--data", run.data, "--out", run.out, "--epochs", "6", "--batch_size", "4",
                     "--num_workers", "0"]) == 2  # fmt: skip
    said = capsys.readouterr().err
    assert said.count("\nbad file ") + said.startswith("bad file ") == 9
    assert "could not be had, more than max_bad_share (1.0%); 9 bad files" in said
    (event,) = events_of(run, "too_many_bad_files")
    assert len(event["files"]) == 9 and event["step"] >= 6  # more than 20 bad clips
    assert checkpoints_in(Path(run.out) / "checkpoints")
    result = train(replace(run, out=str(tmp_path / "allowed"), max_bad_share=1.0))
    assert result.clips < 72  # classes 1 and 2 have no file left


def test_list_of_missing_files_ends_at_once_and_one_bad_file_never(run, tmp_path):
    gone = [VideoRecord(str(tmp_path / f"{i}.mp4"), i % 3) for i in range(5_000)]
    write_records(tmp_path / "gone.csv", gone)
    lost = replace(run, data=str(tmp_path / "gone.csv"), out=str(tmp_path / "lost"), batch_size=32)
    with pytest.raises(
        TooManyBadFiles, match=r"32 of the last 32 clips \(100\.0%\).* and \d+ more"
    ):
        train(lost)
    first = read_records(run.data)[:2]
    write_records(
        tmp_path / "two.csv", [replace(first[0], path=str(tmp_path / "no.mp4")), first[1]]
    )
    result = train(replace(run, data=str(tmp_path / "two.csv"), epochs=24))
    assert result.clips == 48  # every second clip of 12 steps was the other file's


def watch_of(run, state=None):
    state = state or loop.TrainState(model=None, optimizer=None, average=None)
    return state, BadFileWatch(state, run, log=None, runtime=SINGLE)


def batch_of(step, asked, bad, index=0):
    files = tuple(BadFile(index + i, f"{index + i}.mp4", "corrupt", "r", None) for i in range(bad))
    draws = tuple(BadDraw(step, file.path, "corrupt", "r", None) for file in files)
    labels = torch.zeros(asked - bad, dtype=torch.int64)
    video = torch.empty(asked - bad, 3, 1, 8, 8)
    return Batch(step, Scale(1, 8, 8), video, labels, asked=asked, bad=draws, news=files)


@pytest.mark.parametrize(
    ("asked", "bad", "is_end"),
    [(1000, 20, False), (1000, 21, True), (3000, 30, False), (3000, 31, True)],
)
def test_limit_is_a_share_of_the_clips_and_never_few_of_them(run, asked, bad, is_end):
    _, watch = watch_of(run)
    watch(batch_of(0, asked, bad), StepOutcome(0.0, 0.0, asked - bad, left_out=bad, news=True))
    assert watch.is_too_much() is is_end and watch.share == bad / asked


def test_share_is_that_of_the_last_clips(run, monkeypatch):
    monkeypatch.setattr(bad_files, "WINDOW", 1000)
    state, watch = watch_of(run)
    for step in range(40):  # 4,000 good ones do not hide a storage that goes away
        watch(batch_of(step, 100, 0), StepOutcome(0.0, 0.0, 100))
    watch(batch_of(40, 100, 30), StepOutcome(0.0, 0.0, 70, replaced=30, news=True))
    assert watch.share == 30 / 1000 and watch.is_too_much()
    assert (state.replaced, state.left_out, len(state.bad_files)) == (30, 0, 30)
    for step in range(41, 52):
        watch(batch_of(step, 100, 0), StepOutcome(0.0, 0.0, 100))
    assert watch.share == 0 and not watch.is_too_much()


def test_share_stands_in_the_progress_line(run, tmp_path):
    Path(read_records(run.data)[0].path).write_bytes(b"no video")
    lines = []
    train(run, progress=lines.append)
    assert "8.3% bad clips" in str(lines[-1])
    assert lines[-1].bad_share == 6 / 72


def test_max_bad_share_must_be_a_share(run):
    with pytest.raises(ValueError, match=r"max_bad_share \(1.5\) must be between 0 and 1"):
        replace(run, max_bad_share=1.5)
    assert replace(run, max_bad_share=0.5).digest() == run.digest()
