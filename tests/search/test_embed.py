"""Embedding into an index: the same bytes however often it is killed, nothing done twice, bad files named."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_at import bytes_of, in_a_child_killed_at
from safetensors.numpy import load_file

from stretchysnake import cli
from stretchysnake.data.decoding.video import write_video
from stretchysnake.search.embed import embed, embed_into
from stretchysnake.search.index import read_index
from stretchysnake.search.named_videos import group_of
from stretchysnake.whole_file import Damaged

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def videos(clip_folder, tmp_path):
    return Path(shutil.copytree(clip_folder, tmp_path / "videos"))


def names(paths):
    return [Path(path).name for path in paths]


def test_bad_file_is_left_out_and_named(trained, clip_folder, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "good.mp4").write_bytes((clip_folder / "class0" / "0.mp4").read_bytes())
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "text.avi").write_text("not a video")
    found = embed(videos, weights=trained[1].weights, num_frames=16)
    assert names(found.paths) == ["good.mp4"]
    assert sorted(names(path for path, _ in found.failures)) == ["empty.mp4", "text.avi"]
    assert found.repeated == found.paths  # 12 frames, 16 asked
    done = embed_into(tmp_path / "out", videos, weights=trained[1].weights, num_frames=16)
    assert (done.num_videos, done.num_new, names(done.repeated)) == (1, 1, ["good.mp4"])
    index = read_index(tmp_path / "out")
    torch.testing.assert_close(torch.from_numpy(index.features), found.features, rtol=0, atol=0)
    assert [Path(path).name for path, _ in index.failures] == ["empty.mp4", "text.avi"]
    assert "0 bytes" in index.failures[0][1]
    assert index.rows[0].repeated


def test_nothing_is_left_behind_when_no_video_could_be_read(trained, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 1 videos could be read; nothing was written"):
        embed_into(tmp_path / "out", tmp_path / "empty.mp4", weights=trained[1].weights)
    assert not (tmp_path / "out").exists()


def test_different_videos_get_different_features(trained, clip_folder):
    found = embed(
        [clip_folder / "class0" / "0.mp4", clip_folder / "class2" / "0.mp4"],
        weights=trained[1].weights,
    )
    first, second = found.features
    assert torch.nn.functional.cosine_similarity(first, second, dim=0) < 0.9999


def test_an_index_can_be_mapped_and_its_lines_name_the_rows(trained, videos, tmp_path):
    embed_into(tmp_path / "out", videos, weights=trained[1].weights, num_frames=4, size=16)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (segment,) = manifest["segments"]
    features = np.load(tmp_path / "out" / f"features-{segment['name']}.npy", mmap_mode="r")
    columns = load_file(tmp_path / "out" / f"rows-{segment['name']}.safetensors")  # another reader
    assert features.shape == (12, 64) and features.dtype == np.float32
    assert columns["row_ends"].tolist() == list(range(1, 13))
    ends = columns["path.ends"].tolist()
    paths = [
        columns["path.text"][first:end].tobytes().decode() for first, end in pairwise([0, *ends])
    ]
    assert paths == sorted(str(p) for p in videos.rglob("*.mp4"))
    for number, path in enumerate(paths):
        content = Path(path).read_bytes()
        assert columns["sha256"][number].tobytes() == hashlib.sha256(content).digest()
        assert columns["size"][number] == len(content)
    assert manifest["settings"]["scale"] == {"num_frames": 4, "size": 16, "patch_size": 4}
    assert (
        manifest["settings"]["decoder"] == "pyav"
        and len(manifest["settings"]["weights_sha256"]) == 64
    )


def test_what_is_done_is_skipped_and_what_changed_is_not(trained, videos, tmp_path):
    def go():
        return embed_into(
            tmp_path / "out", videos, weights=trained[1].weights, num_frames=4, size=16
        )

    assert go().num_new == 12
    before = bytes_of(tmp_path / "out")
    assert go().num_new == 0 and bytes_of(tmp_path / "out") == before
    changed, touched, gone = (videos / f"class{i}" / "1.mp4" for i in range(3))
    shutil.copyfile(videos / "class2" / "3.mp4", changed)
    os.utime(touched, ns=(1, 1))
    gone.unlink()
    write_video(videos / "new.mp4", np.full((12, 48, 48, 3), 90, np.uint8))
    done = go()
    assert (done.num_new, done.num_videos, names(done.removed)) == (2, 12, ["1.mp4"])
    found = read_index(tmp_path / "out")
    at = {row.file.path: i for i, row in enumerate(found.rows)}
    assert (
        found.features[at[str(changed)]] == found.features[at[str(videos / "class2/3.mp4")]]
    ).all()
    assert found.rows[at[str(touched)]].file.mtime_ns == 1
    fresh = tmp_path / "fresh"
    embed_into(fresh, videos, weights=trained[1].weights, num_frames=4, size=16)
    assert bytes_of(fresh) == bytes_of(tmp_path / "out")


def test_folders_are_added_to_an_index(trained, videos, tmp_path):
    options = {"weights": trained[1].weights, "num_frames": 4, "size": 16}
    for part in ("class2", "class0", "class1"):
        embed_into(tmp_path / "parts", videos / part, **options)
    embed_into(tmp_path / "whole", videos, **options)
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")


def test_other_settings_and_other_folders_are_refused(trained, videos, tmp_path):
    weights, out = trained[1].weights, tmp_path / "out"
    embed_into(out, videos, weights=weights, num_frames=4, size=16)
    with pytest.raises(
        ValueError, match=r"holds an index of other settings \(scale .*choose another folder"
    ):
        embed_into(out, videos, weights=weights, num_frames=8, size=16)
    assert len(read_index(out).rows) == 12
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all my work")
    with pytest.raises(ValueError, match=r"thesis.txt, which is no index; choose an empty folder"):
        embed_into(tmp_path / "mine", videos, weights=weights)
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


def test_windows_have_times_and_are_those_parts(trained, tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (50, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "long.mp4", frames, fps=10)
    write_video(tmp_path / "short.mp4", frames[:15], fps=10)
    paths = [tmp_path / "long.mp4", tmp_path / "short.mp4"]
    options = {"weights": trained[1].weights, "num_frames": 4, "size": 16}
    found = embed(paths, window_seconds=2, **options)
    assert [tuple(round(t, 6) for t in times) for times in found.times] == [
        (0, 2),
        (2, 4),
        (3, 5),
        (0, 1.5),
    ]
    assert names(found.paths) == ["long.mp4"] * 3 + ["short.mp4"]
    write_video(tmp_path / "part.mp4", frames[20:40], fps=10, options={"crf": "10"})
    cosine = torch.nn.functional.cosine_similarity
    part = embed(tmp_path / "part.mp4", **options).features
    assert cosine(part, found.features).argmax() == 1
    embed_into(tmp_path / "out", paths, window_seconds=2, stride_seconds=1, **options)
    starts = [round(row.start, 6) for row in read_index(tmp_path / "out").rows]
    assert starts == [0, 1, 2, 3, 0]


def test_windows_of_one_long_video_are_decoded_a_part_at_a_time(trained, tmp_path, monkeypatch):
    from stretchysnake.search import decoding

    frames = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "long.mp4", frames, fps=10)
    options = {"weights": trained[1].weights, "num_frames": 4, "size": 16, "window_seconds": 0.5}
    whole = embed(tmp_path / "long.mp4", **options)
    monkeypatch.setattr(decoding, "_TOKENS_AT_ONCE", 5 * (4 * 4 * 4 + 1))  # five windows a part
    parts = embed(tmp_path / "long.mp4", **options)
    assert len(parts.times) == 12 and parts.times == whole.times
    torch.testing.assert_close(parts.features, whole.features, rtol=1e-4, atol=1e-4)


def test_lists_bring_groups_and_classes(trained, videos, tmp_path):
    (tmp_path / "list.csv").write_text(
        "path,label,class_name,group\nvideos/class0/0.mp4,0,dim,g1\nvideos/class1/0.mp4,1,grey,g2\n"
    )
    options = {"weights": trained[1].weights, "num_frames": 4, "size": 16}
    embed_into(tmp_path / "out", tmp_path / "list.csv", **options)
    rows = read_index(tmp_path / "out").rows
    assert [(row.file.group, row.file.class_name) for row in rows] == [
        ("g1", "dim"),
        ("g2", "grey"),
    ]
    embed_into(tmp_path / "out", videos / "class0", **options)
    rows = read_index(tmp_path / "out").rows
    assert [row.file.group for row in rows] == ["g1", "", "", "", "g2"]
    (tmp_path / "cut.csv").write_text("path,label,start,end\nvideos/class0/0.mp4,0,0,1\n")
    with pytest.raises(ValueError, match="gives start and end"):
        embed(tmp_path / "cut.csv", **options)


def test_a_list_needs_no_labels(trained, videos, tmp_path):
    paths = sorted(str(path) for path in videos.rglob("*.mp4"))[:2]
    (tmp_path / "mine.list").write_text("".join(f"{path}\n" for path in paths))
    options = {"weights": trained[1].weights, "num_frames": 4, "size": 16, "num_workers": 1}
    embed_into(tmp_path / "index", tmp_path / "mine.list", **options)
    embed_into(tmp_path / "by hand", paths, **options)
    listed, by_hand = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("index", "by hand")
    )
    assert listed == by_hand and len(listed) > 2


def test_groups_are_read_from_ucf_names():
    assert group_of("/data/v_Archery_g01_c03.avi") == "v_Archery_g01"
    assert group_of("/data/Archery_g01.avi") == ""


def test_a_damaged_or_old_index_is_refused(trained, videos, tmp_path):
    out = tmp_path / "out"
    embed_into(out, videos / "class0", weights=trained[1].weights, num_frames=4, size=16)
    (features,) = out.glob("features-*.npy")
    content = bytearray(features.read_bytes())
    content[-5] ^= 1
    features.write_bytes(content)
    with pytest.raises(Damaged, match=r"features-\w{16}\.npy is not the one its manifest names"):
        read_index(out)
    (out / "manifest.json").write_text('{"count": 4, "weights_sha256": "ab"}')
    with pytest.raises(Damaged, match=r"is of format \(none, an older one\)"):
        read_index(out)
    with pytest.raises(
        Damaged, match=r"holds no manifest\.json; make it with: stretchysnake embed"
    ):
        read_index(videos)


def test_two_writers_do_not_share_an_index(trained, videos, tmp_path):
    code = (
        "import sys, time; from stretchysnake.search.journal import locked; "
        "file = locked(__import__('pathlib').Path(sys.argv[1]), 'out is being written'); "
        "print('held', flush=True); time.sleep(60)"
    )
    (tmp_path / "out" / ".unfinished").mkdir(parents=True)
    lock = tmp_path / "out" / ".unfinished" / "lock"
    command = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="is being written by another process"):
            embed_into(tmp_path / "out", videos, weights=trained[1].weights)
        other.kill()
    assert embed_into(tmp_path / "out", videos / "class0", weights=trained[1].weights).num_new == 4


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("update", [False, True], ids=["from nothing", "of an older index"])
def test_killed_at_every_write_the_index_is_the_same(trained, videos, tmp_path, update):
    options = {"weights": trained[1].weights, "num_frames": 4, "size": 16, "num_workers": 0}
    small = videos / "class0"
    (small / "2.mp4").unlink()
    (small / "3.mp4").unlink()
    embed_into(tmp_path / "old", small, **options)
    shutil.copyfile(videos / "class1" / "1.mp4", small / "1.mp4")  # changed
    (small / "bad.mp4").write_bytes(b"")
    embed_into(tmp_path / "whole", small, **options)
    wanted, points = bytes_of(tmp_path / "whole"), 0
    for point in range(1, 100):
        out = tmp_path / f"out{point}"
        if update:
            shutil.copytree(tmp_path / "old", out)
        ended = in_a_child_killed_at(point, lambda out=out: embed_into(out, small, **options))
        if not ended:
            embed_into(out, small, **options)
        assert bytes_of(out) == wanted
        if ended:
            break
        points += 1
    assert ended and points > 10


def kill_at_random(videos, weights, out, *, times, seconds):
    """Start the command and kill -9 it at random moments; then let it end. How often it was killed at work."""
    command = [sys.executable, "-m", "stretchysnake.cli", "embed", str(videos), "--weights", str(weights),
               "-o", str(out), "--frames", "4", "--size", "16"]  # fmt: skip
    rng, killed = np.random.default_rng(0), 0
    for _ in range(times):
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and not out.exists():
                time.sleep(0.01)
            time.sleep(rng.uniform(*seconds))
            killed += process.poll() is None
            process.kill()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return killed


def test_kill_9_of_the_command(trained, clip_folder, tmp_path):
    weights = trained[1].weights
    killed = kill_at_random(clip_folder, weights, tmp_path / "out", times=1, seconds=(0.02, 0.2))
    embed_into(tmp_path / "whole", clip_folder, weights=weights, num_frames=4, size=16)
    assert killed and bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


@pytest.mark.slow
def test_kill_9_of_the_command_20_times(trained, clip_folder, tmp_path):
    many = tmp_path / "many"
    many.mkdir()
    for number in range(300):
        source = clip_folder / f"class{number % 3}" / f"{number % 4}.mp4"
        shutil.copyfile(source, many / f"{number:03d}.mp4")
    weights = trained[1].weights
    killed = kill_at_random(many, weights, tmp_path / "out", times=20, seconds=(0, 0.6))
    embed_into(tmp_path / "whole", many, weights=weights, num_frames=4, size=16)
    assert killed >= 10 and bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_the_verb_says_what_it_did(trained, videos, tmp_path, capsys):
    (videos / "bad.mp4").write_bytes(b"")
    arguments = ["embed", str(videos), "--weights", str(trained[1].weights), "-o", str(tmp_path / "out"),
                 "--frames", "16", "--size", "16"]  # fmt: skip
    assert cli.main(arguments) == 1
    said = capsys.readouterr()
    assert "12 videos (12 new, 1 unreadable), 64 numbers each, at T=16 S=16" in said.out
    assert "skipped" in said.err and "bad.mp4: empty" in said.err
    assert "fewer than 16 frames" in said.err
    (videos / "bad.mp4").unlink()
    (videos / "class0" / "0.mp4").unlink()
    assert cli.main(arguments) == 0
    said = capsys.readouterr()
    assert "11 videos (0 new, 0 unreadable)" in said.out
    assert "0.mp4: no longer there, removed from the index" in said.err
    for words, text in (
        (["--stride", "2"], "stride_seconds (2.0) needs window_seconds"),
        (["--window", "-1"], "window_seconds (-1.0) must be more than 0"),
        (["--store", "mongo:x"], "store (mongo:x) must be lancedb:URI"),
    ):
        assert cli.main([*arguments[:5], str(tmp_path / "new"), *words]) == 2
        assert text in capsys.readouterr().err
        assert not (tmp_path / "new").exists()
