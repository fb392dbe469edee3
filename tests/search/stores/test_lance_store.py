"""The same index in LanceDB, against the real library: equal neighbours, add, delete, filter, concurrent readers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stretchysnake import cli
from stretchysnake.search.embed import embed_into
from stretchysnake.search.index import read_index
from stretchysnake.search.query import search

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def filled(trained, clip_folder, tmp_path):
    """(videos, index folder, store, function that embeds and syncs), one row per window."""
    from stretchysnake.search.stores.lance_store import sync

    videos = Path(shutil.copytree(clip_folder, tmp_path / "videos"))
    uri, out = str(tmp_path / "store"), str(tmp_path / "index")
    listed = tmp_path / "list.csv"

    def update():
        lines = [
            f"{p},{p.parent.name[-1]},{p.parent.name},g{p.stem}"
            for p in sorted(videos.rglob("*.mp4"))
        ]
        listed.write_text("\n".join(["path,label,class_name,group", *lines]) + "\n")
        options = {"num_frames": 4, "size": 16, "window_seconds": 0.2, "num_workers": 0}
        embed_into(out, [listed, videos], weights=trained[1].weights, **options)
        return sync(uri, read_index(out))

    return videos, out, f"lancedb:{uri}", update


def told(result):
    return [(hit.row, hit.marks, hit.query_start) for hit in result.hits]


@pytest.mark.extra("lancedb")
def test_the_neighbours_are_those_of_the_folder(filled):
    videos, out, store, update = filled
    assert update() == (24, 0)
    for query in sorted(videos.rglob("*.mp4")):
        ours, theirs = search(out, query, k=12), search(store, query, k=12)
        assert told(ours) == told(theirs)
        assert [h.score for h in ours.hits] == pytest.approx(
            [h.score for h in theirs.hits], abs=1e-12
        )


@pytest.mark.extra("lancedb")
def test_only_what_changed_is_written_and_what_is_gone_is_deleted(filled):
    videos, out, store, update = filled
    update()
    assert update() == (0, 0)
    shutil.copyfile(videos / "class0/0.mp4", videos / "class1/0.mp4")
    (videos / "class2/3.mp4").unlink()
    assert update() == (2, 2)
    query = videos / "class0/0.mp4"
    assert told(search(out, query, k=12)) == told(search(store, query, k=12))
    assert search(store, query).num_rows == 22


@pytest.mark.extra("lancedb")
def test_rows_are_filtered_by_their_metadata(filled):
    videos, _, store, update = filled
    update()
    found = search(store, videos / "class0/0.mp4", k=12, where="class_name = 'class1'")
    assert {hit.row.file.class_name for hit in found.hits} == {"class1"} and found.num_rows == 8
    early = search(
        store, videos / "class0/0.mp4", k=12, where="start_seconds < 0.1 AND group_name = 'g2'"
    )
    assert {(hit.row.start, hit.row.file.group) for hit in early.hits} == {(0.0, "g2")}
    nothing = search(store, videos / "class0/0.mp4", where="class_name = 'none'")
    assert nothing.hits == []
    with pytest.raises(
        ValueError, match=r"where \(klass = 1\) is no filter of .*columns: path, start_seconds"
    ):
        search(store, videos / "class0/0.mp4", where="klass = 1")


@pytest.mark.extra("lancedb")
def test_empty_stores_and_files_are_refused_and_not_made(filled, trained, tmp_path):
    videos, _, store, _ = filled
    for uri in (store, f"lancedb:{tmp_path}"):
        with pytest.raises(ValueError, match="holds no index; make it with: stretchysnake embed"):
            search(uri, videos / "class0/0.mp4")
    assert not (tmp_path / "store").exists()
    with pytest.raises(ValueError, match=r"list.csv\) must be a folder, and is a file"):
        (tmp_path / "list.csv").touch()
        search(f"lancedb:{tmp_path / 'list.csv'}", videos / "class0/0.mp4")
    with pytest.raises(ValueError, match=r"store \(lancedb:s4://a/b\) cannot be opened: "):
        search("lancedb:s4://a/b", videos / "class0/0.mp4")


@pytest.mark.extra("lancedb")
def test_readers_see_whole_states_while_a_writer_works(filled):
    """A reader process asks on and on while rows come and go: every answer is one of the two states."""
    videos, _, store, update = filled
    update()
    query = videos / "class0/0.mp4"
    states = {search(store, query, k=12).num_rows}
    code = (
        "import sys; from stretchysnake.search.query import search\n"
        "seen = set()\n"
        "print('ready', flush=True)\n"
        "for _ in range(40): seen.add(search(sys.argv[1], sys.argv[2], k=12).num_rows)\n"
        "print(sorted(seen))\n"
    )
    command = [sys.executable, "-c", code, store, str(query)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "ready\n"
        for round_ in range(6):
            for name in ("x", "y", "z"):
                path = videos / "class0" / f"{name}.mp4"
                if round_ % 2:
                    path.unlink()
                else:
                    shutil.copyfile(videos / "class1/1.mp4", path)
            update()
            states.add(search(store, query, k=12).num_rows)
        seen = set(map(int, reader.stdout.read().strip(" []\n").split(",")))
    assert states == {24, 30} and seen <= states


@pytest.mark.extra("lancedb")
def test_the_verbs_fill_and_search_a_store(trained, clip_folder, tmp_path):
    """In a process of its own, as users do: decoding forks before LanceDB starts its threads."""
    store = f"lancedb:{tmp_path / 'store'}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*words):
        command = [
            sys.executable,
            "-W",
            "error::RuntimeWarning",
            "-m",
            "stretchysnake.cli",
            *map(str, words),
        ]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run("embed", clip_folder, "--weights", trained[1].weights, "-o", "index", "--frames", 4,
               "--size", 16, "--store", store)  # fmt: skip
    assert "12 rows written, 0 deleted" in said
    said = run("search", store, clip_folder / "class0/0.mp4", "-k", 3, "-o", "found.html")
    assert "[same video]" in said and (tmp_path / "found.html").read_text().count("<img ") == 4


def test_a_missing_lancedb_names_the_command(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    words = ["-o", "index", "--weights", "absent.safetensors", "--store", "lancedb:somewhere"]
    for command in (["search", "lancedb:somewhere", "query.mp4"], ["embed", "videos", *words]):
        assert cli.main(command) == 2
        assert "pip install 'stretchysnake[lancedb]'" in capsys.readouterr().err
