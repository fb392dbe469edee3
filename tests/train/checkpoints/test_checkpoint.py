"""Checkpoints: written whole or not at all, believed only when every byte is as written, never executed."""

import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stretchysnake import VideoMamba, VideoMambaConfig, load_model
from stretchysnake.data.clips.loader import Batch
from stretchysnake.flexibility import Scale, ScaleSets
from stretchysnake.ranks import SINGLE
from stretchysnake.train.checkpoints import checkpoint
from stretchysnake.train.checkpoints.checkpoint import (
    SLICES,
    CheckpointNotWritten,
    checkpoints_in,
    newest_good,
    prune,
    read_state,
    verify,
    write_checkpoint,
)
from stretchysnake.train.checkpoints.outputs import RunLog
from stretchysnake.train.checkpoints.restoring import restore_state
from stretchysnake.train.checkpoints.saving import Saver
from stretchysnake.train.checkpoints.state import new_state
from stretchysnake.train.run import TrainRun
from stretchysnake.train.step import take_step
from stretchysnake.whole_file import Damaged, sha256_of

MODEL = VideoMamba(
    VideoMambaConfig(
        embed_dim=16, depth=1, patch_size=8, image_size=16, num_frames=2, num_classes=3
    )
)
PROGRAM = Path(__file__).parents[1].joinpath("killed_training.py")


def write(folder, step):
    training = {"optimizer.x": torch.arange(100.0), "losses.step": torch.arange(step)}
    return write_checkpoint(
        folder,
        step,
        weights=MODEL.state_dict(),
        config=MODEL.config,
        metadata={"seed": 0},
        training=training,
        state={"clips": step},
    )


def test_written_checkpoint_is_verified_and_its_weights_are_a_model(tmp_path):
    path = write(tmp_path, 3)
    verify(path)
    assert newest_good(tmp_path) == path
    assert read_state(path)["step"] == 3
    model, _ = load_model(path / "weights.safetensors")
    assert torch.equal(model.head.weight, MODEL.head.weight)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000003"]


def test_every_single_flipped_bit_is_detected(tmp_path):
    path = write(tmp_path, 3)
    files = sorted(path.iterdir())
    sizes = [file.stat().st_size for file in files]
    rng = random.Random(0)
    for _ in range(300):
        file = rng.choices(files, weights=[size**0.5 for size in sizes])[0]  # small files too
        content = bytearray(file.read_bytes())
        good, place = bytes(content), rng.randrange(len(content))
        content[place] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        with pytest.raises(Damaged):
            verify(path)
        file.write_bytes(good)
    verify(path)


@pytest.mark.parametrize("name", [*checkpoint.CONTENT, checkpoint.MANIFEST])
@pytest.mark.parametrize("damage", ["missing", "truncated", "longer", "empty"])
def test_damaged_newest_is_named_and_the_one_before_is_used(tmp_path, name, damage):
    good, bad = write(tmp_path, 1), write(tmp_path, 2)
    content = (bad / name).read_bytes()
    (bad / name).unlink()
    if damage != "missing":
        changed = {"truncated": content[:-1], "longer": content + b"\0", "empty": b""}[damage]
        (bad / name).write_bytes(changed)
    said = []
    assert newest_good(tmp_path, say=said.append) == good
    assert (
        "step-00000002" in said[0] and name in said[0] and "going back to step-00000001" in said[0]
    )
    with pytest.raises(Damaged, match="newest good one is step-00000001"):
        newest_good(tmp_path, on_damaged="stop")


def test_no_good_checkpoint_is_an_error_and_none_at_all_is_none(tmp_path):
    assert newest_good(tmp_path) is None
    (write(tmp_path, 1) / "state.json").unlink()
    with pytest.raises(Damaged, match="None of the 1 checkpoints"):
        newest_good(tmp_path)


def test_the_last_ones_are_kept(tmp_path):
    for step in range(1, 6):
        write(tmp_path, step)
        prune(tmp_path, keep=2)
    names = [path.name for path in checkpoints_in(tmp_path)]
    assert names == ["step-00000004", "step-00000005"]


