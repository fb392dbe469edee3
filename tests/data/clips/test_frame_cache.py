import errno
import json
import os
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numbered_video import read_numbers, write_numbered

from stretchysnake.data.clips import frame_cache
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.decoding.video import DecodeError, read_frames
from stretchysnake.data.records import VideoRecord


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [VideoRecord(write_numbered(folder / f"{n}.mp4", n), n) for n in (3, 20, 33)]


def build(records, folder, **options):
    return FrameCache.build(records, folder, num_frames=8, size=16, **{"num_workers": 1, **options})


@pytest.mark.parametrize("num_workers", [1, 2])
def test_cache_holds_decoded_and_resized_uniform_frames(
    records, tmp_path, monkeypatch, num_workers
):
    cache = build(records, tmp_path, num_workers=num_workers)
    for row, record in zip(cache.rows, cache.records, strict=True):
        indices = uniform_indices(record.label, 8)
        assert np.array_equal(cache.frames[row], read_frames(record.path, indices, size=(16, 16)))
        assert read_numbers(cache.frames[row]) == indices


def test_a_second_build_decodes_nothing(records, tmp_path, monkeypatch):
    first = build(records, tmp_path)
    monkeypatch.setattr(frame_cache, "read_frames", None)
    assert np.array_equal(build(records, tmp_path).frames, first.frames)


def test_moved_files_are_found_again(records, tmp_path, monkeypatch):
    build(records, tmp_path / "cache")
    monkeypatch.setattr(frame_cache, "read_frames", None)
    moved = [
        replace(r, path=shutil.copy(r.path, tmp_path / f"moved{i}.mp4"))
        for i, r in enumerate(records)
    ]
    assert build(moved, tmp_path / "cache").records == moved


@pytest.mark.parametrize("options", [{"num_frames": 4}, {"size": 20}], ids=str)
def test_other_settings_are_another_cache(records, tmp_path, options):
    settings = {"num_frames": 8, "size": 16, "num_workers": 1, **options}
    cache = FrameCache.build(records, tmp_path, **settings)
    assert cache.key != build(records, tmp_path).key


def test_an_array_cut_short_is_made_anew(records, tmp_path):
    cache = build(records, tmp_path)
    path = tmp_path / f"{cache.key}.npy"
    expected = cache.frames.copy()
    path.write_bytes(path.read_bytes()[:500])
    assert np.array_equal(build(records, tmp_path).frames, expected)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.999], ids=str)
def test_one_changed_bit_is_noticed_and_decoded_anew(records, tmp_path, capsys, place):
    cache = build(records, tmp_path)
    path = tmp_path / f"{cache.key}.npy"
    expected = cache.frames.copy()
    content = bytearray(path.read_bytes())
    content[128 + int(place * (len(content) - 128))] ^= 4
    path.write_bytes(content)
    assert np.array_equal(build(records, tmp_path).frames, expected)
    assert "its content changed on disk; decoding again" in capsys.readouterr().err


def test_a_decoder_that_hangs_costs_one_video(records, tmp_path, monkeypatch):
    def hang_on(path, *arguments, **options):
        if path == records[1].path:
            time.sleep(600)
        return read_frames(path, *arguments, **options)

    monkeypatch.setattr(frame_cache, "read_frames", hang_on)
    cache = build(records, tmp_path, num_workers=2, timeout_seconds=3)
    assert cache.records == [records[0], records[2]]
    assert [error.kind for _, error in cache.failures] == ["timeout"]


def test_bad_files_are_listed_and_never_replaced(records, tmp_path):
    bad = VideoRecord(str(tmp_path / "bad.mp4"), 7)
    (tmp_path / "bad.mp4").write_text("no video")
    gone = VideoRecord(str(tmp_path / "gone.mp4"), 8)
    mixed = [records[0], bad, records[1], gone]
    for _ in range(2):  # decoded, then from the cache
        cache = build(mixed, tmp_path / "cache")
        assert cache.records == records[:2]
        assert [(r, e.kind) for r, e in cache.failures] == [(bad, "unreadable"), (gone, "missing")]
        assert read_numbers(cache.frames[cache.rows[1]]) == uniform_indices(20, 8)


