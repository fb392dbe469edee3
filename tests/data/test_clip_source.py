"""Clip sources: bad files are left out and counted, and a cache never pretends to hold more than it does."""

import pytest

from stretchysnake import Scale, VideoRecord, read_records
from stretchysnake.data.clip_source import open_clips


@pytest.fixture
def with_bad_file(clip_folder, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    return [*read_records(clip_folder), VideoRecord(str(tmp_path / "empty.mp4"), 0)]


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "decoded"])
def test_bad_file_is_left_out_said_and_counted(cached, with_bad_file, tmp_path, capsys):
    clips = open_clips(with_bad_file, cache=str(tmp_path / "cache") if cached else None)
    assert len(clips.records) == 12
    ((record, error),) = clips.failures
    assert record.path.endswith("empty.mp4") and error.kind == "empty"
    assert "skipped" in capsys.readouterr().err


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "decoded"])
def test_nothing_readable_is_an_error(cached, with_bad_file, tmp_path):
    with pytest.raises(ValueError, match=r"none of (the )?1 videos"):
        open_clips(with_bad_file[-1:], cache=str(tmp_path / "cache") if cached else None)


def test_cache_refuses_more_than_it_holds(clip_folder, tmp_path):
    clips = open_clips(read_records(clip_folder), cache=tmp_path, num_frames=8, size=32)
    assert clips.clip(0, Scale(8, 32, 8)).shape == (8, 32, 32, 3)
    with pytest.raises(
        ValueError, match=r"num_frames \(9\) must not exceed .* \(8\); set cache_frames to 9"
    ):
        clips.clip(0, Scale(9, 32, 8))
    with pytest.raises(
        ValueError, match=r"size \(40\) must not exceed .* \(32\); set cache_size to 40"
    ):
        clips.clip(0, Scale(8, 40, 8))
