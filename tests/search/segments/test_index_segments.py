"""Segments: what is added, replaced and removed is found as numpy finds it; nothing of before is written again."""

import json
import os
import shutil
from itertools import product

import numpy as np
import pytest
import torch
from grown_index import SETTINGS, change, content, expected, rows_of
from killed_at import bytes_of, in_a_child_killed_at

from stretchysnake.search import index as indexes
from stretchysnake.search.index import read_index
from stretchysnake.search.journal import Journal
from stretchysnake.search.query import _ranked
from stretchysnake.search.segments import joining
from stretchysnake.search.segments.export import export_flat
from stretchysnake.search.segments.merging import compact
from stretchysnake.search.stores import collection
from stretchysnake.whole_file import Damaged


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setattr(
        os, "fsync", lambda file: None
    )  # a kill of the process asks nothing of the disk
    monkeypatch.setattr(joining, "SMALL", 4)
    monkeypatch.setattr(joining, "LARGE", 40)


def neighbours(folder, query, k=5):
    """(path, start) of the k nearest videos, as search gives them."""
    rows, features = rows_of("/query", query)
    place = collection.FolderCollection(str(folder))
    return [
        (hit.row.file.path, hit.row.start)
        for hit in _ranked([place], features, rows, k, lambda _: (), False)
    ]


def by_numpy(videos, query, k=5):
    """The same from fp64 cosines of all rows."""
    vector = rows_of("/query", query)[1][0].astype(float)
    best = {}
    for path, (rows, features) in videos.items():
        matrix = features.astype(float)
        scores = matrix @ vector / np.linalg.norm(matrix, axis=1) / np.linalg.norm(vector)
        best[path] = (-scores.max(), path, rows[int(scores.argmax())].start)
    return [(path, start) for _, path, start in sorted(best.values())[:k]]


def test_an_index_that_grows_shrinks_and_changes_is_that_of_a_dictionary(small_segments, tmp_path):
    rng, videos = np.random.default_rng(0), {}
    most = 0
    for step in range(14):
        added, dropped = [], []
        for _ in range(rng.integers(1, 8)):
            path = f"/videos/{rng.integers(300)}.mp4"
            added.append((path, int(rng.integers(1, 10**6)), int(rng.integers(1, 4))))
        if videos and step % 3 == 2:
            dropped = [
                str(one) for one in rng.choice(sorted(videos), min(len(videos), 4), replace=False)
            ]
        dropped = [path for path in dropped if path not in {one[0] for one in added}]
        change(tmp_path / "index", added, dropped)
        videos |= {one[0]: rows_of(*one) for one in added}
        for path in dropped:
            del videos[path]
        assert content(tmp_path / "index") == expected(videos)
        index = read_index(tmp_path / "index", check=True)
        assert index.num_videos == len(videos)
        assert neighbours(tmp_path / "index", step) == by_numpy(videos, step)
        most = max(most, len(index.segments))
        manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
        assert (manifest["count"], manifest["videos"]) == (len(index.rows), len(videos))
    assert most >= 3
    assert any(name.startswith("removed-") for name in os.listdir(tmp_path / "index"))
    drawn = collection.FolderCollection(str(tmp_path / "index")).drawn(10**6)
    assert {candidate.row.file.path for candidate in drawn} == set(videos)  # none that was removed
    for path in [*videos, "/videos/none.mp4", "/videos/", "/v"]:
        found = index.find(path)
        assert (found is not None) == (path in videos)
        if found:
            assert found[0].file(found[1]) == videos[path][0][0].file
    assert sorted(index.under("/videos/1")) == sorted(
        p for p in videos if p.startswith("/videos/1")
    )


