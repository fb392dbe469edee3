import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stretchysnake.data.records import (
    VideoRecord,
    find_videos,
    passed_over,
    read_records,
    read_with_shared_labels,
    write_records,
)


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
    "crlf-space": ("list.txt", "a.mp4 0\r\nb.mp4 1 \r\n"),
    "space-header-group": ("list.txt", "path label group\na.mp4 0 g1\nb.mp4 1 g2\n"),
    "space-quoted": ("list.txt", '"a.mp4" 0\n"b.mp4" 1\n'),
    "tab-header-other-columns": ("list.tsv", "label\tfps\tpath\n0\t25\ta.mp4\n1\t25\tb.mp4\n"),
    "comma-blank": ("list.csv", "a.mp4, 0\nb.mp4, 1\n"),
    "names-with-blanks": ("list.txt", "a.mp4 air drumming\nb.mp4 yoga\n"),
    "jsonl-other-suffix": (
        "list.txt",
        '{"path": "a.mp4", "label": 0}\n{"path": "b.mp4", "label": 1}',
    ),
    "no-extension": ("list.csv", "a.mp4,0\nb.mp4,1"),
    "semicolon": ("list.csv", "a.mp4;0\nb.mp4;1\n"),
    "semicolon-header-bom": ("list.csv", "\ufefflabel;path\r\n0;a.mp4\r\n1;b.mp4\r\n"),
    "excel-says-its-separator": ("list.csv", "sep=;\r\npath;label\r\na.mp4;0\r\nb.mp4;1\r\n"),
    "comment-first": ("list.txt", "# made by hand\na.mp4 0\nb.mp4 1\n"),
    "comments-with-quotes": ("list.csv", '# it\'s "odd\npath,label\n  # b, "c\na.mp4,0\nb.mp4,1\n'),
    "commented-out": ("list.csv", "# c.mp4,4\na.mp4,0\n#\nb.mp4,1\n"),
    "comment-cr": ("list.csv", "# made by hand\rpath,label\ra.mp4,0\rb.mp4,1\r"),
    "comment-jsonl": (
        "list.jsonl",
        '# {}\n{"path": "a.mp4", "label": 0}\n{"path": "b.mp4", "label": 1}',
    ),
    "comment-is-header": ("list.csv", "# label, path\n0,a.mp4\n1,b.mp4\n"),
    "trailing-comma": ("list.csv", "path,label\na.mp4,0,\nb.mp4,1,\n"),
    "trailing-commas-header": ("list.csv", "path,label,,\na.mp4,0,,\nb.mp4,1,,\n"),
    "jsonl": ("list.jsonl", '{"path": "a.mp4", "label": 0}\n{"path": "b.mp4", "label": 1}\n'),
}


