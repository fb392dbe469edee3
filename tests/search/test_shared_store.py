"""Several indexes in one LanceDB store: no writer touches another's rows, whenever it is killed."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hand_made_index import WIDTH, hand_made, numbered

from stretchysnake.search.index import read_index
from stretchysnake.search.stores import lance_store
from stretchysnake.search.stores.lance_collection import LanceCollection
from stretchysnake.search.stores.lance_store import sync
from stretchysnake.search.stores.lance_tables import FORMAT, connect, held_indexes

pytestmark = pytest.mark.extra("lancedb")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "store")


def stored(uri):
    """Name -> sorted (path, size) of its rows, read without the code under test."""
    return {
        held.name: sorted((row["path"], row["size"]) for row in held.table.to_arrow().to_pylist())
        for held in held_indexes(uri, connect(uri))
    }


def run_writer(*arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
    command = [sys.executable, HERE / "killed_store_writer.py", *arguments]
    return subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300
    )


def test_three_indexes_keep_their_rows_whatever_the_others_do(uri, tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    assert sync(uri, hand_made(a, numbered(0, 30))) == (30, 0)
    assert sync(uri, hand_made(b, numbered(20, 50))) == (30, 0)  # ten videos are in both
    assert sync(uri, hand_made(c, numbered(100, 130))) == (30, 0)
    assert sync(uri, read_index(a)) == (0, 0)
    shrunk = {**numbered(0, 20), **numbered(0, 1, changed=7)}
    assert sync(uri, hand_made(a, shrunk)) == (1, 10)
    assert stored(uri) == {
        str(a): sorted(shrunk.items()),
        str(b): sorted(numbered(20, 50).items()),
        str(c): sorted(numbered(100, 130).items()),
    }


def test_more_indexes_than_lancedb_lists_at_once(uri, tmp_path):
    for i in range(12):
        sync(uri, hand_made(tmp_path / f"part{i}", numbered(i, i + 1)))
    assert len(stored(uri)) == 12 and LanceCollection(uri).num_rows == 12


def test_all_indexes_are_searched_as_one_or_those_named(uri, tmp_path):
    videos = {"a": numbered(0, 40), "b": numbered(30, 70), "c": numbered(200, 230)}
    for name, listed in videos.items():
        sync(uri, hand_made(tmp_path / name, listed), name=name)
    query = np.random.default_rng(5).normal(size=(3, WIDTH)).astype(np.float32)

    def by_hand(names):
        seeds = [seed for name in names for seed in videos[name].values()]
        matrix = np.stack([np.random.default_rng(s).normal(size=WIDTH) for s in seeds])
        cosine = (query @ matrix.T) / np.linalg.norm(matrix, axis=1)
        return [[seeds[i] for i in row] for row in np.argsort(-cosine, axis=1)[:, :9]]

    for chosen, names in ((None, "abc"), ("b", "b"), (["a", "c"], "ac")):
        collection = LanceCollection(uri, index_name=chosen)
        assert collection.num_rows == sum(len(videos[name]) for name in names)
        found = [[c.row.file.size for c in one] for one in collection.nearest(query, 9)]
        assert found == by_hand(names)
    groups = LanceCollection(uri, where="group_name = 'g1'").nearest(query, 200)
    wanted = [seed for listed in videos.values() for seed in listed.values() if seed % 3 == 1]
    assert sorted(c.row.file.size for c in groups[0]) == sorted(wanted)


def test_what_cannot_be_compared_is_listed(uri, tmp_path):
    sync(uri, hand_made(tmp_path / "a", numbered(0, 3)), name="small")
    sync(uri, hand_made(tmp_path / "b", numbered(0, 4), size=64), name="large")
    holds = (
        r"choose with --index_name; the store holds: large \(4 rows, T=8 S=64 P=8, weights aaaaaaaaaaaa\); "
        r"small \(3 rows, T=8 S=32 P=8, weights aaaaaaaaaaaa\)"
    )
    with pytest.raises(ValueError, match=rf"cannot be compared \(large and small: scale .*{holds}"):
        LanceCollection(uri)
    with pytest.raises(
        ValueError, match=r"index_name \(huge\) is not in lancedb:.*; the store holds: large"
    ):
        LanceCollection(uri, index_name="huge")
    assert LanceCollection(uri, index_name="small").num_rows == 3


def test_another_folder_does_not_take_a_name_unless_told(uri, tmp_path):
    """Two machines with an index at the same path, or one made anew there."""
    first, second = (tmp_path / machine / "index" for machine in ("one", "two"))
    sync(uri, hand_made(first, numbered(0, 5)), name="shared")
    other = hand_made(second, numbered(5, 9))
    taken = r"name shared that another folder wrote \(5 rows, from .*one/index\); .*--replace_index true"
    with pytest.raises(ValueError, match=taken):
        sync(uri, other, name="shared")
    with pytest.raises(
        ValueError, match=r"other settings \(scale .*under the name shared; choose another"
    ):
        sync(uri, hand_made(first, numbered(0, 5), size=64), name="shared")
    assert stored(uri) == {"shared": sorted(numbered(0, 5).items())}
    assert sync(uri, other, name="shared", replace=True) == (4, 5)
    assert stored(uri) == {"shared": sorted(numbered(5, 9).items())}
    assert sync(uri, other, name="shared") == (0, 0)


def test_names_that_cannot_be_are_refused(uri, tmp_path):
    index = hand_made(tmp_path / "a", numbered(0, 2))
    for name in ("", "unnamed"):
        with pytest.raises(ValueError, match=r"index_name \('(unnamed)?'\) must be a name"):
            sync(uri, index, name=name)
    odd = hand_made(tmp_path / "b", {os.fsdecode(b"/caf\xe9.mp4"): 1})
    with pytest.raises(ValueError, match=r"path \(b'/caf\\xe9.mp4'\) is not UTF-8, and LanceDB"):
        sync(uri, odd)


def older(uri, index, *, form=FORMAT):
    """The one nameless table in which earlier versions kept a store."""
    schema = lance_store._schema(index, "", "")
    held = {"format": form, "settings": json.dumps(asdict(index.settings)), "weights": "w"}
    ids = [f"0.000000 {row.file.path}" for row in index.rows]
    rows = lance_store._batches(index, schema, range(len(ids)), ids, ids)
    table = lance_store._reader(schema, rows).read_all().replace_schema_metadata(held)
    connect(uri).create_table("stretchysnake", table)


def test_a_store_of_an_earlier_version_is_read_and_renewed_without_loss(uri, tmp_path):
    older(uri, hand_made(tmp_path / "old", numbered(0, 6)))
    assert LanceCollection(uri).num_rows == LanceCollection(uri, index_name="unnamed").num_rows == 6
    notes = []
    sync(uri, hand_made(tmp_path / "b", numbered(4, 9)), name="b", note=notes.append)
    assert notes[0].startswith(
        "6 rows that an earlier version wrote without the name of an index stay"
    )
    assert {name: len(rows) for name, rows in stored(uri).items()} == {"unnamed": 6, "b": 5}
    sync(uri, hand_made(tmp_path / "a", numbered(0, 7)), name="a", note=notes.append)
    assert notes[1].endswith("are all of this index and stand under its name now")
    assert {name: len(rows) for name, rows in stored(uri).items()} == {"a": 7, "b": 5}


def test_tables_that_cannot_be_read_are_named_and_others_searched(uri, tmp_path):
    index = hand_made(tmp_path / "a", numbered(0, 6))
    older(uri, index, form="stretchysnake-index-0")
    sync(uri, index, name="a")
    database = connect(uri)
    database.create_table("somebody-elses", [{"x": 1}])
    text = r"unnamed \(6 rows, of format stretchysnake-index-0, this version reads .*: embed its videos again"
    with pytest.raises(ValueError, match=rf"holds an index to leave out, {text}"):
        LanceCollection(uri)
    assert LanceCollection(uri, index_name="a").num_rows == 6
    database.create_table("stretchysnake-foreign", [{"x": 1}])
    with pytest.raises(ValueError, match=r"stretchysnake-foreign \(1 rows, of format none"):
        LanceCollection(uri, index_name=["a", "stretchysnake-foreign"])


def test_two_processes_do_not_write_from_one_folder(uri, tmp_path):
    index = hand_made(tmp_path / "a", numbered(0, 2))
    code = (
        "import sys; from pathlib import Path; from stretchysnake.search.journal import locked\n"
        "file = locked(Path(sys.argv[1]), 'x'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a" / lance_store.WRITER)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="is being put into a store by another process"):
            sync(uri, index)
        other.stdin.close()
    assert sync(uri, index) == (2, 0)


@pytest.mark.parametrize("point", ["first-rows", "merge", "delete"])
def test_a_killed_writer_loses_nothing_and_the_next_one_finishes(uri, tmp_path, point):
    a, b = tmp_path / "a", tmp_path / "b"
    sync(uri, hand_made(b, numbered(0, 20)))
    old, new = numbered(0, 20), {**numbered(5, 30), **numbered(5, 12, changed=50)}
    if point != "first-rows":
        sync(uri, hand_made(a, old))
    hand_made(a, new)
    assert run_writer(uri, a, point).returncode == -9
    whole = {"first-rows": None, "merge": old, "delete": {**old, **new}}[point]
    expected = {str(b): sorted(numbered(0, 20).items())}
    if whole is not None:
        expected[str(a)] = sorted(whole.items())
    assert stored(uri) == expected
    assert LanceCollection(uri).num_rows == 20 + len(whole or ())
    sync(uri, read_index(a))
    assert stored(uri) == {**expected, str(a): sorted(new.items())}


@pytest.mark.slow
def test_writers_killed_at_any_moment_beside_others_lose_and_double_nothing(tmp_path):
    done = run_writer(tmp_path, 12, 0)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 4  # most of the chosen moments lay within the work


def test_rows_are_drawn_from_all_indexes_of_a_store(uri, tmp_path):
    """Of two tables of 200 rows: runs of rows of both, all of them where so many are asked for, under the filter."""
    for first in (0, 200):
        sync(uri, hand_made(tmp_path / f"i{first}", numbered(first, first + 200)))
    drawn = LanceCollection(uri).drawn(128)
    seeds = [row.row.file.size for row in drawn]
    assert len(seeds) == len(set(seeds)) <= 128 and min(seeds) < 200 <= max(seeds)
    for row in drawn:
        made = np.random.default_rng(row.row.file.size).normal(size=WIDTH).astype("<f4")
        assert np.array_equal(row.features, made)
    filtered = LanceCollection(uri, where="group_name = 'g1'").drawn(64)
    assert filtered and {row.row.file.group for row in filtered} == {"g1"}