def test_what_is_there_is_not_written_again(small_segments, tmp_path):
    change(tmp_path / "index", [(f"/{i:03d}", i + 1) for i in range(30)])
    before = {path.name: path.stat() for path in tmp_path.glob("index/*-*")}
    change(tmp_path / "index", [("/new", 99), ("/007", 100)], ["/013"])
    after = {path.name: path.stat() for path in tmp_path.glob("index/*-*")}
    assert (
        len(before) == 2 and len(after) == 5
    )  # two more of the new segment, one of what was removed
    for name, stat in before.items():
        assert (after[name].st_ino, after[name].st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


def test_a_segment_is_joined_with_neighbours_that_are_not_far_larger(monkeypatch):
    class Part:
        def __init__(self, count, stored=None, name="a"):
            self.features, self.name, self.count = range(stored or count), name, count

    def joined(parts, new):
        return joining.joined_with(parts, [part.count for part in parts], new)

    monkeypatch.setattr(joining, "SMALL", 10)
    monkeypatch.setattr(joining, "LARGE", 200)
    assert joined([Part(100), Part(9)], 1) == [1]  # ten together
    assert joined([Part(100), Part(10)], 1) == []  # eleven, and ten times as many
    assert joined([Part(100), Part(10)], 3) == [1]  # less than four times
    assert joined([Part(100), Part(30)], 10) == [0, 1]  # 30 + 10 is more than a quarter of 100
    assert joined([Part(180), Part(30)], 10) == [1]  # 220 would be too many
    assert joined([Part(40, stored=100), Part(300)], 1) == [0]  # more than half of it removed
    assert joined([Part(400, stored=1000), Part(300)], 1) == []  # the same, and too large
    assert joined([Part(10**6, name=""), Part(60)], 0) == [0]  # of the format before


def test_compacted_it_has_the_bytes_of_one_made_at_once(small_segments, tmp_path):
    videos = [(f"/{i % 7}/{i}", i + 1, 1 + i % 2) for i in range(40)]
    change(tmp_path / "whole", videos)
    for first in range(0, 40, 3):
        change(tmp_path / "parts", [*videos[first : first + 3], (f"/gone/{first}", 5)])
    change(tmp_path / "parts", dropped=[f"/gone/{first}" for first in range(0, 40, 3)])
    assert len(read_index(tmp_path / "parts").segments) > 1
    assert bytes_of(tmp_path / "parts") != bytes_of(tmp_path / "whole")
    compact(tmp_path / "parts")
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("act", ["change", "compact"])
def test_killed_at_every_write_nothing_is_lost_or_double(small_segments, tmp_path, act):
    def old(folder):
        change(folder, [(f"/{i:02d}", i + 1) for i in range(20)])
        change(folder, [("/30", 50), ("/31", 51), ("/05", 52)])

    def acted(folder):
        if act == "compact":
            return compact(folder)
        with Journal(folder, SETTINGS, "weights") as journal:
            for path, seed in (("/06", 70), ("/40", 71), ("/30", 72)):
                if (file := journal.file(path)) is None or file.size != seed:
                    journal.add(*rows_of(path, seed))
            journal.finish([("/bad", "no video")], ["/07"])

    old(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "whole")
    states = [content(tmp_path / "whole")]
    acted(tmp_path / "whole")
    states.append(content(tmp_path / "whole"))
    wanted = bytes_of(tmp_path / "whole")
    for point in range(1, 100):
        folder = tmp_path / f"killed{point}"
        shutil.copytree(tmp_path / "old", folder)
        ended = in_a_child_killed_at(point, lambda folder=folder: acted(folder))
        assert content(folder) in states  # what a reader sees
        acted(folder)
        assert bytes_of(folder) == wanted
        if ended:
            break
    assert point > 10


def test_an_index_of_the_format_before_is_searched_and_renewed_by_the_next_change(tmp_path):
    videos = {f"/{i}": rows_of(f"/{i}", i + 1, 1 + i % 3) for i in range(9)}
    change(
        tmp_path / "new",
        [(path, rows[0].file.size, len(rows)) for path, (rows, _) in videos.items()],
    )
    assert export_flat(read_index(tmp_path / "new"), tmp_path / "old") == 18
    assert sorted(os.listdir(tmp_path / "old")) == ["features.npy", "manifest.json", "meta.jsonl"]
    assert np.array_equal(
        np.load(tmp_path / "old/features.npy"), np.concatenate([v for _, v in videos.values()])
    )
    assert read_index(tmp_path / "old").is_flat and content(tmp_path / "old") == expected(videos)
    assert neighbours(tmp_path / "old", 3) == by_numpy(videos, 3)
    lines = (tmp_path / "old/meta.jsonl").read_text()
    change(tmp_path / "old")  # nothing to write
    assert (tmp_path / "old/meta.jsonl").read_text() == lines
    for name in ("new", "old"):
        change(tmp_path / name, [("/x", 77)], ["/3"])
    assert bytes_of(tmp_path / "old") == bytes_of(tmp_path / "new")
    with pytest.raises(ValueError, match=r"out \(.*old\) is not empty; choose another folder"):
        export_flat(read_index(tmp_path / "new"), tmp_path / "old")


def test_a_large_index_is_hashed_on_request_and_lengths_are_always_compared(tmp_path, monkeypatch):
    change(tmp_path / "index", [(f"/{i}", i + 1) for i in range(5)])
    (features,), (rows,) = tmp_path.glob("index/features-*"), tmp_path.glob("index/rows-*")
    whole, table = features.read_bytes(), rows.read_bytes()
    monkeypatch.setattr(indexes, "HASHED", 0)
    for path, intact, place in product([features, rows], [0], [-3]):
        intact = path.read_bytes()
        damaged = bytearray(intact)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert len(read_index(tmp_path / "index").rows) == 5
        with pytest.raises(Damaged, match=rf"{path.name} is not the one its manifest names"):
            read_index(tmp_path / "index", check=True)
        path.write_bytes(intact)
    features.write_bytes(whole[:-4])
    with pytest.raises(Damaged, match=r"cannot be read \(ValueError: .*embed the videos again"):
        read_index(tmp_path / "index")
    features.write_bytes(whole)
    for wrong in (table[:-1], table + b"x", b"", b"\xff" * 64):
        rows.write_bytes(wrong)
        with pytest.raises(Damaged, match=r"cannot be read|rows-\w+\.safetensors"):
            read_index(tmp_path / "index")
    rows.unlink()
    with pytest.raises(Damaged, match="No such file"):
        read_index(tmp_path / "index")


def test_rows_that_are_not_finite_are_an_error_and_no_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr(indexes, "HASHED", 0)
    change(tmp_path / "index", [(f"/{i}", i + 1) for i in range(5)])
    (features,) = tmp_path.glob("index/features-*")
    stored = bytearray(features.read_bytes())
    stored[-4:] = np.float32(np.nan).tobytes()
    features.write_bytes(stored)
    with pytest.raises(Damaged, match=r"a row that is not finite.*stretchysnake index check"):
        neighbours(tmp_path / "index", 1)


def test_a_reader_that_meets_a_join_reads_the_index_of_after(small_segments, tmp_path, monkeypatch):
    change(tmp_path / "index", [(f"/{i:02d}", i + 1) for i in range(20)])
    change(tmp_path / "index", [("/30", 50)])
    before, opened = content(tmp_path / "index"), indexes.open_segment
    joins = [lambda: compact(tmp_path / "index")]

    def after_a_join(*arguments):
        while joins:
            joins.pop()()
        return opened(*arguments)

    monkeypatch.setattr(indexes, "open_segment", after_a_join)
    assert content(tmp_path / "index") == before
    assert len(read_index(tmp_path / "index").segments) == 1


def test_equal_rows_go_by_path_however_many_there_are_and_wherever_they_lie(
    small_segments, tmp_path
):
    change(tmp_path / "index", [(f"/{i:03d}", 5) for i in range(0, 300, 2)])
    change(tmp_path / "index", [(f"/{i:03d}", 5) for i in range(1, 100, 2)])
    assert len(read_index(tmp_path / "index").segments) == 2
    assert neighbours(tmp_path / "index", 5, k=7) == [(f"/{i:03d}", 0.0) for i in range(7)]


def test_names_that_are_not_utf8_are_kept_and_found(tmp_path):
    odd = [
        os.fsdecode(name) for name in (b"/caf\xe9", b"/\xff\xfe", "/\U0001f40d".encode(), b"/a\nb")
    ]
    change(tmp_path / "index", [(path, i + 1) for i, path in enumerate(odd)])
    index = read_index(tmp_path / "index")
    assert [row.file.path for row in index.rows] == sorted(odd)
    assert all(index.find(path) for path in odd)


def test_settings_that_an_index_does_not_say_have_their_defaults_and_new_ones_are_refused(tmp_path):
    change(tmp_path / "index", [("/a", 1)])
    place = tmp_path / "index" / "manifest.json"
    manifest = json.loads(place.read_text())
    del manifest["settings"]["decoder"], manifest["settings"]["architecture"]
    place.write_text(json.dumps(manifest))
    assert read_index(tmp_path / "index").settings == SETTINGS
    manifest["settings"]["colours"] = "inverted"
    place.write_text(json.dumps(manifest))
    with pytest.raises(
        Damaged, match=r"settings \(colours\) are of a newer version; update stretchysnake"
    ):
        read_index(tmp_path / "index")


def test_blocks_are_read_whatever_their_size_and_memory_is_given_back(tmp_path, monkeypatch):
    videos = [(f"/{i:04d}", i + 1) for i in range(700)]
    change(tmp_path / "index", videos)
    segment = read_index(tmp_path / "index").segments[0]
    for count in (1, 7, 64, 10**6):
        blocks = [
            torch.from_numpy(np.array(block)) for _, block in collection.row_blocks(segment, count)
        ]
        assert torch.equal(torch.cat(blocks), torch.from_numpy(np.array(segment.features)))