@pytest.mark.parametrize(("name", "text"), LISTS.values(), ids=LISTS)
def test_list_formats_are_sniffed(tmp_path, name, text):
    records = read_records(write(tmp_path / name, text))
    assert pairs(records) == [("a.mp4", 0), ("b.mp4", 1)]
    assert records[0].path == str(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "name",
    [
        "my clip.mp4",
        "-dash.mp4",
        "clip é.mp4",
        "片 段.webm",
        'it\'s "5".avi',
        "a;b!(c)+.avi",
        "#1.mp4",
        "a.ts",
    ],
)
@pytest.mark.parametrize("separator", [",", "\t", " ", ";"])
def test_unusual_paths_are_kept(tmp_path, name, separator):
    cell = f'"{name}"' if separator == ";" and ";" in name else name
    source = write(tmp_path / "list.txt", f"{cell}{separator}3\n")
    assert pairs(read_records(source)) == [(name, 3)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a,b.mp4 0\n", "a,b.mp4"),
        ("a b.mp4,0\n", "a b.mp4"),
        ("a b,c.mp4\t0\n", "a b,c.mp4"),
        ('"a,b.mp4",0\n', "a,b.mp4"),
        ('" blank.mp4",0\n', " blank.mp4"),
        ("path\tlabel\na, b.mp4\t0\n", "a, b.mp4"),
    ],
)
def test_the_separator_is_the_one_that_leaves_whole_paths(tmp_path, text, name):
    assert pairs(read_records(write(tmp_path / "list.txt", text))) == [(name, 0)]


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
    "only-header": ("clips.csv", "path,label\n", "found no row"),
    "unknown-header": (
        "clips.csv",
        "file,class\na.mp4,ant\nb.mp4,bee\n",
        "line 1: found columns file, class, expected one column named 'path'; rename",
    ),
    "header-twice": (
        "clips.csv",
        "path,label,label\na.mp4,1,2\n",
        "expected one column named 'label'",
    ),
    "label-first": (
        "clips.csv",
        "0,a.mp4\n1,b.mp4\n",
        r"line 1 column 1 \(path\): found '0', expected a video, which stands in column 2; swap",
    ),
    "frame-count": (
        "clips.txt",
        "a.mp4 120 0\nb.mp4 90 1\n",
        r"line 1: found 3 space-separated cells, expected 2",
    ),
    "address": (
        "clips.csv",
        "path,label\na.mp4,0\nhttps://x.org/b.mp4,1\n",
        r"line 3 column 1 \(path\): found 'https://x.org/b.mp4', expected a file of this machine",
    ),
    "bucket": ("clips.csv", "s3://b/a.mp4,0\n", "found 's3://b/a.mp4', expected a file of this"),
    "semicolon-cells": (
        "clips.csv",
        "path;label\na.mp4;0\nb.mp4\n",
        "line 3: found 1 semicolon-separated cells",
    ),
    "open-quote": ("clips.csv", 'a.mp4,0\n"b.mp4,1\n', "line 2: found a cell that cannot be read"),
    "nan": ("clips.csv", "path,label,start\na.mp4,1,nan\n", r"column 3 \(start\): found 'nan'"),
    "end-before-start": (
        "clips.csv",
        "path,label,start,end\na.mp4,1,5,4\n",
        r"line 2 column 4 \(end\): found '4', expected more than start \(5\)",
    ),
    "huge-label": ("clips.csv", f"a.mp4,{'9' * 5000}\n", r"line 1 column 2 \(label\): found '999"),
    "json-array": (
        "clips.json",
        '[{"path": "a.mp4"}]',
        "line 1: found a JSON array, expected one object",
    ),
    "json-label": (
        "clips.jsonl",
        '{"path": "a.mp4", "label": [1]}',
        r"line 1 column 2 \(label\): found '\[1\]', expected a string or a number",
    ),
    "json-path": (
        "clips.jsonl",
        '{"path": 3, "label": 1}',
        r"\(path\): found '3', expected a string",
    ),
    "json-no-path": ("clips.jsonl", '{"video": "a.mp4", "label": 1}', r"line 1 \(path\): found ''"),
    "json-deep": (
        "clips.jsonl",
        '{"path":' + "[" * 20000,
        "line 1: found .*, expected one flat JSON",
    ),
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


@pytest.mark.parametrize("read", [find_videos, read_records])
def test_an_address_is_told_from_a_misspelt_path(tmp_path, read):
    with pytest.raises(ValueError, match=r"s3://bucket/v.mp4: is an address, .* fetch it first"):
        read("s3://bucket/v.mp4")


def test_a_tilde_is_the_home_folder_unless_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    source = write(tmp_path / "list.csv", "~/a.mp4,0\n~b.mp4,1\n")
    assert [r.path for r in read_records(source)] == [
        f"{tmp_path}/home/a.mp4",
        f"{tmp_path}/~b.mp4",
    ]
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "a.mp4").touch()
    assert read_records(source)[0].path == f"{tmp_path}/~/a.mp4"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "c.mp4").touch()
    assert find_videos("~/c.mp4") == [f"{tmp_path}/home/c.mp4"]


def test_comments_of_a_list_are_counted(tmp_path):
    text = '# one\na.mp4,0\n"#2.mp4",1\n#3.mp4,1\n # two\n"b\n# no\n.mp4",0\n'
    source = write(tmp_path / "list.csv", text)
    expected = [("a.mp4", 0), ("#2.mp4", 1), ("#3.mp4", 1), ("b\n# no\n.mp4", 0)]
    assert pairs(read_records(source)) == expected
    assert str(passed_over(source)) == "passed over: 2 comment lines"


def test_json_lines_hold_names_that_are_no_text_and_csv_says_so(tmp_path):
    name = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.mp4"))
    records = [VideoRecord(name, 4, "é", start=0.5), VideoRecord(str(tmp_path / "# a.mp4"), 0)]
    write_records(tmp_path / "list.jsonl", records)
    assert read_records(tmp_path / "list.jsonl") == records
    with pytest.raises(ValueError, match=r"must be UTF-8 to stand in a CSV .* list.jsonl"):
        write_records("list.csv", records)
    relative = [VideoRecord("# a.mp4", 0)]
    write_records(tmp_path / "list.csv", relative)
    assert pairs(read_records(tmp_path / "list.csv")) == [("# a.mp4", 0)]


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


