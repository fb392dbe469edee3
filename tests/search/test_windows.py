"""Windows cover the video, in order, with the length asked for."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretchysnake.search.windows import frame_times, windows_of


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
    assert windows_of(duration, window, stride) == wanted


seconds = st.floats(0.05, 500)


@given(seconds, st.floats(0.5, 50), st.floats(0.5, 50))
def test_windows_are_inside_and_reach_the_end(duration, window, stride):
    found = windows_of(duration, window, min(stride, window))
    assert found[0][0] == 0 and found[-1][1] == pytest.approx(duration, abs=2e-6)
    for (start, end), (following, _) in pairwise(found):
        assert start < following <= end + 1e-6
    for start, end in found:
        assert 0 <= start < end <= duration + 1e-9
        assert end - start == pytest.approx(min(window, duration), abs=2e-6)
        times = frame_times(start, end, 7)
        assert start < times[0] and times[-1] < end


def test_frames_are_from_the_middles_of_equal_parts():
    assert frame_times(2.0, 6.0, 4) == [2.5, 3.5, 4.5, 5.5]
