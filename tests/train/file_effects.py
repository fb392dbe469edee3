"""What each field about files changes in a training: files read, held out and bad, checkpoints, the board."""

import json

import pytest
import torch

from stretchysnake import VideoRecord, read_records
from stretchysnake.data.clips import open_clips
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.records import write_records
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.train import loop
from stretchysnake.train.checkpoints.checkpoint import checkpoints_in
from stretchysnake.train.watch import held_out as held_out_list
from stretchysnake.train.watch.bad_files import TooManyBadFiles
from stretchysnake.whole_file import Damaged


def on_error(case):
    (case.folder / "empty.mp4").write_bytes(b"")
    records = [*read_records(case.clips), VideoRecord(str(case.folder / "empty.mp4"), 1)]
    write_records(case.folder / "list.csv", records)
    listed = {"data": str(case.folder / "list.csv"), "batch_size": 13, "steps": 1}
    assert len(case.train(**listed).batches) == 1
    with pytest.raises(DecodeError, match=r"empty\.mp4: empty"):
        case.train(**listed, on_error="stop")


def limits_of(case, **changes):
    """The limits under which a training decodes its clips, and those under which it decodes the held-out ones."""
    asked = []
    for module in (loop, held_out_list):
        real = module.open_training_clips

        def opened(*args, limits, real=real, **options):
            asked.append(limits)
            return real(*args, limits=limits, **options)

        case.patch.setattr(module, "open_training_clips", opened)
    case.train(**split(case), **changes)
    case.patch.undo()
    assert len(asked) == 2
    return asked


def split(case):
    """Lists of eight clips to train on and four held out."""
    records = read_records(case.clips)
    write_records(case.folder / "learnt.csv", [r for i, r in enumerate(records) if i % 3])
    write_records(case.folder / "held.csv", records[::3])
    return {"data": str(case.folder / "learnt.csv"), "held_out": str(case.folder / "held.csv")}


def num_workers(case):
    assert [limits.num_workers for limits in limits_of(case, num_workers=1, steps=1)] == [1, 1]


def timeout_seconds(case):
    """What becomes of a file that takes longer: tests/data/test_decoder_pool.py."""
    found = limits_of(case, timeout_seconds=7.5, steps=1)
    assert [limits.timeout_seconds for limits in found] == [7.5, 7.5]


def held_out(case):
    done = case.train(**split(case))
    measured = json.loads((done.out / "run.json").read_text())["held_out"]
    assert [(score["step"], score["num_clips"]) for score in measured["scores"]] == [(2, 4)]
    best = read_checkpoint(done.out / "weights_best.safetensors")[0]
    assert torch.equal(best["head.weight"], done.weights["head.weight"])
    plain = case.train(data=str(case.folder / "learnt.csv"))
    assert not (plain.out / "weights_best.safetensors").exists()
    assert torch.equal(plain.weights["head.weight"], done.weights["head.weight"])


def held_out_every(case):
    done = case.train(**split(case), held_out_every=2, steps=5)
    measured = json.loads((done.out / "run.json").read_text())["held_out"]
    assert [score["step"] for score in measured["scores"]] == [2, 4, 5]


def max_bad_share(case):
    """Five of seventeen files are bad, so 5/17 = 29 % of the clips; what else it takes: test_bad_files.py."""
    bad = [case.folder / f"bad{number}.mp4" for number in range(5)]
    for path in bad:
        path.write_bytes(b"")
    records = [*read_records(case.clips), *(VideoRecord(str(path), 1) for path in bad)]
    write_records(case.folder / "list.csv", records)
    listed = {"data": str(case.folder / "list.csv"), "on_error": "skip"}
    listed |= {"batch_size": 17, "steps": 5}
    assert len(case.train(**listed, max_bad_share=0.3).batches) == 5
    with pytest.raises(TooManyBadFiles, match=r"25 of the last 85 clips \(29.4%\)"):
        case.train(**listed, max_bad_share=0.29)


def checkpoint_every(case):
    names = [
        path.name for path in checkpoints_in(case.train(checkpoint_every=1).out / "checkpoints")
    ]
    assert names == ["step-00000001", "step-00000002"]
    assert not (case.train().out / "checkpoints").exists()


def keep_checkpoints(case):
    folders = {}
    for keep in (1, 4):
        done = case.train(steps=6, checkpoint_every=1, keep_checkpoints=keep)
        folders[keep] = checkpoints_in(done.out / "checkpoints")
        assert folders[keep][-keep:][0].name == f"step-{7 - keep:08d}"
    assert len(folders[1]) <= 2 and len(folders[4]) in (4, 5)  # and the best


def tensorboard(case):
    opened = []
    case.patch.setattr(loop, "open_board", lambda folder: opened.append(folder))
    case.train()
    assert not opened
    done = case.train(tensorboard=True)
    assert opened == [done.out / "tensorboard"]


def on_damaged(case):
    done = case.train(steps=2, checkpoint_every=1, out=str(case.folder / "damaged"))
    (done.out / "run.json").unlink()
    newest = checkpoints_in(done.out / "checkpoints")[-1] / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    again = {"steps": 2, "checkpoint_every": 1, "out": str(done.out)}
    with pytest.raises(Damaged):
        case.train(**again, on_damaged="stop")
    assert [batch.step for batch in case.train(**again).batches] == [1]


def check_first(case):
    """What is found then: tests/data/clips/test_bad_clips.py."""
    probed = []
    real = open_clips.probe
    case.patch.setattr(open_clips, "probe", lambda path: probed.append(path) or real(path))
    assert len(case.train(num_workers=0, steps=1).batches) == 1 and probed == []
    case.train(num_workers=0, steps=1, check_first=True)
    assert probed == [record.path for record in read_records(case.clips)]


def verify_cache(case):
    """What is hashed then: tests/data/clips/test_frame_cache.py."""
    asked = []
    real = open_clips.FrameCache.build

    def build(*args, verify, **options):
        asked.append(verify)
        return real(*args, verify=verify, **options)

    case.patch.setattr(open_clips.FrameCache, "build", staticmethod(build))
    for verify in (False, True):
        case.train(cache=str(case.folder / "cache"), steps=1, verify_cache=verify)
    assert asked == [False, True]
