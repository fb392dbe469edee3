import json

import pytest

from stretchysnake.data.records import VideoRecord, find_videos, read_records, write_records


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def pairs(records):
    return [(record.path.rsplit("/", 1)[-1], record.label) for record in records]


LISTS = {
    "comma": ("list.csv", "a.mp4,0\nb.mp4,1\n"),
    "comma-header": ("list.csv", "path,label\na.mp4,0\nb.mp4,1\n"),
    "header-other-order": ("list.csv", "label,path\n0,a.mp4\n1,b.mp4\n"),
    "tab": ("list.tsv", "a.mp4\t0\nb.mp4\t1\n"),
    "space": ("list.txt", "a.mp4 0\nb.mp4 1\n"),
    "space-header": ("list.txt", "path label\na.mp4 0\nb.mp4 1\n"),
    "names": ("list.csv", "a.mp4,ant\nb.mp4,bee\n"),
    "crlf-bom-blank": ("list.csv", "\ufeffpath,label\r\na.mp4,0\r\n\r\nb.mp4,1\r\n"),
    "jsonl": ("list.jsonl", '{"path": "a.mp4", "label": 0}\n{"path": "b.mp4", "label": 1}\n'),
}


@pytest.mark.parametrize(("name", "text"), LISTS.values(), ids=LISTS)
def test_list_formats_are_sniffed(tmp_path, name, text):
    records = read_records(write(tmp_path / name, text))
    assert pairs(records) == [("a.mp4", 0), ("b.mp4", 1)]
    assert records[0].path == str(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["my clip.mp4", "-dash.mp4", "clip é.mp4"])
@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_unusual_paths_are_kept(tmp_path, name, separator):
    source = write(tmp_path / "list.txt", f"{name}{separator}3\n")
    assert pairs(read_records(source)) == [(name, 3)]


def test_root_replaces_the_lists_folder(tmp_path):
    source = write(tmp_path / "list.csv", "a.mp4,0\n/abs/b.mp4,1\n")
    assert [r.path for r in read_records(source, root="/videos")] == ["/videos/a.mp4", "/abs/b.mp4"]


def test_names_are_numbered_in_sorted_order_or_as_classes_say(tmp_path):
    source = write(tmp_path / "list.csv", "a.mp4,bee\nb.mp4,ant\n")
    assert pairs(read_records(source)) == [("a.mp4", 1), ("b.mp4", 0)]
    assert pairs(read_records(source, classes=["bee", "cat", "ant"])) == [
        ("a.mp4", 0),
        ("b.mp4", 2),
    ]


def test_write_records_reads_back_equal(tmp_path):
    records = [
        VideoRecord(str(tmp_path / 'a, "b" é.mp4'), 4, "move, right", "g1", "train", 1.5, 3.25),
        VideoRecord(str(tmp_path / "c.mp4"), 0),
    ]
    write_records(tmp_path / "list.csv", records)
    assert read_records(tmp_path / "list.csv") == records


def test_folder_per_class(tmp_path):
    for name in ("run/b.MP4", "run/a.avi", "eat/deep/c.webm", "eat/notes.txt", "empty/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    records = read_records(tmp_path)
    assert pairs(records) == [("c.webm", 0), ("a.avi", 1), ("b.MP4", 1)]
    assert [record.class_name for record in records] == ["eat", "run", "run"]


ERRORS = {
    "label": (
        "clips.csv",
        "a.mp4,0\nb.mp4,1\nc.mp4,abc\n",
        r"clips.csv line 3 column 2 \(label\): found 'abc', expected an integer",
    ),
    "negative": ("clips.csv", "a.mp4,-1\nb.mp4,1\n", r"line 1 column 2 \(label\): found '-1'"),
    "no-label": ("clips.csv", "path,label\na.mp4,\n", r"line 2 column 2 \(label\): found ''"),
    "no-path": ("clips.csv", "path,label\n,1\n", r"line 2 column 1 \(path\): found ''"),
    "header": (
        "clips.csv",
        "path,klass\na.mp4,1\n",
        "found columns path, klass, expected .*'label'",
    ),
    "cells": (
        "clips.csv",
        "path,label\na,b.mp4,1\n",
        "line 2: found 3 comma-separated cells, expected 2",
    ),
    "one-cell": ("clips.csv", "a.mp4\n", "line 1: found 1 space-separated cells, expected 2"),
    "start": (
        "clips.csv",
        "path,label,start\na.mp4,1,soon\n",
        r"line 2 column 3 \(start\): found 'soon', expected seconds",
    ),
    "empty": ("clips.csv", "", "found no row"),
    "json": (
        "clips.jsonl",
        '{"path": "a.mp4", "label": 0}\n{oops\n',
        "line 2 column 2: found '{oops'",
    ),
}


@pytest.mark.parametrize(("name", "text", "message"), ERRORS.values(), ids=ERRORS)
def test_the_first_bad_line_is_named(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_records(write(tmp_path / name, text))


def test_an_unknown_class_name_is_named(tmp_path):
    source = write(tmp_path / "list.csv", "a.mp4,ant\nb.mp4,wasp\n")
    with pytest.raises(ValueError, match=r"line 2 .*found 'wasp', expected one of the classes ant"):
        read_records(source, classes=["ant", "bee"])


def test_a_folder_without_video_is_named_with_the_extensions(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: found no video, .* mp4 avi webm"):
        read_records(tmp_path)
    with pytest.raises(ValueError, match="found no video"):
        find_videos([tmp_path])


def test_find_videos_takes_files_and_folders(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.mp4", "deep/a.mkv", "c.txt"):
        (tmp_path / name).touch()
    found = find_videos([tmp_path, tmp_path / "b.mp4"])
    assert [path.removeprefix(f"{tmp_path}/") for path in found] == ["b.mp4", "deep/a.mkv", "b.mp4"]
    with pytest.raises(ValueError, match=r"nope: no such file or folder"):
        find_videos([tmp_path / "nope"])


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such list file or folder"):
        read_records(tmp_path / "nope.csv")


def test_jsonl_carries_all_fields(tmp_path):
    row = {
        "path": "/a.mp4",
        "label": 2,
        "class_name": "x",
        "group": "g",
        "split": "val",
        "start": 1,
    }
    records = read_records(write(tmp_path / "list.jsonl", json.dumps(row)))
    assert records == [VideoRecord("/a.mp4", 2, "x", "g", "val", 1.0, None)]
