"""The training loop on real files: every variant, determinism, what is written, what is refused."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stretchysnake import (
    VARIANTS,
    VideoMambaConfig,
    VideoRecord,
    load_model,
    read_records,
)
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.records import write_records
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.train.loop import train
from stretchysnake.train.run import OptimConfig, TrainRun


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_variant_trains_from_files(variant, clip_folder, tmp_path):
    run = TrainRun(
        data=str(clip_folder),
        out=str(tmp_path / "run"),
        variant=variant,
        steps=3,
        batch_size=2,
        cache=str(tmp_path / "cache"),
    )
    result = train(run)
    model, _ = load_model(result.weights)
    assert [step for step, _ in result.losses] == [0, 1, 2]
    assert result.clips == 6
    assert model.config.num_classes == 3
    metadata = read_checkpoint(result.weights)[1]["run"]
    assert metadata["variant"] == variant
    written = json.loads((tmp_path / "run" / "run.json").read_text())
    assert written["run"]["variant"] == variant
    assert written["num_records"] == 12
    assert not list(tmp_path.glob("run/.*"))


def test_a_model_learns_what_can_be_learned(clip_folder, tmp_path):
    run = TrainRun(
        data=str(clip_folder),
        out=str(tmp_path / "run"),
        variant="static_tokens",
        model=VideoMambaConfig.named("nano", embed_dim=32, depth=1, num_classes=0),
        optim=OptimConfig(lr=5e-3),
        steps=60,
        batch_size=12,
        cache=str(tmp_path / "cache"),
    )
    losses = [loss for _, loss in train(run).losses]
    assert sum(losses[-5:]) / 5 < 0.4 < 0.8 < losses[0]


def test_same_seed_same_weights_and_another_seed_others(trained, clip_folder, tmp_path):
    run, result = trained
    again = train(replace(run, out=str(tmp_path / "again")))
    other = train(replace(run, out=str(tmp_path / "other"), seed=1))
    first, second, third = (read_checkpoint(r.weights)[0] for r in (result, again, other))
    assert result.losses == again.losses
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], third["head.weight"])


def test_finished_run_is_returned_and_another_is_not_overwritten(trained):
    run, result = trained
    before = Path(result.weights).stat().st_mtime_ns
    assert train(run) == result
    with pytest.raises(
        ValueError, match=r"already holds another finished run .* choose another folder"
    ):
        train(replace(run, steps=7))
    assert Path(result.weights).stat().st_mtime_ns == before


def test_run_killed_before_its_end_is_not_taken_as_finished(trained, tmp_path):
    run, result = trained
    out = tmp_path / "cut"
    out.mkdir()
    (out / "weights.safetensors").write_bytes(Path(result.weights).read_bytes()[:100])
    again = train(replace(run, out=str(out)))
    assert again.losses == result.losses


def test_too_few_classes_is_refused(trained, tmp_path):
    run, _ = trained
    model = VideoMambaConfig.named("nano", num_classes=2)
    with pytest.raises(
        ValueError, match=r"model.num_classes \(2\) must cover the data's labels 0..2"
    ):
        train(replace(run, out=str(tmp_path / "x"), model=model))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("place", ["file", "file/deep", "/proc/absent"])
def test_out_that_cannot_be_written_is_said(trained, tmp_path, place):
    (tmp_path / "file").write_text("")
    run, _ = trained
    with pytest.raises(ValueError, match=r"out \(.*\) must be a folder that can be written: "):
        train(replace(run, out=str(tmp_path / place)))


def test_sets_must_fit_the_model(trained):
    run, _ = trained
    with pytest.raises(ValueError, match=r"sets.native \(32 px, patch 8\) must equal the model's"):
        replace(run, model=VideoMambaConfig.named("tiny"))


def test_bf16_trains_with_fp32_parameters(trained, tmp_path):
    run, exact = trained
    result = train(replace(run, out=str(tmp_path / "bf16"), precision="bf16"))
    state = read_checkpoint(result.weights)[0]
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    assert result.losses[0][1] == pytest.approx(exact.losses[0][1], abs=0.05)


def test_bad_files_of_a_training_are_counted_and_listed(clip_folder, tmp_path):
    records = read_records(clip_folder)
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_records(tmp_path / "list.csv", [*records, VideoRecord(str(tmp_path / "empty.mp4"), 1)])
    run = TrainRun(
        data=str(tmp_path / "list.csv"), out=str(tmp_path / "run"), epochs=2, batch_size=13
    )
    train(run)
    written = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (written["num_records"], written["num_records_listed"]) == (12, 13)
    bad = written["bad_files"]
    assert (bad["on_error"], bad["replaced"], bad["skipped"]) == ("replace", 2, 0)
    (told,) = bad["files"]
    assert "empty.mp4: empty" in told
    with pytest.raises(DecodeError, match=r"empty\.mp4: empty"):
        train(replace(run, out=str(tmp_path / "stopped"), on_error="stop"))
    with pytest.raises(
        ValueError, match=r"on_error \('ignore'\) must be one of: replace, skip, stop"
    ):
        replace(run, on_error="ignore")


def test_how_decoding_is_done_does_not_change_which_run_it_is(clip_folder, tmp_path):
    run = TrainRun(data=str(clip_folder), out=str(tmp_path / "run"))
    assert replace(run, num_workers=0).digest() == run.digest()
    assert replace(run, on_error="skip").digest() != run.digest()


def test_missing_tensorboard_is_said_before_anything_is_done(clip_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = TrainRun(data=str(clip_folder), out=str(tmp_path / "run"), tensorboard=True)
    with pytest.raises(RuntimeError, match=r"pip install 'stretchysnake\[tensorboard\]'"):
        train(run)
    assert not (tmp_path / "run").exists()


@pytest.mark.extra("tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard's own
def test_tensorboard_gets_the_numbers(clip_folder, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = TrainRun(data=str(clip_folder), out=str(tmp_path / "run"), tensorboard=True, steps=2)
    result = train(run)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    points = events.Scalars("loss")
    assert [(p.step, p.value) for p in points][-1] == pytest.approx(result.losses[-1])
    assert {"lr", "frames", "size", "clips_per_second"} <= set(events.Tags()["scalars"])
