"""Which files of a folder are read: the same for every verb, and nothing left out without being counted."""

import os
import shutil

import pytest

from stretchysnake.data.benchmarks.tree import Tree
from stretchysnake.data.folders import PassedOver, files_in, is_hidden, videos_in
from stretchysnake.data.records import find_videos, passed_over, read_records


def touched(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0\0\0\x18ftyp")
    return root


def below(root, paths):
    return [os.path.relpath(path, root) for path in paths]


HIDDEN = (".ipynb_checkpoints", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information",
          "lost+found", ".Trashes", "#recycle")  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_folders_of_the_system_are_neither_classes_nor_searched(tmp_path, name):
    root = touched(
        tmp_path / "v", "run/a.mp4", "walk/b.mp4", f"{name}/run/c.mp4", f"run/{name}/d.mp4"
    )
    assert below(root, find_videos(root)) == ["run/a.mp4", "walk/b.mp4"]
    assert [(r.class_name, r.label) for r in read_records(root)] == [("run", 0), ("walk", 1)]
    assert str(passed_over(root)) == f"passed over: 2 hidden folders ({name})"
    assert str(passed_over(root, classes=True)) == str(passed_over(root))
    assert Tree(root, name="x", lists_from="y").videos == ["run/a.mp4", "walk/b.mp4"]


def test_what_a_caller_names_is_read_whatever_its_name(tmp_path):
    root = touched(tmp_path / ".cache" / "@eaDir", "run/a.mp4", ".b.mp4")
    assert below(root, find_videos(root)) == ["run/a.mp4"]
    assert below(root, find_videos(root / ".b.mp4")) == [".b.mp4"]
    assert [record.class_name for record in read_records(root)] == ["run"]


def test_hidden_files_are_counted_and_names_like_them_are_not_hidden(tmp_path):
    root = touched(tmp_path, "c/._a.mp4", "c/Thumbs.db", "c/a.mp4", "c/_b.mp4", "lost/+found.mp4")
    assert below(root, find_videos(root)) == ["c/_b.mp4", "c/a.mp4", "lost/+found.mp4"]
    assert str(passed_over(root)) == "passed over: 2 hidden files"
    assert not is_hidden("a.b") and not is_hidden("macosx")


def test_linked_folders_are_followed_each_real_folder_once(tmp_path):
    root = touched(tmp_path / "v", "real/a.mp4", "b.mp4")
    touched(tmp_path / "disk", "c.mp4", "deep/d.mp4")
    for name, target in {
        "disk": "../disk",  # elsewhere: followed
        "deep-too": "../disk/deep",  # a part of it
        "a-first": "real",  # inside already, though it sorts before
        "real/loop": "..",
        "up": "../..",
    }.items():
        os.symlink(target, root / name, target_is_directory=True)
    passed = PassedOver()
    found = sorted(files_in(root, passed))
    assert found == ["b.mp4", "deep-too/d.mp4", "disk/c.mp4", "real/a.mp4"]
    assert sorted(passed.links) == ["a-first", "disk/deep", "real/loop", "up"]
    assert "4 linked folders seen already" in str(passed)
    assert Tree(root, name="x", lists_from="y").videos == list(files_in(root))


def test_a_class_may_be_a_link_and_a_link_to_a_class_is_no_second_one(tmp_path):
    touched(tmp_path / "elsewhere", "a.mp4")
    root = touched(tmp_path / "v", "walk/b.mp4")
    os.symlink("../elsewhere", root / "run")
    os.symlink("walk", root / "stroll")
    assert [(r.class_name, r.path.rsplit("/", 1)[1]) for r in read_records(root)] == [
        ("run", "a.mp4"), ("walk", "b.mp4")]  # fmt: skip
    told = str(passed_over(root, classes=True))
    assert told == "passed over: 1 linked folder seen already (stroll)"


def test_a_link_that_leads_nowhere_is_not_left_out_in_silence(tmp_path):
    root = touched(tmp_path, "a.mp4")
    os.symlink("gone.mp4", root / "b.mp4")
    os.symlink("self", root / "self")
    os.mkfifo(root / "pipe.mp4")
    assert below(root, find_videos(root)) == ["a.mp4", "b.mp4"]
    assert passed_over(root).endings == {"no ending": 1, "special": 1}


def test_everything_the_decoder_reads_is_found_in_any_case(tmp_path):
    endings = (
        "ts mts m2ts vob flv f4v wmv asf 3gp 3g2 ogv ogm mxf mpg m2v divx dv rm y4m nut webm gif"
    )
    names = [f"{n:02d}.{e.upper() if n % 2 else e}" for n, e in enumerate(endings.split())]
    root = touched(tmp_path, *names, "notes.txt", "one.jpg", "two.JPG", "Makefile")
    assert below(root, find_videos(root)) == names
    told = "passed over: 4 files that are no videos (.jpg 2, .txt 1, no ending 1)"
    assert str(passed_over(root)) == told


@pytest.mark.parametrize("ending", ["ts", "mts", "TS"])
def test_a_program_is_no_transport_stream(tmp_path, ending):
    (tmp_path / f"program.{ending}").write_text("export const größe: number = 1;\n")
    (tmp_path / f"utf16.{ending}").write_text("let a = 1;", encoding="utf-16")
    packet = b"G@\x11\x10\0B\xf0%\0\x01\xc1" + b"\xff" * 177
    (tmp_path / f"stream.{ending}").write_bytes(packet * 10)
    (tmp_path / f"empty.{ending}").write_bytes(b"")
    passed = PassedOver()
    assert sorted(videos_in(tmp_path, passed)) == [f"empty.{ending}", f"stream.{ending}"]
    assert passed.endings == {f".{ending.lower()} of text": 2}


def test_videos_beside_the_classes_and_classes_without_videos_are_said(tmp_path):
    root = touched(tmp_path, "run/a.mp4", "loose.mp4", "empty/x.txt")
    (root / "bare").mkdir()
    assert [record.class_name for record in read_records(root)] == ["run"]
    assert str(passed_over(root, classes=True)) == (
        "passed over: 1 file that is no video (.txt 1), 1 video beside the class folders, "
        "2 class folders without a video (bare, empty)"
    )


def test_a_folder_that_cannot_be_opened_is_said(tmp_path, monkeypatch):
    root, scandir = touched(tmp_path, "a.mp4", "closed/b.mp4"), os.scandir

    def guarded(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert below(root, find_videos(root)) == ["a.mp4"]
    assert str(passed_over(root)) == "passed over: 1 folder that cannot be opened (closed)"


def test_an_error_says_what_was_passed_over(tmp_path):
    touched(tmp_path, ".hidden/a.mp4", "b.txt")
    with pytest.raises(
        ValueError, match=r"found no video \(passed over: 1 file .*\(.txt 1\), 1 hid"
    ):
        find_videos(tmp_path)


def test_names_that_are_no_text_are_found_and_lead_to_their_files(tmp_path):
    name = os.path.join(os.fsencode(tmp_path), b"c", b"caf\xe9.mp4")
    touched(tmp_path, "c/a.mp4")
    shutil.copy(tmp_path / "c" / "a.mp4", name)
    found = find_videos(tmp_path)
    assert [os.fsencode(path) for path in found][1] == name
    assert [os.path.getsize(path) for path in found] == [8, 8]