@pytest.mark.parametrize(
    ("number", "text"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only")]
)
def test_disk_full_or_read_only_is_said_and_the_earlier_one_survives(
    tmp_path, monkeypatch, number, text
):
    before = write(tmp_path, 1)

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoint.os, "fsync", refuse)
    with pytest.raises(CheckpointNotWritten, match=rf"{text}.*step-00000001 is untouched"):
        write(tmp_path, 2)
    monkeypatch.undo()
    assert newest_good(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_file_that_really_cannot_grow_is_a_typed_error(tmp_path):
    before = write(tmp_path, 1)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with pytest.raises(CheckpointNotWritten, match="step 2 could not be written"):
            write(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert newest_good(tmp_path) == before


def killed(what, data, work, trials):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), what, str(data), str(work), str(trials)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=PROGRAM.parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("trials", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_no_kill_in_a_save_loop_leaves_an_unreadable_checkpoint(tmp_path, trials):
    found = killed("save", "-", tmp_path, trials)
    assert found["readable"] == trials
    assert found["saves"] >= 2 and found["inside a save"] >= 1, found


@pytest.mark.parametrize("trials", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_training_ends_as_the_uninterrupted_one(clip_folder, tmp_path, trials):
    found = killed("train", clip_folder, tmp_path / "work", trials)
    assert found == {"trials": trials, "kills": trials, "equal": trials}


def manifest_of(path, change):
    text = (path / "manifest.json").read_bytes().split(b"\n")[0]
    manifest = json.loads(text)
    change(manifest)
    (path / "manifest.json").write_text(checkpoint._manifest_text(manifest))


def resealed(path, name, content):
    """Replace a file and make the manifest agree: what someone does on purpose."""
    (path / name).write_bytes(content)
    digest = sha256_of(path / name)
    manifest_of(path, lambda m: m["files"][name].update(bytes=len(content), sha256=digest))


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        (lambda p: resealed(p, "state.json", b"[" * 100_000), "state.json is not JSON"),
        (lambda p: resealed(p, "state.json", b"[1]"), "not a JSON object"),
        (lambda p: resealed(p, "state.json", b'{"step": 4}'), "tells of step 4"),
        (lambda p: resealed(p, "state.json", b'{"step": "x"}'), "tells of step 'x'"),
        (lambda p: manifest_of(p, lambda m: m.update(format="other")), "not of format"),
        (lambda p: manifest_of(p, lambda m: m["files"].pop("state.json")), "not of format"),
        (
            lambda p: manifest_of(
                p, lambda m: m["files"].update({"../../x": {"bytes": 1, "sha256": ""}})
            ),
            "not of format",
        ),
        (lambda p: (p / "manifest.json").write_bytes(b"{}\nabc\n"), "cut short or changed"),
        (
            lambda p: (
                shutil.move(p / "state.json", p.parent / "elsewhere"),
                (p / "state.json").symlink_to(p.parent / "elsewhere"),
            ),
            "state.json is missing",
        ),
    ],
    ids=["deep", "list", "other step", "text step", "format", "fewer", "path", "seal", "link"],
)
def test_hostile_directory_is_refused(tmp_path, attack, text):
    attack(write(tmp_path, 3))
    with pytest.raises(Damaged, match=text):
        newest_good(tmp_path)


RUN = TrainRun(
    data="-",
    out="-",
    variant="vanilla",
    sets=ScaleSets(native=Scale(2, 16, 8), sizes=(16,), frames=(2,), flex_all_patches=(4, 8)),
    model=MODEL.config,
)


def saved_state(folder):
    """A state after one step, and its checkpoint."""
    torch.manual_seed(0)
    state = new_state(VideoMamba(MODEL.config), RUN)
    batch = Batch(0, Scale(2, 16, 8), torch.randn(2, 3, 2, 16, 16), torch.tensor([0, 1]))
    take_step(state, state.model, batch, RUN, lr=1e-3, runtime=SINGLE)
    state.step = 1
    Saver(folder, RUN, metadata={}, key="k", log=RunLog(None)).save(state, runtime=SINGLE)
    return state, checkpoints_in(folder)[0]


def changed_tensors(path, file, change):
    with safe_open(path / file, framework="pt") as opened:
        header = opened.metadata()
    tensors = {name: tensor.clone() for name, tensor in load_file(path / file).items()}
    change(tensors)
    save_file(tensors, path / "made", metadata=header)
    content = (path / "made").read_bytes()
    (path / "made").unlink()
    resealed(path, file, content)


def changed_counts(path, **changes):
    state = json.loads((path / "state.json").read_text())
    resealed(path, "state.json", json.dumps({**state, **changes}).encode())


MOMENT = "optimizer.head.weight.exp_avg"


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        (lambda p: changed_tensors(p, "training.safetensors", lambda t: t[MOMENT].fill_(float("nan"))),
         "head.weight.exp_avg holds non-finite"),
        (lambda p: changed_tensors(p, "training.safetensors", lambda t: t.update({MOMENT: t[MOMENT].half()})),
         "is torch.float16"),
        (lambda p: changed_tensors(p, "training.safetensors", lambda t: t.update({MOMENT: torch.zeros(10**6)})),
         r"exp_avg is torch.float32 \(1000000,\), expected"),
        (lambda p: changed_tensors(p, "training.safetensors", lambda t: t.pop(MOMENT)), "exp_avg is missing"),
        (lambda p: changed_tensors(p, "training.safetensors", lambda t: t.update(more=torch.ones(1))),
         "more is unexpected"),
        (lambda p: changed_tensors(p, "training.safetensors", lambda t: t.update({"losses.step": torch.ones(9)})),
         "loss series has no valid form"),
        (lambda p: changed_tensors(p, "weights.safetensors", lambda t: t["head.bias"].fill_(float("inf"))),
         "head.bias holds non-finite"),
        (lambda p: resealed(p, "weights.safetensors", b"\x80\x04cos\nsystem\n"), "cannot be read"),
        (lambda p: changed_counts(p, clips="many"), r"clips \('many'\) in state.json is not valid"),
        (lambda p: changed_counts(p, clips=-1), r"clips \(-1\)"),
        (lambda p: changed_counts(p, tokens=2**70), "tokens"),
        (lambda p: changed_counts(p, loss_scale=float("nan")), r"loss_scale \(nan\)"),
        (lambda p: changed_counts(p, rollbacks=True), r"rollbacks \(True\)"),
    ],
    ids=["nan", "half", "large", "missing", "more", "series", "inf", "pickle", "text", "negative", "huge",
         "nan count", "boolean"],
)  # fmt: skip
def test_hostile_state_with_a_right_seal_is_refused_and_nothing_changed(tmp_path, attack, text):
    state, path = saved_state(tmp_path)
    attack(path)
    verify(path)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    with pytest.raises(Damaged, match=text):
        restore_state(state, path)
    assert all(torch.equal(before[n], t) for n, t in state.model.state_dict().items())
    assert (state.step, state.clips) == (1, 2)


