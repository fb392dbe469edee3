"""A folder knows its run again: other data or settings are refused by name, a moved or copied set is not."""

import json
import os
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from stretchysnake import VideoMambaConfig, cli, read_records
from stretchysnake.data.records import write_records
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.train import loop
from stretchysnake.train.checkpoints import identity
from stretchysnake.train.checkpoints.data_stamp import data_stamp, other_data, told
from stretchysnake.train.checkpoints.identity import _earlier_hash, run_key
from stretchysnake.train.checkpoints.outputs import started_run
from stretchysnake.train.interrupt import TrainingInterrupted
from stretchysnake.train.loop import train
from stretchysnake.train.run import TrainRun


@pytest.fixture
def run(clip_folder, tmp_path):
    """Two steps on a copy of the clips, listed by a file beside them."""
    shutil.copytree(clip_folder, tmp_path / "set" / "clips")
    records = read_records(tmp_path / "set" / "clips")
    write_records(
        tmp_path / "set" / "list.csv",
        [replace(r, path=os.path.relpath(r.path, tmp_path / "set")) for r in records],
    )
    return TrainRun(
        data=str(tmp_path / "set" / "list.csv"),
        out=str(tmp_path / "run"),
        variant="vanilla",
        model=VideoMambaConfig.named("nano", embed_dim=16, depth=1, num_classes=0),
        steps=2,
        batch_size=2,
        num_workers=0,
    )


def rewrite(run, change):
    """Write the list anew with each record changed."""
    records = read_records(run.data)
    write_records(run.data, [change(record) for record in records])


def stop_at(monkeypatch, step):
    whole = loop.take_step

    def stopping(state, model, batch, *arguments, **options):
        if batch.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(state, model, batch, *arguments, **options)

    monkeypatch.setattr(loop, "take_step", stopping)


@pytest.mark.parametrize(
    "change", [{"end": 0.2}, {"start": 0.1}, {"group": "g"}, {"class_name": "other"}], ids=str
)
def test_the_same_videos_with_other_segments_or_names_are_another_run(run, change):
    train(run)
    rewrite(run, lambda record: replace(record, **change))
    with pytest.raises(
        ValueError, match=r"finished run \(data: other names, labels, groups or seg"
    ):
        train(run)


def test_a_file_replaced_by_one_of_the_same_size_is_named(run):
    train(run)
    path = Path(read_records(run.data)[5].path)
    content = bytearray(path.read_bytes())
    content[len(content) - 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"data: class1/1.mp4 has the same size and other bytes"):
        train(run)
    path.write_bytes(content + b"more")
    with pytest.raises(ValueError, match=r"1 files have another size, first class1/1.mp4: \d+ byt"):
        train(run)


def test_a_set_copied_without_its_times_is_the_same_and_said(run, capsys):
    done = train(run)
    for record in read_records(run.data):
        os.utime(record.path)
    assert train(run) == done
    assert "12 of 12 files have another time of change" in capsys.readouterr().err


def test_a_file_missing_now_is_said_and_does_not_end_the_run(run, monkeypatch, capsys):
    stop_at(monkeypatch, 0)
    with pytest.raises(TrainingInterrupted):
        train(run)
    path = Path(read_records(run.data)[3].path)
    content = path.read_bytes()
    path.unlink()
    assert len(train(run).losses) == 2
    assert "1 of 12 files were there when the run began and are missing" in capsys.readouterr().err
    path.write_bytes(content + b"more")
    with pytest.raises(ValueError, match=r"1 files have another size, first class0/3.mp4"):
        train(run)


def test_a_few_files_repaired_on_the_way_are_told_and_more_are_other_data(run, monkeypatch, capsys):
    stop_at(monkeypatch, 0)
    with pytest.raises(TrainingInterrupted):
        train(run)
    paths = [Path(record.path) for record in read_records(run.data)]
    for path in paths[:4]:
        path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ValueError, match=r"4 files have another size, first class0/0.mp4"):
        train(run)
    paths[0].write_bytes(paths[0].read_bytes()[:-4])
    os.utime(paths[0], ns=(1, 1))
    assert len(train(run).losses) == 2
    said = capsys.readouterr().err
    assert "3 of 12 files have another size than when the run began" in said
    with pytest.raises(ValueError, match=r"holds another finished run \(data: 3 files have anothe"):
        paths[5].touch()
        paths[1].write_bytes(paths[1].read_bytes() + b"more")
        paths[6].write_bytes(paths[6].read_bytes() + b"more")
        paths[7].write_bytes(paths[7].read_bytes() + b"more")
        train(run)


def test_single_new_files_of_a_large_set_are_not_taken_for_copies(run):
    records = read_records(run.data)
    then = data_stamp(records, sampled=3)
    assert (then.ends != 0).nonzero().flatten().tolist() == [0, 4, 8]
    os.utime(records[5].path, ns=(1, 1))
    why = other_data(then, data_stamp(records, sampled=0), records)
    assert why == "1 files changed since, first class1/1.mp4"
    for record in records:
        os.utime(record.path, ns=(1, 1))
    now = data_stamp(records, sampled=0)
    assert other_data(then, now, records) is None and "64 KiB of 3 of them" in told(then, now)[0]


def test_what_differs_is_named_by_its_field(run):
    train(run)
    other = replace(run, steps=3, optim=replace(run.optim, lr=0.5))
    with pytest.raises(
        ValueError,
        match=r"finished run \(optim.lr: 0.001 there, 0.5 here; steps: 2 there, 3 here\); choose another folder; "
        r"to train its result further: --weights .*/weights.safetensors with another --out",
    ):
        train(other)
    train(replace(run, num_workers=1, checkpoint_every=7))  # these decide no weight


