"""Shards, and indexes made one: the bytes of one index of all, however often it is killed."""

import os
import shutil
from dataclasses import replace

import pytest
from grown_index import SETTINGS, change, content, expected, rows_of
from killed_at import bytes_of, in_a_child_killed_at

from stretchysnake import cli
from stretchysnake.search.decoding import Video
from stretchysnake.search.embed import embed_into
from stretchysnake.search.index import read_index
from stretchysnake.search.journal import Journal
from stretchysnake.search.named_videos import in_shard, shard_of
from stretchysnake.search.segments.merging import merge

VIDEOS = [(f"/{i % 7}/{i}", i + 1, 1 + i % 2) for i in range(30)]


def test_shards_are_parts_that_stay_when_the_list_grows():
    videos = [Video(path=f"/videos/{i}.mp4") for i in range(1000)]
    parts = [in_shard(videos, (k, 5)) for k in range(1, 6)]
    assert sorted(video.path for part in parts for video in part) == sorted(v.path for v in videos)
    assert all(140 < len(part) < 260 for part in parts)
    assert [v for v in parts[2] if v in videos[:500]] == in_shard(videos[:500], (3, 5))
    assert in_shard(videos, (1, 1)) == videos
    # SHA-256 of the path, by hand: b"/videos/0.mp4" -> ee692032468fa97b...
    assert videos[0] in in_shard(videos, (0xEE692032468FA97B % 7 + 1, 7))


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/0", "1", "a/b", "-1/5", "1/5/6"])
def test_shards_that_cannot_be_are_refused(text):
    with pytest.raises(ValueError, match=r"must be k/n with k from 1 to n, e.g. 2/5"):
        shard_of(text)
    assert shard_of("2/5") == (2, 5)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_merged_shards_are_byte_equal_to_one_index(trained, clip_folder, tmp_path, count):
    videos = tmp_path / "videos"
    shutil.copytree(clip_folder / "class0", videos)
    (videos / "bad.mp4").write_bytes(b"")
    options = {"weights": trained[1].weights, "num_frames": 4, "size": 16, "num_workers": 0}
    embed_into(tmp_path / "whole", videos, **options)
    parts = [tmp_path / f"{k}-of-{count}" for k in range(1, count + 1)]
    for k, part in enumerate(parts, 1):
        done = embed_into(part, videos, shard=(k, count), **options)
        assert done.num_videos == len(read_index(part).rows)
    assert sum(len(read_index(part).rows) for part in parts) == 4
    assert merge(parts, tmp_path / "all").is_new
    assert bytes_of(tmp_path / "all") == bytes_of(tmp_path / "whole")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_merge_killed_at_every_write_is_the_same_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(
        os, "fsync", lambda file: None
    )  # a kill of the process asks nothing of the disk
    change(tmp_path / "whole", VIDEOS)
    parts = [tmp_path / name for name in "abc"]
    for number, part in enumerate(parts):
        change(part, VIDEOS[number::3])
    sources, wanted = [bytes_of(part) for part in parts], bytes_of(tmp_path / "whole")
    for point in range(1, 50):
        out = tmp_path / f"out{point}"
        ended = in_a_child_killed_at(point, lambda out=out: merge(parts, out))
        merge(parts, out)
        assert bytes_of(out) == wanted
        if ended:
            break
    assert point > 7 and not merge(parts, out).is_new
    assert [bytes_of(part) for part in parts] == sources


