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


def test_a_folder_at_the_place_of_a_file_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(IsADirectoryError) as raised, unfinished_file(tmp_path):
        raise AssertionError("the work was done")
    assert raised.value.filename == str(tmp_path) and not list(tmp_path.iterdir())


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    with unfinished_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_who_may_read_a_file_is_up_to_the_umask_whoever_writes_it(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "plain.txt", "a")
        with unfinished_file(tmp_path / "secret.bin") as part:  # as safetensors 0.8 and mkstemp do
            os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))
        with unfinished_file(tmp_path / "open.bin") as part:
            part.write_bytes(b"a")
            part.chmod(0o666)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"plain.txt": mode, "secret.bin": mode, "open.bin": mode}


def test_weights_can_be_read_by_those_the_umask_allows(tmp_path):
    from stretchysnake.models.config import VideoMambaConfig
    from stretchysnake.models.videomamba import VideoMamba
    from stretchysnake.models.weights.files import save_model

    before = os.umask(0o027)
    try:
        save_model(tmp_path / "w.safetensors", VideoMamba(VideoMambaConfig.named("nano")))
    finally:
        os.umask(before)
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == 0o640


def test_nothing_written_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError), unfinished_file(tmp_path / "a.txt"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_no_text_stands_in_a_text_with_backslashes(tmp_path):
    write_whole(tmp_path / "a.txt", f"é {os.fsdecode(b'caf' + bytes([0xE9]))}")
    assert (tmp_path / "a.txt").read_bytes() == "é caf\\udce9".encode()
