"""Approximate search against the real faiss: its recall is the one that is told, and what has no list is not missed."""

import numpy as np
import pytest
from grown_index import change, content, rows_of

from stretchysnake import cli
from stretchysnake.search.index import read_index
from stretchysnake.search.query import _ranked
from stretchysnake.search.segments import joining
from stretchysnake.search.segments.merging import compact
from stretchysnake.search.stores import ivf
from stretchysnake.search.stores.collection import FolderCollection
from stretchysnake.search.stores.opening import open_collection
from stretchysnake.whole_file import Damaged


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """An index of 600 videos with lists, then ten more and three removed without."""
    monkeypatch.setattr(ivf, "SMALLEST", 100)
    monkeypatch.setattr(joining, "SMALL", 20)
    change(tmp_path / "index", [(f"/{i:03d}", i + 1) for i in range(600)])
    found = ivf.build_lists(tmp_path / "index", recall=0.8, sample=100)
    change(
        tmp_path / "index", [(f"/new{i}", 9000 + i) for i in range(10)], ["/001", "/002", "/003"]
    )
    return tmp_path / "index", found


def nearest(collection, seed, k=10):
    rows, features = rows_of("/query", seed)
    return [
        hit.row.file.path for hit in _ranked([collection], features, rows, k, lambda _: (), False)
    ]


@pytest.mark.extra("faiss")
def test_the_recall_told_is_that_of_queries_it_has_not_seen(listed):
    folder, found = listed
    assert (
        found["recall"] >= 0.8
        and found["num_probes"] < found["lists"][read_index(folder).segments[0].name]
    )
    approximate, exact = (
        open_collection(str(folder), backend="approximate"),
        FolderCollection(str(folder)),
    )
    shares = [
        len({*nearest(approximate, seed)} & {*nearest(exact, seed)}) / 10
        for seed in range(10**6, 10**6 + 60)
    ]
    assert abs(np.mean(shares) - found["recall"]) < 0.12 and np.mean(shares) < 1
    assert (
        f"approximately: {found['recall']:.1%} of the 10 nearest were found for 100"
        in approximate.note
    )
    assert approximate.note.endswith("10 of its 607 rows are searched exactly")


@pytest.mark.extra("faiss")
def test_new_rows_are_found_and_removed_ones_are_not(listed):
    folder, _ = listed
    collection = open_collection(str(folder), backend="approximate")
    for seed, path in ((9003, "/new3"), (9009, "/new9"), (301, "/300")):
        assert nearest(collection, seed)[0] == path
    everything = nearest(collection, 2, k=607)
    assert not {"/001", "/002", "/003"} & {*everything} and len(everything) < 607
    collection.num_probes = 10**6
    assert sorted(nearest(collection, 2, k=607)) == sorted(content(folder))
    assert nearest(collection, 2, k=50) == nearest(FolderCollection(str(folder)), 2, k=50)


@pytest.mark.extra("faiss")
def test_lists_go_with_their_segment_and_damage_is_told(listed):
    folder, _ = listed
    (file,) = folder.glob("ivf-*.faiss")
    assert read_index(folder, check=True).approximate["files"]
    stored = bytearray(file.read_bytes())
    stored[-1] ^= 1
    file.write_bytes(stored)
    with pytest.raises(Damaged, match=r"ivf-\w+\.faiss is not the one its manifest names"):
        read_index(folder, check=True)
    file.write_bytes(b"nothing")
    with pytest.raises(
        Damaged, match=r"cannot be read .*build it again: stretchysnake index approximate"
    ):
        open_collection(str(folder), backend="approximate")
    compact(folder)
    assert not list(folder.glob("ivf-*")) and not read_index(folder).approximate


@pytest.mark.extra("faiss")
def test_what_cannot_be_approximated_is_refused(tmp_path, capsys):
    change(tmp_path / "index", [("/1", 1)])
    for words, text in (
        ([], "has no segment of 4096 rows or more, and smaller ones are searched exactly"),
        (["--recall", "0"], "recall (0.0) must be more than 0 and at most 1"),
        (["--sample", "0"], "sample (0) must be at least 1 row"),
    ):
        assert cli.main(["index", "approximate", str(tmp_path / "index"), *words]) == 2
        assert text in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"has no lists .*: stretchysnake index approximate"):
        open_collection(str(tmp_path / "index"), backend="approximate")


def test_without_faiss_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    change(tmp_path / "index", [("/1", 1)])
    with pytest.raises(
        RuntimeError, match=r"approximate search needs it: pip install 'stretchysnake\[faiss\]'"
    ):
        ivf.build_lists(tmp_path / "index")
    with pytest.raises(RuntimeError, match=r"pip install 'stretchysnake\[faiss\]'"):
        open_collection(str(tmp_path / "index"), backend="approximate")
