import os

import pytest

from stretchysnake.whole_file import unfinished_file, write_whole


def test_text_and_bytes_are_written_and_folders_made(tmp_path):
    write_whole(tmp_path / "new" / "a.txt", "zwölf\n")
    write_whole(tmp_path / "new" / "a.bin", b"\x00\r\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "zwölf\n".encode()
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"\x00\r\n"
    assert sorted(os.listdir(tmp_path / "new")) == ["a.bin", "a.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    with pytest.raises(OSError, match="disk"), unfinished_file(path) as part:
        part.write_text("half of the n")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    with unfinished_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
