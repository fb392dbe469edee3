"""Windows cover the video, in order, with the length asked for."""

import tracemalloc
from fractions import Fraction
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretchysnake.data.containers.packet_index import PacketIndex
from stretchysnake.search.time_windows import frame_times, time_windows, time_windows_with_frames


@pytest.mark.parametrize(
    ("duration", "window", "stride", "wanted"),
    [
        (10, 4, None, [(0, 4), (4, 8), (6, 10)]),
        (8, 4, 2, [(0, 4), (2, 6), (4, 8)]),
        (8, 4, None, [(0, 4), (4, 8)]),
        (3, 4, None, [(0, 3)]),
    ],
)
def test_windows_of_the_table(duration, window, stride, wanted):
    assert time_windows(duration, window, stride) == wanted


seconds = st.floats(0.05, 500)


@given(seconds, st.floats(0.5, 50), st.floats(0.5, 50))
def test_windows_are_inside_and_reach_the_end(duration, window, stride):
    found = time_windows(duration, window, min(stride, window))
    assert found[0][0] == 0 and found[-1][1] == pytest.approx(duration, abs=2e-6)
    for (start, end), (following, _) in pairwise(found):
        assert start < following <= end + 1e-6
    for start, end in found:
        assert 0 <= start < end <= duration + 1e-9
        assert end - start == pytest.approx(min(window, duration), abs=2e-6)
        times = frame_times(start, end, 7)
        assert start < times[0] and times[-1] < end


def index_of(*seconds):
    """An index of frames shown at these seconds, a hundredth apart at least."""
    stamps = [round(100 * second) for second in seconds]
    settings = {"time_base": Fraction(1, 100), "fps": 10.0, "ordinal": False}
    return PacketIndex(stamps=stamps, keyframes=stamps[:1], **settings)


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        ([0.1 * i for i in range(60)], [(0, 2), (2, 4), (4, 6)]),
        ([0, 1, 2, 3.9, 5.9], [(0, 2), (2, 4), (4, 6)]),
        ([0, 1, 4, 5.9], [(0, 2), (4, 6)]),  # the frame of second 1 stands in 2 to 4
        ([0, 95_344.5, 95_345.9], [(0, 2), (95_344, 95_346)]),
        ([0, 3.9], [(0, 2), (2, 4)]),
    ],
)
def test_windows_without_a_frame_of_their_own_are_left_out(seconds, wanted):
    found = time_windows_with_frames(index_of(*seconds), 2)
    assert sum(found, ()) == pytest.approx(sum(wanted, ()))


gaps = st.one_of(st.integers(1, 5), st.integers(1, 400), st.just(100), st.integers(10**3, 10**5))


@given(st.lists(gaps, max_size=40), st.integers(1, 600), st.integers(1, 900))
@settings(max_examples=1000, deadline=None)
def test_windows_near_the_frames_are_those_of_all_that_show_one(gaps, window, stride):
    index = index_of(*(stamp / 100 for stamp in accumulate(gaps, initial=0)))
    window, stride = window / 100, stride / 100
    every = time_windows(index.duration, window, stride)
    wanted = [place for place in every if index.begins_within(*place)]
    assert time_windows_with_frames(index, window, stride) == wanted
    assert wanted[0][0] == 0


@pytest.mark.parametrize(
    ("leap", "window", "stride"),
    [(1.7e9, 2, 2), (1.7e9, 0.1, 0.05), (1e12, 3, 7), (1.7e9, 1e-3, 1e-3), (1.7e9, 60, 1)],
)
def test_a_clock_that_leaps_to_that_of_the_wall_makes_no_more_windows(leap, window, stride):
    moving = [i / 25 for i in range(20)]
    index = index_of(*moving, *(leap + time for time in moving))
    tracemalloc.start()
    found = time_windows_with_frames(index, window, stride)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert found[0] == (0, window) and found[-1][1] > leap
    assert all(start < 1 or end > leap for start, end in found) and len(found) <= 162
    assert found == sorted(found)


def test_a_question_for_the_time_is_answered_without_reading_the_whole_table(monkeypatch):
    index, asked = index_of(*range(2000)), []
    whole = PacketIndex.seconds
    monkeypatch.setattr(PacketIndex, "seconds", lambda self, i: asked.append(i) or whole(self, i))
    assert [index.shown_at(t + 0.5) for t in range(2000)] == list(range(2000))
    assert len(asked) == 2000


def test_frames_are_from_the_middles_of_equal_parts():
    assert frame_times(2.0, 6.0, 4) == [2.5, 3.5, 4.5, 5.5]