def test_a_video_or_another_encoding_is_no_list(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x20ftyp\xff")
    with pytest.raises(
        ValueError, match=r"clip.mp4 line 1: found byte 0xff, .*expected a list of videos"
    ):
        read_records(tmp_path / "clip.mp4")
    (tmp_path / "list.csv").write_bytes("a.mp4,0\né.mp4,1\n".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"list.csv line 2: found byte 0xe9, .*save the file as UTF-8"
    ):
        read_records(tmp_path / "list.csv")


def test_folders_of_subsets_are_not_taken_for_classes(tmp_path):
    for name in ("train/run/a.mp4", "val/run/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    with pytest.raises(
        ValueError, match=r"found the folders train, val, expected one folder per class"
    ):
        read_records(tmp_path)


def test_classes_that_one_list_lacks_do_not_shift_the_labels_of_the_other(tmp_path):
    gallery = write(tmp_path / "gallery.csv", "a.mp4,ant\nb.mp4,bee\nc.mp4,cat\n")
    queries = write(tmp_path / "queries.csv", "d.mp4,cat\ne.mp4,bee\n")
    assert pairs(read_records(queries)) == [("d.mp4", 1), ("e.mp4", 0)]
    shared = read_with_shared_labels(gallery, queries)
    assert [pairs(records) for records in shared] == [
        [("a.mp4", 0), ("b.mp4", 1), ("c.mp4", 2)],
        [("d.mp4", 2), ("e.mp4", 1)],
    ]


def test_integer_labels_are_shared_as_they_are(tmp_path):
    lists = [write(tmp_path / "a.csv", "a.mp4,3\n"), write(tmp_path / "b.csv", "b.mp4,7\n")]
    assert [records[0].label for records in read_with_shared_labels(*lists)] == [3, 7]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.lists(
        st.builds(
            VideoRecord,
            path=TEXT.filter(str.strip).map(lambda text: f"/{text}"),
            label=st.integers(0, 10**6),
            class_name=TEXT.map(str.strip),
            group=TEXT.map(str.strip),
            split=TEXT.map(str.strip),
            start=st.none() | st.floats(0, 10),
            end=st.none() | st.floats(11, 20),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_records_survive_the_round_trip(tmp_path, records):
    write_records(tmp_path / "list.csv", records)
    assert read_records(tmp_path / "list.csv") == records


ODD_CELLS = ["²", "٣", "nan", "start", ":", "{", "[", "}", '"', "\ufeff", "\u2028", "\x00"]
LINES = ['{"path": "a.mp4", "label": 1}', "path,label\n", "a.mp4 1\n", "\r\n", "\n"]
CELLS = st.sampled_from(
    [*ODD_CELLS, *LINES, "a.mp4", "b c.avi", "path", "label", "0", "-1", "ant", ",", " ", "\t"]
)


@pytest.mark.parametrize("suffix", ["csv", "txt", "jsonl"])
@settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(content=st.lists(CELLS, max_size=30).map("".join).map(str.encode) | st.binary(max_size=60))
def test_any_list_gives_records_or_one_line_naming_it(tmp_path, suffix, content):
    source = tmp_path / f"list.{suffix}"
    source.write_bytes(content)
    try:
        records = read_records(source)
    except ValueError as error:
        assert str(error).startswith(f"{source}")
        assert "\n" not in str(error)
    else:
        assert records and all(r.path.strip() and 0 <= r.label < 10**9 for r in records)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "a b.mp4\n# of a friend\n\nc,d.webm\n"),
        ("l.csv", 'path\na b.mp4\n"c,d.webm"\n'),
        ("l.csv", 'path,group\na b.mp4,g1\n"c,d.webm",g2\n'),
        ("l.jsonl", '{"path": "a b.mp4"}\n{"path": "c,d.webm"}\n'),
        ("l.csv", 'path,label\na b.mp4,0\n"c,d.webm",0\n'),
    ],
)
def test_a_list_without_labels_is_read_where_none_are_needed(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    records = read_records(tmp_path / name, labelled=False)
    assert [(os.path.basename(r.path), r.label, r.class_name) for r in records] == [
        ("a b.mp4", 0, ""),
        ("c,d.webm", 0, ""),
    ]
    if "group" in text:
        assert [r.group for r in records] == ["g1", "g2"]
    if "label" not in text:
        with pytest.raises(ValueError, match="label"):
            read_records(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("group\ng1\n", "found 1 .*cells, expected"),
        ("", "found no row, expected lines with a path"),
        ("path\nhttp://x.org/a.mp4\n", "a file of this machine"),
    ],
)
def test_a_list_without_labels_still_needs_paths(tmp_path, text, said):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_records(tmp_path / "l.csv", labelled=False)