def test_what_several_hold_is_there_once_and_what_was_there_stays_or_is_renewed(tmp_path):
    change(tmp_path / "a", [("/1", 1), ("/2", 2)], failures=[("/3", "no video"), ("/9", "cut")])
    change(tmp_path / "b", [("/2", 2), ("/3", 3)], failures=[("/9", "cut")])
    done = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert (done.num_doubles, len(done.index.rows)) == (1, 3)
    assert done.index.failures == [("/9", "cut")]  # the other one was read by b
    change(tmp_path / "c", [("/4", 4), ("/1", 11)])  # a newer file of that path
    merge([tmp_path / "c"], tmp_path / "all")
    seeds = {"/1": 11, "/2": 2, "/3": 3, "/4": 4}
    assert content(tmp_path / "all") == expected({p: rows_of(p, seed) for p, seed in seeds.items()})
    with pytest.raises(
        ValueError, match=r"\(.*a, .*c\) hold /1 with another content each, .*bring them up to date"
    ):
        merge([tmp_path / "a", tmp_path / "c"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_one_is_refused_and_nothing_is_left(tmp_path):
    change(tmp_path / "a", [("/1", 1)])
    other = replace(SETTINGS, scale=replace(SETTINGS.scale, num_frames=8))
    with Journal(tmp_path / "b", other, "weights") as journal:
        journal.add(*rows_of("/2", 2))
        journal.finish([], [])
    with pytest.raises(ValueError, match=r"a, .*b\) differ \(scale .*one model at one scale"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "new")
    with pytest.raises(ValueError, match=r"index \(.*absent\) is not there"):
        merge([tmp_path / "a", tmp_path / "absent"], tmp_path / "new")
    with pytest.raises(ValueError, match="is one of the indexes to merge; choose another folder"):
        merge([tmp_path / "a"], tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    with Journal(tmp_path / "half", SETTINGS, "weights") as journal:
        journal.add(*rows_of("/3", 3))  # and then a kill
    with pytest.raises(ValueError, match="of an interrupted embed; run the same embed once more"):
        merge([tmp_path / "a"], tmp_path / "half")
    assert (tmp_path / "half" / ".unfinished" / "done.jsonl").stat().st_size


def test_the_verbs_make_shards_merge_and_tell_of_an_index(
    trained, clip_folder, tmp_path, capsys, monkeypatch
):
    videos, parts = tmp_path / "videos", tmp_path / "parts"
    shutil.copytree(clip_folder / "class0", videos)
    common = [
        str(videos),
        "--weights",
        str(trained[1].weights),
        "--frames",
        "4",
        "--size",
        "16",
        "--num_workers",
        "0",
    ]
    assert cli.main(["embed", *common, "-o", str(parts / "1"), "--shard", "1/2"]) == 0
    assert "shard 1/2: " in capsys.readouterr().out
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert cli.main(["embed", *common, "-o", str(parts), "--shard", "env"]) == 2
    assert "needs RANK and WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert cli.main(["embed", *common, "-o", str(parts), "--shard", "env"]) == 0
    assert (parts / "2-of-2" / "manifest.json").is_file()
    assert cli.main(["index", "merge", str(parts), "-o", str(tmp_path / "all")]) == 0
    said = capsys.readouterr().out
    assert "2-of-2: " in said and f"{tmp_path / 'all'}: 4 videos, 4 rows" in said
    for words, text in (
        (["info"], "4, 4 rows of 64 numbers, one row per video"),
        (["check"], "4 rows, every file is the one that was written"),
        (["compact"], "4 rows, 1 segments before, one now"),
        (["list", "-o", str(tmp_path / "videos.csv")], "4 videos: "),
        (["export", "-o", str(tmp_path / "flat")], "4 rows: "),
    ):
        assert cli.main(["index", words[0], str(tmp_path / "all"), *words[1:]]) == 0
        assert text in capsys.readouterr().out
    again = embed_into(
        tmp_path / "again", tmp_path / "videos.csv", weights=trained[1].weights, num_frames=8, size=16, num_workers=0,
    )  # fmt: skip
    assert again.num_videos == 4
    assert read_index(tmp_path / "flat").is_flat
    for words, text in (
        (["index"], "index action is not given and must be one of: info, check, compact"),
        (["index", "burn"], "index action (burn) must be one of"),
        (["index", "list", "a", "b", "-o", "x.csv"], "index list (a b) must name one index"),
        (
            ["embed", *common, "-o", str(tmp_path / "x"), "--shard", "3/2"],
            "shard (3/2) must be k/n",
        ),
    ):
        assert cli.main(words) == 2
        assert text in capsys.readouterr().err
