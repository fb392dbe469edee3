"""Copies: found by their bytes, kept on one side of a split, named where their labels contradict one another."""

import os
import shutil

import pytest

from stretchysnake.data import copies as copies_module
from stretchysnake.data.copies import (
    copies_in,
    doubles_of,
    same_content,
    same_file,
    with_copies_grouped,
)
from stretchysnake.data.records import VideoRecord, read_records


@pytest.fixture
def files(tmp_path):
    """a.mp4 with a copy, a symbolic and a hard link; b.mp4 as long as a; c.mp4 of another length; two empty ones."""
    (tmp_path / "a.mp4").write_bytes(b"a" * 50)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "a (1).mp4")
    os.symlink("a.mp4", tmp_path / "soft.mp4")
    os.link(tmp_path / "a.mp4", tmp_path / "hard.mp4")
    (tmp_path / "b.mp4").write_bytes(b"b" * 50)
    (tmp_path / "c.mp4").write_bytes(b"c" * 51)
    for name in ("e.mp4", "f.mp4"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def by_name(found):
    return {os.path.basename(path): os.path.basename(first) for path, first in found.items()}


NAMES = ("a.mp4", "a (1).mp4", "soft.mp4", "hard.mp4", "b.mp4", "c.mp4", "e.mp4", "f.mp4", "gone.mp4")  # fmt: skip


def test_files_of_the_same_bytes_have_one_name(files, monkeypatch):
    paths = [files / name for name in NAMES]
    alone = {name: name for name in ("b.mp4", "c.mp4", "e.mp4", "f.mp4", "gone.mp4")}
    linked = dict.fromkeys(("a.mp4", "soft.mp4", "hard.mp4"), "a.mp4")
    assert by_name(same_file(paths)) == {**linked, "a (1).mp4": "a (1).mp4", **alone}
    read, digest = [], copies_module._digest
    monkeypatch.setattr(copies_module, "_digest", lambda path: read.append(path) or digest(path))
    assert by_name(same_content(paths)) == {**linked, "a (1).mp4": "a.mp4", **alone}
    assert [os.path.basename(path) for path in read] == ["a.mp4", "a (1).mp4"]  # b's ends differ


def test_copies_of_queries_are_told_from_files_with_equal_size_and_ends(tmp_path, monkeypatch):
    """Of 300,000 bytes the ends are 65,536 each; `middle` differs in byte 150,000 alone."""
    content = bytes(range(250)) * 1200
    paths = {name: str(tmp_path / name) for name in ("a", "b", "middle", "end", "short", "gone")}
    for name, changed in (("a", None), ("b", None), ("middle", 150_000), ("end", 299_999)):
        other = bytearray(content)
        if changed is not None:
            other[changed] ^= 1
        (tmp_path / name).write_bytes(other)
    (tmp_path / "short").write_bytes(content[:-1])
    read, digest = [], copies_module._digest
    monkeypatch.setattr(copies_module, "_digest", lambda path: read.append(path) or digest(path))
    gallery = [paths["a"], paths["middle"], paths["end"]]
    queries = [paths["b"], paths["a"], paths["short"], paths["gone"]]
    assert copies_in(gallery, queries) == {paths["b"]: [paths["a"]]}  # a itself is no copy of a
    assert {os.path.basename(path) for path in read} == {"a", "b", "middle"}
    assert same_content(paths.values()) == {
        path: paths["a"] if name == "b" else path for name, path in paths.items()
    }


def test_another_spelling_is_the_same_file(files):
    odd = f"{files}/../{files.name}//a.mp4"
    assert same_content([files / "a.mp4", odd])[odd] == str(files / "a.mp4")
    gone = f"{files}/./gone.mp4"
    assert same_content([files / "gone.mp4", gone])[gone] == str(files / "gone.mp4")


def test_a_file_that_cannot_be_read_is_no_copy(files, monkeypatch):
    def refused(path, mode):
        raise PermissionError(13, "no", path)

    monkeypatch.setattr("builtins.open", refused)
    assert len(set(same_content([files / "a.mp4", files / "b.mp4"]).values())) == 2


def grouped(records):
    found = with_copies_grouped(records, same_content(record.path for record in records))
    assert [(r.path, r.label, r.start) for r in found] == [(r.path, r.label, r.start) for r in records]  # fmt: skip
    return [record.group for record in found]


def test_copies_links_and_parts_of_a_file_share_a_group(files):
    records = [VideoRecord(str(files / name), 0) for name in NAMES[:6]]
    a, *others = grouped([*records, VideoRecord(records[-1].path, 1, start=1.0)])
    assert a and others[:3] == [a, a, a] and others[3] == ""
    assert others[4] == others[5] not in ("", a)  # c.mp4 and a part of it


def test_copies_join_the_groups_they_belong_to(files):
    groups = {
        "a.mp4": "g1",
        "b.mp4": "g1",
        "a (1).mp4": "g2",
        "c.mp4": "g2",
        "e.mp4": "g3",
        "f.mp4": "",
    }
    records = [VideoRecord(str(files / name), 0, group=group) for name, group in groups.items()]
    assert grouped(records) == ["g1", "g1", "g1", "g1", "g3", ""]
    reversed_groups = grouped(records[::-1])
    assert len(set(reversed_groups[2:])) == 1 and reversed_groups[:2] == ["", "g3"]


def listed(files, text):
    source = files / "list.csv"
    source.write_text(text)
    records = read_records(source)
    return doubles_of(source, records, same_content(record.path for record in records))


def test_a_file_under_two_labels_contradicts_itself_by_any_name(files):
    found = listed(files, "path,label\na.mp4,run\n# why\nb.mp4,run\nb.mp4,run\nhard.mp4,eat\n")
    first, second = found
    assert first.contradicts and first.lines == (2, 6) and first.labels == ("run", "eat")
    assert str(first).startswith(f"{files}/a.mp4 = {files}/hard.mp4 are one file (lines 2, 6)")
    assert str(first).endswith("with different labels: run, eat")
    assert not second.contradicts
    assert str(second) == f"{files}/b.mp4 is named 2 times (lines 4, 5)"


def test_copies_under_two_labels_are_told_and_parts_are_clips_of_their_own(files):
    (double,) = listed(files, "a.mp4,0\na (1).mp4,1\nc.mp4,1\n")
    assert not double.contradicts and "have the same bytes (lines 1, 2)" in str(double)
    assert "different labels: 0, 1" in str(double)
    header = "path,label,class_name,group,split,start,end\n"
    assert listed(files, f"{header}a.mp4,0,,,,0,1\na.mp4,1,,,,1,2\n") == []
    assert listed(files, "a.mp4,0\na (1).mp4,0\n") == []
