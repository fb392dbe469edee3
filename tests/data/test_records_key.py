"""The key of a list: every field and file counts, the place does not."""

import os
import shutil
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest

from stretchysnake.data import records_key as records_key_module
from stretchysnake.data.records import VideoRecord
from stretchysnake.data.records_key import (
    ends_of,
    file_stamp,
    file_stamps,
    records_key,
    refuse_unequal_records,
    relative_paths,
)
from stretchysnake.ranks import Runtime


@pytest.fixture
def records(tmp_path):
    found = []
    for place in ("set/a/1.mp4", "set/a/2.mp4", "set/b/1.mp4"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(place.encode())
        found.append(VideoRecord(str(path), 0, "one", "g", "train", 1.0, 2.0))
    return found


@pytest.mark.parametrize(
    ("field", "value"),
    [("label", 1), ("class_name", "two"), ("group", "h"), ("split", "test"), ("start", 0.5), ("end", None)],
)  # fmt: skip
def test_every_field_counts(records, field, value):
    assert {"path", "label", "class_name", "group", "split", "start", "end"} >= {
        one.name for one in fields(VideoRecord)
    }
    changed = [records[0], replace(records[1], **{field: value}), records[2]]
    assert records_key(changed) != records_key(records)
    assert records_key(changed, files=False) != records_key(records, files=False)


def test_order_and_number_count(records):
    assert len({records_key(r) for r in (records, records[::-1], records[:2], [])}) == 4


def test_a_file_counts_by_size_and_time_and_missing_is_marked(records):
    path = records[1].path
    first, sizes, names = (
        records_key(records, **options) for options in ({}, {"times": False}, {"files": False})
    )
    os.utime(path, ns=(1, 1))
    assert records_key(records) != first and records_key(records, times=False) == sizes
    with open(path, "ab") as file:
        file.write(b"x")
    assert records_key(records, times=False) != sizes
    larger = records_key(records, times=False)
    os.unlink(path)
    assert len({records_key(records, times=False), sizes, larger}) == 3
    assert records_key(records, files=False) == names


def test_a_moved_set_keeps_its_key_unless_whole_paths_are_asked_for(records, tmp_path):
    before = records_key(records), records_key(records, whole_paths=True)
    (tmp_path / "new").mkdir()
    shutil.move(tmp_path / "set", tmp_path / "new" / "other name")
    moved = [
        replace(r, path=r.path.replace(str(tmp_path / "set"), str(tmp_path / "new/other name")))
        for r in records
    ]
    assert records_key(moved) == before[0]
    assert records_key(moved, whole_paths=True) != before[1]


def test_paths_count_from_the_deepest_shared_folder(monkeypatch, tmp_path):
    def relative(*paths):
        return relative_paths([VideoRecord(path, 0) for path in paths])

    assert relative("/d/x/a.mp4", "/d/xy/a.mp4") == ["x/a.mp4", "xy/a.mp4"]
    assert relative("/d/a.mp4", "/d/a.mp4x") == ["a.mp4", "a.mp4x"]
    assert relative("/d/a.mp4") == relative("/d/a.mp4", "/d/a.mp4")[:1] == ["a.mp4"]
    assert relative("/d/x/../y/b.mp4", "/d/y/c.mp4") == ["b.mp4", "c.mp4"]
    assert relative("/a.mp4", "/b/c.mp4") == ["a.mp4", "b/c.mp4"] and relative() == []
    monkeypatch.chdir(tmp_path)
    assert relative("s/a.mp4", f"{tmp_path}/t/b.mp4") == ["s/a.mp4", "t/b.mp4"]


def test_names_that_are_not_utf8_have_a_key(tmp_path):
    name = os.fsdecode(b"\xff.mp4")
    assert records_key([VideoRecord(name, 0)]) != records_key([VideoRecord("y.mp4", 0)])


def test_ends_see_the_head_the_tail_and_not_the_middle(tmp_path):
    path = tmp_path / "large"
    whole = bytearray(os.urandom(1 << 18))
    path.write_bytes(whole)
    first = ends_of(path)
    for place, same in ((0, False), (-1, False), (1 << 17, True)):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert (ends_of(path) == first) is same
    path.write_bytes(b"ab")
    assert ends_of(path) != ends_of(tmp_path) is None


def test_one_rank_of_each_machine_asks_for_sizes(records, monkeypatch):
    said, asked = [], []

    class Ranks(Runtime):
        def gather(self, text):
            said.append(text)
            return [*theirs, text]

    real = records_key_module.file_stamp
    monkeypatch.setattr(records_key_module, "file_stamp", lambda p: asked.append(p) or real(p))
    sources = [SimpleNamespace(records=records)]
    theirs = [records_key(records, whole_paths=True, times=False), ""]
    asked.clear()
    refuse_unequal_records(sources, Ranks(rank=3, world_size=4, local_rank=1))
    assert said == [""] and asked == []
    refuse_unequal_records(sources, Ranks(rank=2, world_size=4, local_rank=0))
    assert said[1] == theirs[0] and len(asked) == len(records)
    theirs = ["another", ""]
    with pytest.raises(ValueError, match="ranks do not read the same videos"):
        refuse_unequal_records(sources, Ranks(rank=2, world_size=4, local_rank=0))


def test_many_files_are_stamped_as_one_by_one(records, monkeypatch):
    monkeypatch.setattr(records_key_module, "_STAMPED_AT_ONCE", 2)
    gone = VideoRecord(path="gone.mp4", label=0)
    many = [*records, gone, *records[:1]]
    stamps = [file_stamp(record.path) for record in many]
    assert file_stamps(many) == stamps and stamps[-2] is None
    assert records_key(many, stamps=stamps) == records_key(many)
    assert records_key(many, stamps=stamps[::-1]) != records_key(many)
