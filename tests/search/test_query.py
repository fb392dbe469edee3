"""Search by example: right neighbours, marks, refusals, the same from every store."""

import json
import shutil
import sys
from pathlib import Path

import inverting_torchcodec
import numpy as np
import pytest
import torch

from stretchysnake import cli, load_model, save_model
from stretchysnake.data.decoding.video import read_frames, write_video
from stretchysnake.data.processes.nursery import open_nursery
from stretchysnake.eval.protocols.nearest import scores
from stretchysnake.search.decoding import decoded
from stretchysnake.search.embed import embed_into
from stretchysnake.search.index import read_index
from stretchysnake.search.query import search
from stretchysnake.search.stores import collection as collections


@pytest.fixture(scope="module")
def indexed(trained, clip_folder, tmp_path_factory):
    """(folder of the videos, their index)"""
    out = tmp_path_factory.mktemp("indexed")
    videos = Path(shutil.copytree(clip_folder, out / "videos"))
    embed_into(out / "index", videos, weights=trained[1].weights, num_frames=4, size=16)
    return videos, str(out / "index")


def names(result):
    return [
        f"{Path(hit.row.file.path).parent.name}/{Path(hit.row.file.path).name}"
        for hit in result.hits
    ]


def test_the_ranking_is_that_of_fp64_cosines(indexed):
    index = read_index(folder := indexed[1])
    features = torch.from_numpy(index.features)
    for number in (0, 5, 11):
        found = search(folder, index.rows[number].file.path, k=12)
        exact = scores(features[number : number + 1], features)[0]
        order = exact.argsort(descending=True, stable=True).tolist()
        assert [hit.row.file.path for hit in found.hits] == [index.rows[i].file.path for i in order]
        assert [hit.score for hit in found.hits] == pytest.approx(exact[order].tolist(), abs=1e-12)


def test_beside_threads_that_a_fork_breaks_a_query_is_decoded_in_a_process_all_the_same(
    indexed, monkeypatch
):
    """LanceDB's, by the names of its modules; the nursery is then a Python of its own."""
    folder = indexed[1]
    path = read_index(folder).rows[5].file.path
    wanted, workers, whole = search(folder, path, k=12), [], decoded

    def noted(*arguments, num_workers, **limits):
        workers.append((num_workers, open_nursery()._fresh))
        return whole(*arguments, num_workers=num_workers, **limits)

    monkeypatch.setattr("stretchysnake.search.query.decoded", noted)
    monkeypatch.setitem(sys.modules, "lance", sys)
    found = search(folder, path, k=12)
    assert workers == [(1, True)] and found.hits == wanted.hits
    assert open_nursery() is None


def test_the_query_itself_and_its_group_are_marked_or_left_out(trained, indexed, tmp_path):
    videos, _ = indexed
    takes = tmp_path / "takes"
    takes.mkdir()
    for name, source in (("v_Run_g01_c01", "class0/0"), ("v_Run_g01_c02", "class0/1"),
                         ("v_Run_g02_c01", "class0/2"), ("copy", "class0/0")):  # fmt: skip
        shutil.copyfile(videos / f"{source}.mp4", takes / f"{name}.mp4")
    embed_into(tmp_path / "index", takes, weights=trained[1].weights, num_frames=4, size=16)
    found = search(str(tmp_path / "index"), takes / "v_Run_g01_c01.mp4", k=4)
    marks = {Path(hit.row.file.path).stem: hit.marks for hit in found.hits}
    assert marks == {
        "v_Run_g01_c01": ("same video", "same group (v_Run_g01)"),
        "v_Run_g01_c02": ("same group (v_Run_g01)",),
        "v_Run_g02_c01": (),
        "copy": ("same video",),
    }
    others = search(str(tmp_path / "index"), takes / "v_Run_g01_c01.mp4", k=4, hide_same=True)
    assert [Path(hit.row.file.path).stem for hit in others.hits] == ["v_Run_g02_c01"]
    named = search(str(tmp_path / "index"), videos / "class1/0.mp4", k=4, group="v_Run_g02")
    assert sum(bool(hit.marks) for hit in named.hits) == 1