def test_scales_dealt_by_an_earlier_version_make_another_run(run, monkeypatch, capsys):
    """Its steps saw other scales; what was not finished is finished, and said."""
    finished = replace(run, variant="static_tokens", scales_per_step=2)
    stopped = replace(finished, out=f"{run.out}-stopped", steps=3)
    now = identity.settings_digest
    with monkeypatch.context() as before:
        before.setattr(
            identity, "settings_digest", lambda run, dealing=1: now(run, dealing=dealing)
        )
        train(finished)
        stop_at(before, 1)
        with pytest.raises(TrainingInterrupted):
            train(stopped)
    with pytest.raises(
        ValueError,
        match=r"finished run \(scales_per_step: dealt less evenly there, by an earlier version\); choose another",
    ):
        train(finished)
    capsys.readouterr()
    assert len(train(stopped).losses) == 3
    told = capsys.readouterr().err
    assert "scales_per_step: dealt less evenly there" in told
    assert "steps from here on are dealt evenly" in told
    for other in (run, replace(finished, scale_draw="independent")):
        assert other.digest() == other.digest(dealing=1)


def test_the_weights_a_run_starts_from_count_by_their_bytes(run, trained, tmp_path):
    for name in ("a", "b"):
        shutil.copyfile(trained[1].weights, tmp_path / f"{name}.safetensors")
    first = replace(
        run,
        weights=str(tmp_path / "a.safetensors"),
        model=trained[0].model,
        variant="static_tokens",
    )
    records = read_records(run.data)
    key = run_key(first, records)
    assert run_key(replace(first, weights=str(tmp_path / "b.safetensors")), records) == key
    done = train(first)
    assert train(replace(first, weights=str(tmp_path / "b.safetensors"))) == done
    with pytest.raises(ValueError, match="weights: other bytes"):
        train(replace(first, weights=done.weights))


def test_resume_works_from_any_folder_and_after_the_data_moved(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stop_at(monkeypatch, 0)
    with pytest.raises(TrainingInterrupted):
        train(replace(run, data="set/list.csv", out="run"))
    written = json.loads(Path("run/started.json").read_text())["run"]
    assert written["data"] == str(tmp_path / "set" / "list.csv") and written["out"] == run.out
    monkeypatch.undo()
    elsewhere = tmp_path / "else" / "where"
    elsewhere.mkdir(parents=True)
    shutil.move(tmp_path / "set", tmp_path / "new")
    monkeypatch.chdir(elsewhere)
    moved = ["train", "--resume", "../../run", "--data", "../../new/list.csv"]
    assert cli.main(moved[:3]) == 2
    lost = capsys.readouterr().err.strip()
    assert "--data PATH" in lost and f"its data ({run.data}) are not there" in lost
    assert len(lost.splitlines()) == 1
    assert cli.main(moved) == 0
    said = capsys.readouterr()
    assert "after 2 steps" in said.out and "going on from" in said.err
    assert cli.main(["train", "--resume", run.out]) == 0  # it knows the new place now
    rewrite(replace(run, data=str(tmp_path / "new" / "list.csv")), lambda r: replace(r, label=0))
    assert cli.main(moved) == 2
    assert "data: other names, labels" in capsys.readouterr().err


@pytest.mark.parametrize("of_folder", [True, False], ids=["folder", "list"])
def test_runs_of_earlier_versions_are_known_again_with_a_note(
    run, tmp_path, monkeypatch, capsys, of_folder
):
    """As they were: relative paths, no data.safetensors, a key of paths as typed and labels."""
    monkeypatch.chdir(tmp_path)
    run = replace(run, data="set/clips" if of_folder else "set/list.csv", out="run")
    done = train(run)
    old = f"{run.digest()}-{_earlier_hash(run.data, run.data, read_records(run.data))}"
    for name in ("started.json", "run.json"):
        written = {**json.loads(Path("run", name).read_text()), "run": asdict(run), "digest": old}
        Path("run", name).write_text(json.dumps(written))
    Path("run/data.safetensors").unlink()
    assert train(run) == done
    assert "by an earlier version, which noted paths and labels alone" in capsys.readouterr().err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Path(started_run(Path("../run")).data) == tmp_path / run.data
    assert cli.main(["train", "--resume", "../run"]) == 0
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"finished run \(seed: 0 there, 4 here\)"):
        train(replace(run, seed=4))
    if not of_folder:
        rewrite(run, lambda record: replace(record, label=2 - record.label))
        with pytest.raises(ValueError, match=r"finished run \(data: other paths or labels\)"):
            train(run)


def test_the_earlier_hash_is_that_of_earlier_versions():
    """Written by hand: sha256 of '[["./a.mp4", 1]]', its first eight digits."""
    import hashlib

    from stretchysnake.data.records import VideoRecord

    wanted = hashlib.sha256(b'[["./a.mp4", 1]]').hexdigest()[:8]
    found = _earlier_hash("list.csv", "/new/list.csv", [VideoRecord("/new/a.mp4", 1)])
    assert found == wanted


def test_weights_know_the_classes_of_their_head(run):
    run = replace(run, ema_decay=0.5)
    train(run)
    for name in ("weights", "weights_ema"):
        metadata = read_checkpoint(Path(run.out) / f"{name}.safetensors")[1]["run"]
        assert metadata["classes"] == ["class0", "class1", "class2"]
