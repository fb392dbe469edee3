import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stretchysnake.data.clips import jittered_indices, uniform_indices

TABLE = [
    (1, 4, [0, 0, 0, 0]),
    (3, 8, [0, 0, 0, 1, 1, 2, 2, 2]),
    (5, 8, [0, 0, 1, 2, 2, 3, 4, 4]),
    (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
    (10, 4, [1, 3, 6, 8]),
    (32, 8, [2, 6, 10, 14, 18, 22, 26, 30]),
    (300, 4, [37, 112, 187, 262]),
]


@pytest.mark.parametrize(("total", "num_frames", "expected"), TABLE)
def test_uniform_indices_table_of_the_docstring(total, num_frames, expected):
    import stretchysnake.data.clips as clips

    assert uniform_indices(total, num_frames) == expected
    assert f"| {' '.join(map(str, expected))} " in clips.__doc__


counts = st.integers(1, 2000)


@given(total=counts, num_frames=st.integers(1, 128))
def test_uniform_indices_are_sorted_in_range_and_symmetric_in_spread(total, num_frames):
    indices = uniform_indices(total, num_frames)
    assert len(indices) == num_frames and indices == sorted(indices)
    assert indices[0] >= 0 and indices[-1] < total
    steps = {b - a for a, b in itertools.pairwise(indices)}
    assert not steps or max(steps) - min(steps) <= 1


@given(total=counts, num_frames=st.integers(1, 128), seed=st.integers(0, 2**32))
def test_jittered_indices_take_one_frame_of_each_segment(total, num_frames, seed):
    indices = jittered_indices(total, num_frames, torch.Generator().manual_seed(seed))
    assert len(indices) == num_frames and indices == sorted(indices)
    for i, index in enumerate(indices):
        first = i * total // num_frames
        assert first <= index < min(total, max(first + 1, (i + 1) * total // num_frames))


def test_jittered_indices_reach_every_frame():
    generator = torch.Generator().manual_seed(0)
    assert {i for _ in range(200) for i in jittered_indices(12, 3, generator)} == set(range(12))


@pytest.mark.parametrize(("total", "num_frames", "text"), [(0, 4, "total"), (4, 0, "num_frames")])
def test_bad_counts_are_named(total, num_frames, text):
    with pytest.raises(ValueError, match=text):
        uniform_indices(total, num_frames)