def test_several_indexes_are_one_ranking(trained, indexed, tmp_path):
    videos, whole = indexed
    parts = []
    for part in ("class0", "class1", "class2"):
        parts.append(str(tmp_path / part))
        embed_into(parts[-1], videos / part, weights=trained[1].weights, num_frames=4, size=16)
    query = videos / "class1" / "2.mp4"
    together, apart = search(whole, query, k=7), search(parts, query, k=7)
    assert names(together) == names(apart) and apart.num_rows == 12
    assert {hit.index for hit in apart.hits} <= set(parts)


def test_of_windows_each_video_counts_once_with_its_best_place(trained, tmp_path):
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 255, (3, 20, 32, 32, 3), dtype=np.uint8)
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "a.mp4", np.concatenate(scenes), fps=10)
    write_video(videos / "b.mp4", np.concatenate([scenes[2], scenes[2]]), fps=10)
    weights = trained[1].weights
    embed_into(tmp_path / "index", videos, weights=weights, num_frames=4, size=16, window_seconds=2)
    write_video(tmp_path / "query.mp4", scenes[1], fps=10)
    found = search(str(tmp_path / "index"), tmp_path / "query.mp4", k=5)
    assert sorted(Path(hit.row.file.path).name for hit in found.hits) == ["a.mp4", "b.mp4"]
    (hit,) = (hit for hit in found.hits if hit.row.file.path.endswith("a.mp4"))
    assert (hit.row.start, hit.row.end) == pytest.approx((2, 4))
    long = search(str(tmp_path / "index"), videos / "a.mp4", k=1).hits[0]
    assert long.score == pytest.approx(1) and long.query_start == long.row.start


def test_wrong_weights_and_other_scales_are_refused(trained, indexed, tmp_path):
    videos, folder = indexed
    query = videos / "class0" / "0.mp4"
    model, _ = load_model(trained[1].weights)
    with torch.no_grad():
        model.norm_f.weight[0] += 1
    save_model(tmp_path / "other.safetensors", model)
    with pytest.raises(
        ValueError,
        match=r"SHA-256 \w{12}\) are not the ones of .*; give those, or embed .*: "
        r"stretchysnake index list .* --weights .*other.safetensors -o NEW",
    ):
        search(folder, query, weights=tmp_path / "other.safetensors")
    embed_into(
        tmp_path / "other", videos / "class0", weights=trained[1].weights, num_frames=8, size=16
    )
    with pytest.raises(
        ValueError, match=r"differ \(scale .*embed both with one model at one scale"
    ):
        search([folder, str(tmp_path / "other")], query)
    with pytest.raises(ValueError, match=r"k \(0\) must be at least 1"):
        search(folder, query, k=0)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    manifest = (moved / "manifest.json").read_text()
    (moved / "manifest.json").write_text(
        manifest.replace(str(trained[1].weights), "/gone.safetensors")
    )
    with pytest.raises(
        ValueError, match=r"weights \(/gone.safetensors\).*give them with --weights"
    ):
        search(str(moved), query)
    assert names(search(str(moved), query, weights=trained[1].weights)) == names(
        search(folder, query)
    )


