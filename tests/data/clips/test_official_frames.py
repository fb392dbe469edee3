"""The frame rules of published tests, by hand from the descriptions of the official loaders, and through a video."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stretchysnake.data.clips.frame_choice import (
    OFFICIAL,
    STRIDED,
    Sampling,
    cast_indices,
    evl_indices,
    mvit_indices,
    omnivore_indices,
    strided_view_indices,
    swin_indices,
    timesformer_indices,
    uniformer_indices,
)
from stretchysnake.data.clips.loader import open_clips
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale
from tests.data.numbered_video import read_numbers, write_numbered


def steps_of_4_2(start):
    """16 frames of 64, ends included: 63 / 15 apart, in whole numbers."""
    return [(15 * start + 63 * i) // 15 for i in range(16)]


def test_slowfast_clips_are_4_2_frames_apart_and_begin_where_the_system_does():
    at = {"stride": 4, "fps": 30.0}
    assert mvit_indices(300, 16, **at) == steps_of_4_2(118)  # 236 left over, the middle
    assert uniformer_indices(300, 16, **at) == steps_of_4_2(118)
    assert timesformer_indices(300, 16, **at) == steps_of_4_2(0)
    for view in range(5):  # of 5: 236 / 4 = 59 apart; TimeSformer's i / 5 of 236
        places = {"view": view, "num_views": 5}
        assert mvit_indices(300, 16, **at, **places) == steps_of_4_2(59 * view)
        assert timesformer_indices(300, 16, **at, **places)[0] == 236 * view // 5
    # 8 x 32: 255 / 7 = 36.43 apart, the last frame of 256 included
    assert timesformer_indices(300, 8, stride=32, fps=30) == [0, 36, 72, 109, 145, 182, 218, 255]


def test_slowfast_clips_last_as_long_at_any_rate_and_uniformers_as_many_frames():
    # 4 x 4 / 30 s at 15 fps are 8 frames, 46 left over: 23, and 7 / 3 = 2.33 apart
    assert mvit_indices(54, 4, stride=4, fps=15) == [23, 25, 27, 30]
    # 16 frames whatever the rate: 38 left over, 19, and 15 / 3 = 5 apart
    assert uniformer_indices(54, 4, stride=4, fps=15) == [19, 24, 29, 34]
    # a video shorter than its clip: from 0, the last frame held
    assert mvit_indices(10, 4, stride=4, fps=30) == [0, 5, 9, 9]


def test_swin_and_aim_take_the_middle_of_each_part_of_the_starts_and_loop():
    # 32 frames 2 apart: a = (300 - 63) / 4 = 59.25; starts int(29.6), int(88.9), int(148.1), int(207.4)
    starts = [swin_indices(300, 32, stride=2, fps=25, view=v, num_views=4)[0] for v in range(4)]
    assert starts == [29, 88, 148, 207]
    assert swin_indices(300, 32, stride=2, fps=25) == list(range(118, 182, 2))  # 237 / 2
    assert swin_indices(64, 32, stride=2, fps=25)[0] == 0  # one start alone fits
    for view in range(4):
        looped = swin_indices(50, 32, stride=2, fps=25, view=view, num_views=4)
        assert looped == [*range(0, 50, 2), *range(0, 14, 2)]


@given(total=st.integers(1, 600), num_frames=st.integers(1, 32), stride=st.integers(1, 16))
def test_evl_of_one_view_is_the_strided_window_in_the_middle(total, num_frames, stride):
    one = evl_indices(total, num_frames, stride=stride, fps=30)
    assert one == strided_view_indices(total, num_frames, stride=stride, view=0, num_views=1)


def test_evl_rounds_where_its_views_begin():
    # 8 x 16 of 300: 300 - 113 = 187 left over; 93.5 goes to the even 94
    starts = [evl_indices(300, 8, stride=16, fps=30, view=v, num_views=3)[0] for v in range(3)]
    assert starts == [0, 94, 187]


def test_omnivore_takes_160_frames_of_ten_seconds_and_of_them_a_row():
    # at 16 fps the 160 are the frames themselves
    for view in range(4):
        row = omnivore_indices(500, 32, stride=1, fps=16, view=view, num_views=4)
        assert row == list(range(40 * view, 40 * view + 32))
    assert omnivore_indices(500, 32, stride=1, fps=16) == list(range(64, 96))
    # at 30 fps 299 / 159 = 1.88 apart; a video of 1 s is 160 frames of 30, repeated
    assert omnivore_indices(900, 4, stride=1, fps=30) == [int(i * 299 / 159) for i in range(78, 82)]
    short = omnivore_indices(30, 32, stride=1, fps=30)
    assert short == [i * 29 // 159 for i in range(64, 96)]
    assert omnivore_indices(1, 200, stride=1, fps=30) == [0] * 200


def test_cast_thins_the_whole_video_first():
    # 300 frames, every 4th: 75, 59 more than 16; 59 / 4 = 14.75 apart
    for view, first in enumerate([0, 14, 29, 44, 59]):
        found = cast_indices(300, 16, stride=4, fps=30, view=view, num_views=5)
        assert found == list(range(4 * first, 4 * first + 64, 4))
    assert cast_indices(300, 16, stride=4, fps=30)[0] == 4 * 29
    assert cast_indices(9, 4, stride=4, fps=30) == [0, 4, 8, 8]  # the last one kept is held


@given(
    rule=st.sampled_from(sorted(OFFICIAL)), total=st.integers(1, 700), num_frames=st.integers(1, 64),
    fps=st.sampled_from([1.0, 12.0, 23.976, 30.0, 60.0]), num_views=st.integers(1, 5),
)  # fmt: skip
def test_every_rule_stays_inside_the_video(rule, total, num_frames, fps, num_views):
    sampling = Sampling(rule=rule, stride=4 if rule in STRIDED else 1)
    for view in range(num_views):
        found = sampling.indices(total, num_frames, fps=fps, view=view, num_views=num_views)
        assert len(found) == num_frames and all(0 <= i < total for i in found)
        assert found == sorted(found) or rule == "swin"  # it alone loops


def test_the_rate_of_the_file_reaches_the_rule(tmp_path):
    record = VideoRecord(write_numbered(tmp_path / "v.mp4", 54, fps=15), 0)
    for rule, wanted in (("mvit", [23, 25, 27, 30]), ("uniformer", [19, 24, 29, 34])):
        sampling = Sampling(rule=rule, stride=4)
        clips = open_clips([record], cache=None, sampling=sampling, picture="centre")
        assert read_numbers(clips.clip(0, Scale(4, 32, 8)).numpy()) == wanted
        assert read_numbers(clips.views(0, Scale(4, 32, 8), num_views=1)[0].numpy()) == wanted


def test_the_names_say_the_stride():
    assert Sampling(rule="mvit", stride=4).name == "mvit-4"
    assert Sampling(rule="omnivore").name == "omnivore"


def test_what_an_official_rule_cannot_do_is_named():
    with pytest.raises(ValueError, match=r"stride \(2\) .* one of: timesformer, mvit, .*cast\."):
        Sampling(rule="omnivore", stride=2)
    with pytest.raises(ValueError, match=r"short \('loop'\) must be null for rule 'swin'"):
        Sampling(rule="swin", short="loop")
    drawn = {"generator": torch.Generator(), "fps": 30.0}
    with pytest.raises(ValueError, match=r"rule \('evl'\) .* train with one of: uniform, strided"):
        Sampling(rule="evl", stride=16).indices(100, 8, **drawn)
    with pytest.raises(ValueError, match=r"view \(3\) must be at least 0 and less than"):
        Sampling(rule="cast", stride=4).indices(100, 8, fps=30.0, view=3, num_views=3)