def slices_of(path, tensors, offsets):
    """Write a slice file of these tensors at these offsets, as torch.distributed.checkpoint does, and seal it."""
    (path / SLICES).mkdir(exist_ok=True)
    name = f"{SLICES}/shard-00001-model-00001-of-00001.safetensors"
    told = {
        key: {"saved_offsets": offsets.get(key, [0] * tensor.dim())}
        for key, tensor in tensors.items()
    }
    save_file(tensors, path / name, metadata={"DCP_SHARDING_INFO": json.dumps(told)})
    entry = {"bytes": (path / name).stat().st_size, "sha256": sha256_of(path / name)}
    manifest_of(path, lambda m: m["files"].update({name: entry}))


@pytest.mark.parametrize(
    ("offset", "change", "text"),
    [
        ([0, 0], {}, None),
        ([5, 0], {}, "slices hold .* of .* numbers"),
        ([0], {}, "cannot be read|numbers|expected"),
        (["x", 0], {}, "cannot be read"),
        ([0, 0], {MOMENT: torch.ones(4, 16)}, r"exp_avg is torch.float32 \(4, 16\), expected"),
        ([0, 0], {MOMENT: torch.ones(3, 16).half()}, r"exp_avg is torch.float16"),
        ([0, 0], {MOMENT: torch.full((3, 16), float("nan"))}, "exp_avg holds non-finite"),
        ([0, 0], {"x": torch.ones(1, 1)}, "x is unexpected"),
    ],
    ids=["good", "gap", "short offset", "offset of text", "shape", "half", "nan", "name"],
)
def test_hostile_slices_are_refused(tmp_path, offset, change, text):
    state, path = saved_state(tmp_path)
    loaded = load_file(path / "training.safetensors")
    tensors = {k: v.clone() for k, v in loaded.items() if "exp_avg" in k}
    changed_tensors(path, "training.safetensors", lambda t: [t.pop(name) for name in tensors])
    slices_of(path, {**tensors, **change}, {MOMENT: offset})
    verify(path)
    if text is None:
        restore_state(state, path)
        held = state.optimizer.state[state.model.head.weight]
        assert torch.equal(held["exp_avg"], tensors[MOMENT])
        return
    with pytest.raises(Damaged, match=text):
        restore_state(state, path)