def test_of_a_folder_of_indexes_those_that_fit_are_searched_and_the_others_named(
    trained, indexed, tmp_path, capsys
):
    videos, _ = indexed
    weights, query = trained[1].weights, str(videos / "class1/0.mp4")
    for name, size, source in (("a", 16, "class0"), ("b", 32, "class0"), ("c", 16, "class1")):
        embed_into(
            tmp_path / "many" / name,
            videos / source,
            weights=weights,
            num_frames=4,
            size=size,
            num_workers=0,
        )
    found = search(str(tmp_path / "many"), query, k=12)
    assert names(found)[0] == "class1/0.mp4" and len(found.hits) == 8
    assert {Path(hit.index).name for hit in found.hits} == {"a", "c"}
    passed, way_out = found.notes
    assert passed.startswith(f"passed over {tmp_path / 'many' / 'b'} (scale ")
    assert way_out == "choose others with --weights, --frames or --size"
    assert search(str(tmp_path / "many"), query, k=12, size=32).settings.scale.size == 32
    with pytest.raises(
        ValueError, match=r"of the indexes in .* none fits: .*a \(size 16 instead of 24"
    ):
        search(str(tmp_path / "many"), query, size=24)
    with pytest.raises(ValueError, match=r"size \(16\) chooses among the indexes of a folder"):
        search(str(tmp_path / "many" / "a"), query, size=16)
    model, _ = load_model(weights)
    with torch.no_grad():
        model.norm_f.weight[0] += 1
    save_model(tmp_path / "other.safetensors", model)
    embed_into(
        tmp_path / "many" / "d",
        videos / "class2",
        weights=tmp_path / "other.safetensors",
        num_frames=4,
        size=16,
        num_workers=0,
    )
    words = [
        "search",
        str(tmp_path / "many"),
        query,
        "--html",
        "",
        "--weights",
        str(tmp_path / "other.safetensors"),
    ]
    assert cli.main(words) == 0
    said = capsys.readouterr()
    assert said.out.count("class2") == 4 and "class0" not in said.out
    renew = f"to renew it: stretchysnake index list {tmp_path / 'many' / 'a'} -o videos.jsonl && stretchysnake embed"
    assert said.err.count("note: passed over") == 3 and renew in said.err


def test_an_index_larger_than_a_part_is_searched_part_by_part(indexed, monkeypatch):
    videos, folder = indexed
    query = videos / "class2" / "1.mp4"
    whole = search(folder, query, k=6)
    monkeypatch.setattr(collections, "_ROWS_AT_ONCE", 5)
    assert search(folder, query, k=6) == whole


def test_candidates_are_asked_for_until_enough_videos_are_sure(indexed, trained, tmp_path):
    """Many windows of one video before the second video: the first candidates are all of the same one."""
    rng = np.random.default_rng(1)
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "still.mp4", np.full((300, 32, 32, 3), 90, np.uint8), fps=10)
    for name in ("x", "y"):
        write_video(
            videos / f"{name}.mp4", rng.integers(0, 255, (10, 32, 32, 3), dtype=np.uint8), fps=10
        )
    out = tmp_path / "index"
    embed_into(out, videos, weights=trained[1].weights, num_frames=4, size=16, window_seconds=1)
    found = search(str(out), videos / "still.mp4", k=2)
    assert Path(found.hits[0].row.file.path).stem == "still" and len(found.hits) == 2


@pytest.mark.extra("faiss")
def test_faiss_gives_the_same_hits(indexed):
    videos, folder = indexed
    for query in sorted(videos.rglob("*.mp4")):
        assert search(folder, query, k=12, backend="faiss") == search(folder, query, k=12)


