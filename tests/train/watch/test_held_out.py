"""The held-out list: what it measures, that it changes nothing, that it goes on after a stop, what it refuses."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from shaped_clips import write_shaped

from stretchysnake import VideoMamba, VideoMambaConfig, VideoRecord, load_model, read_records
from stretchysnake.data.clips.clip_source import DecodedClips
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.data.records import write_records
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.report.figures.training_log import write_training_log
from stretchysnake.train import loop
from stretchysnake.train.checkpoints.checkpoint import checkpoints_in
from stretchysnake.train.checkpoints.restoring import restore_state
from stretchysnake.train.checkpoints.state import HeldOutScore, new_state
from stretchysnake.train.interrupt import TrainingInterrupted
from stretchysnake.train.loop import train
from stretchysnake.train.run import OptimConfig, TrainRun
from stretchysnake.train.watch.held_out import HeldOut, open_held_out, read_held_out


@pytest.fixture
def run(clip_folder, tmp_path):
    """Trains on two files of each class; the other two, and one that is no video, are held out."""
    records = read_records(clip_folder)
    train_records, held = records[0::2], records[1::2]
    (tmp_path / "rotten.mp4").write_bytes(b"no video")
    held = [*held, VideoRecord(str(tmp_path / "rotten.mp4"), 1, "class1")]
    write_records(tmp_path / "train.csv", train_records)
    write_records(tmp_path / "held.csv", held[::-1])  # in another order
    return TrainRun(
        data=str(tmp_path / "train.csv"),
        held_out=str(tmp_path / "held.csv"),
        held_out_every=4,
        out=str(tmp_path / "run"),
        variant="vanilla",
        model=VideoMambaConfig.named("nano", embed_dim=16, depth=2, num_classes=0, drop_path=0.3),
        optim=OptimConfig(lr=5e-3),
        steps=10,
        batch_size=4,
        num_workers=0,
    )


def scores_of(out):
    return json.loads((Path(out) / "run.json").read_text())["held_out"]


def weights_of(path):
    return read_checkpoint(path)[0]


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def measured_by_hand(run, weights):
    """(top-1, loss) of the held-out videos that can be read, one by one."""
    model, _ = load_model(weights)
    model.eval()
    names = {record.class_name: record.label for record in read_records(run.data)}
    right, losses = [], []
    for record in read_records(run.held_out):
        if "rotten" in record.path:
            continue
        clip = DecodedClips([record]).clip(0, run.sets.native)
        with torch.no_grad():
            logits = model(normalise(clip[None]), run.sets.native.patch_size)[0]
        label = names[record.class_name]
        right.append(logits.argmax().item() == label)
        losses.append(-F.log_softmax(logits, 0)[label].item())
    return sum(right) / 6, sum(losses) / 6


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_scores_are_those_of_the_weights_and_the_training_is_unchanged(run, tmp_path, capsys, ema):
    run = replace(run, ema_decay=ema, label_smoothing=0.1)
    train(run)
    said = capsys.readouterr().err
    found = scores_of(run.out)
    assert [score["step"] for score in found["scores"]] == [4, 8, 10]
    name = "weights_ema.safetensors" if ema else "weights.safetensors"
    top1, loss = measured_by_hand(run, Path(run.out) / name)
    last = found["scores"][-1]
    assert last["top1"] == pytest.approx(top1) and last["loss"] == pytest.approx(loss, abs=1e-5)
    assert (last["num_clips"], found["num_listed"]) == (6, 7) and "rotten.mp4" in found[
        "bad_files"
    ][0]
    assert found["weights"] == ("moving average" if ema else "weights as trained")
    assert (
        f"held out, step 10: top-1 {top1:.1%} of 6 (1 unreadable), loss {loss:.3f}, T=8 S=32"
        in said
    )
    best = max(found["scores"], key=lambda score: (score["top1"], -score["loss"]))
    assert found["best"] == {
        **{k: best[k] for k in ("step", "top1", "loss")},
        "weights": found["weights"],
    }
    by_hand = measured_by_hand(run, Path(run.out) / "weights_best.safetensors")
    assert by_hand == pytest.approx((best["top1"], best["loss"]), abs=1e-5)
    plain = replace(run, held_out=None, out=str(tmp_path / "plain"))
    assert plain.digest() == run.digest()
    assert train(plain).losses == train(run).losses
    for file in ("weights.safetensors", "weights_ema.safetensors")[: 1 + bool(ema)]:
        assert same(weights_of(tmp_path / "plain" / file), weights_of(Path(run.out) / file))
    assert not (tmp_path / "plain" / "weights_best.safetensors").exists()
    assert "Held out" in write_training_log(Path(run.out)).read_text()


@pytest.mark.parametrize("fit", ["square", "keep", "crop"])
def test_held_out_pictures_are_fitted_as_those_of_the_training(run, tmp_path, fit):
    data, held = write_shaped(tmp_path), write_shaped(tmp_path, count=3, first=20)
    run = replace(run, data=str(data), held_out=str(held), fit=fit)
    found, wanted = (
        open_held_out(run, read_records(data)),
        DecodedClips(read_records(held), fit=fit),
    )
    shapes = {
        "square": [(32, 32)] * 3,
        "keep": [(32, 32), (24, 40), (40, 24)],
        "crop": [(32, 32)] * 3,
    }
    for index, shape in enumerate(shapes[fit]):
        clip = found.clip(index, run.sets.native)
        assert clip.shape[1:3] == shape
        assert torch.equal(clip, wanted.clip(index, run.sets.native))


@pytest.mark.parametrize("step", [3, 5])  # 3: stopped when a measurement was due
def test_stopped_run_measures_what_the_whole_one_does(run, tmp_path, monkeypatch, step):
    train(replace(run, out=str(tmp_path / "whole")))
    taken, sent = loop.take_step, []

    def stopping(state, model, batch, *arguments, **options):
        if batch.step == step and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return taken(state, model, batch, *arguments, **options)

    monkeypatch.setattr(loop, "take_step", stopping)
    with pytest.raises(TrainingInterrupted):
        train(run)
    train(run)
    assert scores_of(run.out) == scores_of(tmp_path / "whole")
    best = [
        weights_of(Path(out) / "weights_best.safetensors") for out in (run.out, tmp_path / "whole")
    ]
    assert same(*best)


def test_best_weights_have_the_highest_top1_and_of_equals_the_lowest_loss(run, monkeypatch):
    told = iter([(0.5, 1.0), (0.7, 2.0), (0.7, 1.5), (0.6, 0.1), (0.7, 1.5), (0.7, 1.6)])
    monkeypatch.setattr(
        HeldOut, "_measured", lambda self, state: HeldOutScore(state.step, *next(told), 6)
    )
    state, kept = new_state(VideoMamba(run.model.but(num_classes=3)), run), []
    measure = HeldOut([], run)
    for state.step in range(1, 7):
        torch.nn.init.constant_(state.model.head.bias, state.step)
        measure(state)
        kept.append(weights_of(measure.path)["head.bias"].tolist()[0])
    assert kept == [1, 2, 3, 3, 3, 3]


def test_scores_are_in_the_checkpoint(run):
    train(replace(run, checkpoint_every=8))
    path = checkpoints_in(Path(run.out) / "checkpoints")[-1]
    model = load_model(path / "weights.safetensors")[0]
    state = new_state(model, run)
    restore_state(state, path)
    assert [score._asdict() for score in state.held_out] == scores_of(run.out)["scores"][:2]


def test_what_cannot_be_compared_is_refused(run, tmp_path):
    records, held = read_records(run.data), read_records(run.held_out)
    assert [r.label for r in read_held_out(run, records)] == [r.label for r in held]
    for name, listed, text in (
        ("shared", [*held, records[0]], r"shares 1 of 8 videos with data .*first .*class0"),
        (
            "classes",
            [replace(held[0], class_name="other")],
            "has classes that data .* has not: other",
        ),
        (
            "numbers",
            [replace(held[0], class_name="", label=7)],
            "has classes that data .* has not: 7",
        ),
        (
            "absent",
            [replace(held[0], path="no.mp4")],
            "none of the 1 files is there, first .*no.mp4",
        ),
    ):
        write_records(tmp_path / f"{name}.csv", listed)
        with pytest.raises(ValueError, match=text):
            train(replace(run, held_out=str(tmp_path / f"{name}.csv"), out=str(tmp_path / name)))
    with pytest.raises(ValueError, match=r"held_out_every \(0\) must be at least 1"):
        replace(run, held_out_every=0)


def test_list_of_one_class_keeps_the_numbers_of_the_training(run, tmp_path):
    held = [record for record in read_records(run.held_out) if record.class_name == "class2"]
    write_records(tmp_path / "one.csv", [replace(record, label=0) for record in held])
    found = read_held_out(replace(run, held_out=str(tmp_path / "one.csv")), read_records(run.data))
    assert [record.label for record in found] == [2, 2]


def test_finished_run_says_that_it_was_not_measured(run, capsys):
    train(replace(run, held_out=None))
    train(run)
    assert "finished without held_out" in capsys.readouterr().err
