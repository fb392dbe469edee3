"""Clip sources: bad files are left out and counted, and a cache never pretends to hold more than it does."""

import pytest
import torch
from numbered_video import read_numbers, write_numbered

from stretchysnake import Scale, VideoRecord, read_records
from stretchysnake.data.clips.frame_choice import Sampling, uniform_view_indices
from stretchysnake.data.clips.loader import DecodedClips, open_clips


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


def test_sampling_decides_the_frames_of_evaluation_and_training(tmp_path):
    record = VideoRecord(write_numbered(tmp_path / "v.mp4", 100), 0)
    official = open_clips([record], cache=None, sampling=Sampling(rule="videomamba"))
    assert read_numbers(official.clip(0, Scale(4, 32, 8)).numpy()) == [12, 37, 62, 86]
    strided = DecodedClips([record], sampling=Sampling(rule="strided", stride=3))
    drawn = strided.clip(0, Scale(4, 32, 8), generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 32, 32, 3)
    with pytest.raises(
        ValueError, match=r"sampling \(videomamba\) needs the whole video, and cache"
    ):
        open_clips([record], cache=tmp_path, sampling=Sampling(rule="videomamba"))


@pytest.mark.parametrize("num_crops", [1, 3])
def test_views_are_temporal_views_times_crops(tmp_path, num_crops):
    record = VideoRecord(
        write_numbered(
            tmp_path / "v.mp4",
            48,
        ),
        0,
    )
    clips = DecodedClips([record])
    views = clips.views(0, Scale(4, 32, 8), num_views=3, num_crops=num_crops)
    assert views.shape == (3 * num_crops, 4, 32, 32, 3)
    for place, view in enumerate(views):  # the picture is square: crops are the same
        expected = uniform_view_indices(48, 4, view=place // num_crops, num_views=3)
        assert read_numbers(view.numpy()) == expected
    with pytest.raises(ValueError, match=r"num_crops \(2\) must be 1 or 3"):
        clips.views(0, Scale(4, 32, 8), num_views=1, num_crops=2)