def failing(monkeypatch, path, error):
    """Reading this video raises the error from now on; a list of all that is read."""
    read = []

    def reads(asked, *arguments, **options):
        read.append(asked)
        if asked == path:
            raise error
        return read_frames(asked, *arguments, **options)

    monkeypatch.setattr(frame_cache, "read_frames", reads)
    return read


@pytest.mark.parametrize(
    "error",
    [
        DecodeError("timeout", "v.mp4", "not one more second of it was decoded."),
        DecodeError("unreadable", "v.mp4", "cannot be read (Input/output error).", True),
        OSError(errno.EIO, os.strerror(errno.EIO)),
        DecodeError("corrupt", "v.mp4", "needs more than 4 GiB.", limited=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("fit", ["square", "keep"])
def test_a_failure_that_may_pass_is_tried_again_by_a_later_build(
    records, tmp_path, monkeypatch, error, fit
):
    build_here = partial(build, records, tmp_path / "cache", num_workers=0, fit=fit)
    wanted = build(records, tmp_path / "whole", num_workers=0, fit=fit)
    failing(monkeypatch, records[1].path, error)
    first = build_here()
    assert list(first.holes) == [1]
    note = tmp_path / "cache" / f"{first.key}.json"
    before = json.loads(note.read_text())
    read = failing(monkeypatch, records[1].path, error)
    assert list(build_here().holes) == [1]
    assert read == [records[1].path] and json.loads(note.read_text()).items() >= before.items()
    read = failing(monkeypatch, None, None)
    held = build_here()
    assert read == [records[1].path] and held.holes == {} and held.key == first.key
    for row in range(3):
        assert np.array_equal(held.frames_of(row), wanted.frames_of(row))
    assert build_here().shown == wanted.shown and len(read) == 1
    assert not first.frames[1].any()  # who holds the array of before keeps it
    assert not list(note.parent.glob("*.part*"))


def test_too_little_memory_is_a_failure_that_may_pass(records, tmp_path, monkeypatch):
    failing(monkeypatch, records[1].path, MemoryError())
    assert list(build(records, tmp_path).holes) == [1]
    read = failing(monkeypatch, None, None)
    assert build(records, tmp_path, num_workers=0).holes == {} and read == [records[1].path]


def test_a_corrupt_file_is_not_tried_again(records, tmp_path, monkeypatch):
    bad = DecodeError("corrupt", "v.mp4", "frame 3 is damaged.")
    failing(monkeypatch, records[1].path, bad)
    build(records, tmp_path, num_workers=0)
    monkeypatch.setattr(frame_cache, "read_frames", None)
    assert [str(error) for error in build(records, tmp_path).holes.values()] == [
        f"{records[1].path}: corrupt: frame 3 is damaged."
    ]


def test_a_note_of_an_earlier_version_says_which_kinds_may_pass(records, tmp_path, monkeypatch):
    gone = VideoRecord(str(tmp_path / "gone.mp4"), 8)
    cache = build([*records, gone], tmp_path / "cache")
    note = tmp_path / "cache" / f"{cache.key}.json"
    told = json.loads(note.read_text())
    told["failures"] = [failure[:3] for failure in told["failures"]]
    note.write_text(json.dumps(told))
    read = failing(monkeypatch, None, None)
    assert list(build([*records, gone], tmp_path / "cache", num_workers=0).holes) == [3]
    assert read == [gone.path]


def test_a_set_without_a_readable_file_is_an_error(tmp_path):
    with pytest.raises(
        ValueError, match=r"none of 1 videos can be decoded; first: .*gone.mp4: missing"
    ):
        build([VideoRecord(str(tmp_path / "gone.mp4"), 0)], tmp_path)


def test_an_interrupted_build_leaves_nothing(records, tmp_path, monkeypatch):
    def interrupt(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(records, tmp_path, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def aged(records, tmp_path, monkeypatch):
    """(copies of the records, an hour old; a folder with their cache, as old; what was hashed since, by name)"""
    copies = [
        replace(r, path=str(shutil.copy(r.path, tmp_path / f"{r.label}.mp4"))) for r in records
    ]
    for record in copies:
        age(record.path)
    folder = tmp_path / "cache"
    cache = build(copies, folder, num_workers=0)
    age(folder / f"{cache.key}.npy")
    build(
        copies, folder, num_workers=0
    )  # of another time of change: hashed once more, and that time noted
    hashed = []
    for name in ("_key", "_checksum"):
        real = getattr(frame_cache, name)
        monkeypatch.setattr(
            frame_cache, name, lambda *a, name=name, real=real: hashed.append(name) or real(*a)
        )
    monkeypatch.setattr(frame_cache, "read_frames", None)
    return copies, folder, hashed


def age(path, seconds=3600):
    os.utime(path, (time.time() - seconds,) * 2)


def flip_a_bit_and_keep_the_time(path):
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_later_start_hashes_neither_videos_nor_array(aged):
    copies, folder, hashed = aged
    cache = build(copies, folder, num_workers=0)
    assert hashed == [] and len(cache) == 3
    assert read_numbers(cache.frames[1]) == uniform_indices(20, 8)


def test_a_file_of_another_time_is_hashed_and_found_to_be_the_same(aged):
    copies, folder, hashed = aged
    age(copies[1].path, 1800)
    build(copies, folder, num_workers=0)
    build(copies, folder, num_workers=0)
    assert hashed == ["_key"]
    age(next(folder.glob("*.npy")), 1800)
    build(copies, folder, num_workers=0)
    build(copies, folder, num_workers=0)
    assert hashed == ["_key", "_checksum"]


def test_what_changed_a_moment_ago_is_hashed_at_every_start(aged):
    copies, folder, hashed = aged
    age(copies[0].path, 0)
    build(copies, folder, num_workers=0)
    build(copies, folder, num_workers=0)
    assert hashed == ["_key", "_key"]


def test_a_cache_of_an_earlier_version_is_hashed_once(aged):
    copies, folder, hashed = aged
    for path in folder.glob("*.known"):
        path.unlink()
    (note,) = folder.glob("*.json")
    held = json.loads(note.read_text())
    del held["changed_ns"]
    note.write_text(json.dumps(held))
    for _ in range(2):
        assert build(copies, folder, num_workers=0).records == copies
    assert hashed == ["_key", "_checksum"]


def test_verify_finds_what_sizes_and_times_do_not_show(aged, monkeypatch, capsys):
    copies, folder, hashed = aged
    (array,) = folder.glob("*.npy")
    flip_a_bit_and_keep_the_time(array)
    build(copies, folder, num_workers=0)
    assert hashed == []
    monkeypatch.setattr(frame_cache, "read_frames", read_frames)
    fresh = build(copies, folder, num_workers=0, verify=True)
    assert "its content changed on disk; decoding again" in capsys.readouterr().err
    assert read_numbers(fresh.frames[2]) == uniform_indices(33, 8)
    flip_a_bit_and_keep_the_time(Path(copies[1].path))
    assert build(copies, folder, num_workers=0).key == fresh.key
    assert build(copies, folder, num_workers=0, verify=True).key != fresh.key


def test_a_key_of_files_that_could_not_be_read_is_not_kept(aged, monkeypatch):
    copies, folder, _ = aged
    age(copies[2].path, 1800)
    before = len(list(folder.glob("*.known")))
    held_open = open

    def refuse(path, *arguments, **options):
        if path == copies[2].path and "b" in "".join(map(str, arguments)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return held_open(path, *arguments, **options)

    monkeypatch.setattr(frame_cache, "read_frames", read_frames)
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        assert build(copies, folder, num_workers=0).records == copies[:2]
    assert len(list(folder.glob("*.known"))) == before
    assert build(copies, folder, num_workers=0).records == copies


def test_a_damaged_file_of_known_keys_is_made_anew(aged):
    copies, folder, hashed = aged
    for text in ("", "abc", "zz" * 10):
        for path in folder.glob("*.known"):
            path.write_text(text)
        assert build(copies, folder, num_workers=0).records == copies
    assert hashed == ["_key"] * 3