def test_a_missing_faiss_names_the_command(indexed, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    videos, folder = indexed
    with pytest.raises(RuntimeError, match=r"pip install 'stretchysnake\[faiss\]'"):
        search(folder, videos / "class0/0.mp4", backend="faiss")


def test_the_verb_writes_a_page_and_lines(indexed, tmp_path, capsys):
    videos, folder = indexed
    query = tmp_path / "<b>query.mp4"
    write_video(query, read_frames(videos / "class0/0.mp4", range(12)), options={"crf": "35"})
    page = tmp_path / "found.html"
    assert cli.main(["search", folder, str(query), "-k", "3", "-o", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].split()[0] == "1" and "whole video" in lines[0]
    text = page.read_text()
    assert text.count("<img ") == 4 and text.count('alt="Frames of ') == 4
    assert text.count("data:image/png;base64,") == 4 and "http" not in text
    assert "&lt;b&gt;query.mp4" in text and "<b>" not in text
    assert cli.main(["search", folder, str(videos / "class0/0.mp4"), "-k", "20", "--html", ""]) == 0
    said = capsys.readouterr().out
    assert "[same video]" in said and "12 of the 20 asked for: there are no more" in said


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["{index}"], "must be one or more indexes and then the query video"),
        (["absent", "{query}"], "index (absent) is not there; make it with: stretchysnake embed"),
        (["{index}", "absent.mp4"], "absent.mp4: missing: no such file"),
        (["{index}", "{query}", "--where", "x = 1"], "where (x = 1) needs a LanceDB store"),
        (
            ["{index}", "{query}", "--backend", "annoy"],
            "backend ('annoy') must be one of: torch, faiss",
        ),
        (["absent", "{query}", "-o", "."], "html (.) must be a file to write, and is a folder"),
        (["{query}", "{query}"], "is a file, and an index is a folder; give that"),
        (["lancedb:", "{query}"], "store (lancedb:) must name a place"),
    ],
)
def test_mistakes_are_one_line(indexed, words, text, capsys, tmp_path, monkeypatch):
    videos, folder = indexed
    monkeypatch.chdir(tmp_path)
    words = [word.format(index=folder, query=videos / "class0/0.mp4") for word in words]
    assert cli.main(["search", *words]) == 2
    said = capsys.readouterr().err.strip()
    assert text in said and len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_page_says_which_video_is_gone(indexed, tmp_path, trained, capsys):
    videos, _ = indexed
    mine = Path(shutil.copytree(videos, tmp_path / "mine"))
    embed_into(tmp_path / "index", mine, weights=trained[1].weights, num_frames=4, size=16)
    shutil.rmtree(mine / "class0")
    page = tmp_path / "found.html"
    query = str(videos / "class0/0.mp4")
    assert cli.main(["search", str(tmp_path / "index"), query, "-k", "12", "-o", str(page)]) == 0
    assert page.read_text().count("No frames: ") == 4
    assert "missing: no such file" in page.read_text()


def test_an_index_of_an_earlier_version_is_searched_with_a_note_and_not_extended(
    trained, clip_folder, tmp_path, capsys
):
    folder, query = tmp_path / "old", str(clip_folder / "class0" / "0.mp4")
    weights = str(trained[1].weights)
    embed_into(folder, [query], weights=weights, num_workers=0)
    assert search(str(folder), query, k=1, weights=weights).notes == ()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["settings"]["resampler"]  # as earlier versions wrote it
    manifest["versions"]["av"] = "16.1.0"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found = search(str(folder), query, k=1, weights=weights)
    assert len(found.hits) == 1
    (note,) = found.notes
    assert "resized by area, now bilinear, antialiased; av 16.1.0 read HD videos" in note
    assert "embed the videos again into a new folder" in note
    with pytest.raises(ValueError, match=r"other settings \(resampler area against bilinear"):
        embed_into(folder, [query], weights=weights, num_workers=0)


def test_an_index_of_another_decoder_is_searched_with_it(
    trained, clip_folder, indexed, tmp_path, monkeypatch
):
    inverting_torchcodec.install(monkeypatch)
    options = {"weights": trained[1].weights, "num_frames": 4, "size": 16}
    out = tmp_path / "index"
    embed_into(out, indexed[0], decoder="torchcodec", num_workers=1, **options)
    index, pyav = read_index(out), read_index(indexed[1])
    assert index.settings.decoder == "torchcodec"
    assert np.abs(index.features - pyav.features).max() > 1e-3  # the complement's
    video = index.rows[5].file.path
    assert search(str(out), video, k=1).hits[0].score == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="decoder pyav against torchcodec"):
        search([indexed[1], str(out)], video)
    with pytest.raises(ValueError, match=r"decoder \(torchcodec\) decodes whole videos"):
        embed_into(
            tmp_path / "windows", indexed[0], decoder="torchcodec", window_seconds=0.2, **options
        )
    inverting_torchcodec.remove(monkeypatch)
    with pytest.raises(RuntimeError, match=r"pip install 'stretchysnake\[torchcodec\]'"):
        search(str(out), video)
