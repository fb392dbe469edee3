import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stretchysnake.data.clips.frame_choice import (
    Sampling,
    jittered_indices,
    random_strided_indices,
    strided_indices,
    strided_view_indices,
    uniform_indices,
    uniform_view_indices,
    videomamba_indices,
)

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
    import stretchysnake.data.clips.frame_choice as clips

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


def cells(indices):
    return " ".join(map(str, indices))


@pytest.mark.parametrize(("total", "num_frames", "expected"), TABLE)
def test_hold_and_loop_of_the_docstring(total, num_frames, expected):
    import stretchysnake.data.clips.frame_choice as clips

    (row,) = [line for line in clips.__doc__.splitlines() if line.startswith(f"| {total} ")]
    hold, loop = (cell.strip() for cell in row.split("|")[-3:-1])
    for short, shown in (("hold", hold), ("loop", loop)):
        found = cells(uniform_indices(total, num_frames, short=short))
        assert found == (cells(expected) if shown == "the same" else shown)
        assert jittered_indices(total, num_frames, torch.Generator(), short=short) == uniform_indices(
            total, num_frames, short=short) or total >= num_frames  # fmt: skip


def test_the_table_of_the_docs_is_what_the_functions_give():
    from pathlib import Path

    text = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    calls = {"uniform_indices": uniform_indices, "strided_indices": strided_indices,
             "strided_view_indices": strided_view_indices, "uniform_view_indices": uniform_view_indices,
             "videomamba_indices": videomamba_indices}  # fmt: skip
    checked = 0
    for row in rows:
        call, shown = (cell.strip() for cell in row.split("|")[1:3])
        name = call.strip("`").split("(")[0]
        if name in calls:
            assert cells(eval(call.strip("`"), calls)) == shown, call
            checked += 1
    assert checked >= 12


@given(
    total=counts, num_frames=st.integers(1, 64), stride=st.integers(1, 16),
    short=st.sampled_from(["hold", "loop"]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_strided_windows_keep_their_stride_and_fit_where_they_can(
    total, num_frames, stride, short, seed
):
    generator = torch.Generator().manual_seed(seed)
    span = (num_frames - 1) * stride + 1
    for indices in (
        random_strided_indices(total, num_frames, generator, stride=stride, short=short),
        strided_view_indices(total, num_frames, stride=stride, view=1, num_views=3, short=short),
    ):
        assert len(indices) == num_frames and all(0 <= i < total for i in indices)
        if span <= total:
            assert {b - a for a, b in itertools.pairwise(indices)} <= {stride}
        else:
            ideal = [i * stride for i in range(num_frames)]
            assert indices == [i % total if short == "loop" else min(i, total - 1) for i in ideal]


def test_strided_views_reach_from_the_first_frame_to_the_last():
    views = [strided_view_indices(100, 4, stride=8, view=v, num_views=3) for v in range(3)]
    assert [view[0] for view in views] == [0, 37, 75] and views[2][-1] == 99
    starts = {
        random_strided_indices(9, 3, torch.Generator().manual_seed(s), stride=2)[0]
        for s in range(99)
    }
    assert starts == set(range(5))


@given(total=counts, num_frames=st.integers(1, 64), num_views=st.integers(1, 6))
def test_views_of_uniform_segments_stay_in_them_and_in_order(total, num_frames, num_views):
    views = [
        uniform_view_indices(total, num_frames, view=v, num_views=num_views)
        for v in range(num_views)
    ]
    for i, places in enumerate(zip(*views, strict=True)):
        assert list(places) == sorted(places)
        assert i * total // num_frames <= places[0] and places[-1] <= (i + 1) * total / num_frames
    if num_views == 1:
        assert views[0] == uniform_indices(total, num_frames)


# What `_get_seq_frames` of the official code gives, by hand from its text: seg = (n - 1) / T,
# start_i = round(seg * i), plus int(seg / (views + 1) * (view + 1)), at most n - 1.
OFFICIAL = [
    (100, 4, 0, 1, [12, 37, 62, 86]),  # seg 24.75: starts 0 25 50 74, offset 12
    (100, 4, 0, 2, [8, 33, 58, 82]),  # offset int(8.25)
    (100, 4, 1, 2, [16, 41, 66, 90]),  # offset int(16.5)
    (
        8,
        8,
        0,
        1,
        [0, 1, 2, 3, 4, 4, 5, 6],
    ),  # seg 0.875: 0 .875 1.75 2.625 3.5(->4) 4.375 5.25 6.125
    (3, 8, 0, 1, [0, 0, 0, 1, 1, 1, 2, 2]),  # seg 0.25: 0 .25 .5(->0) .75 1 1.25 1.5(->2) 1.75
    (1, 4, 0, 1, [0, 0, 0, 0]),
]


@pytest.mark.parametrize(("total", "num_frames", "view", "num_views", "expected"), OFFICIAL)
def test_the_official_rule_by_hand(total, num_frames, view, num_views, expected):
    assert videomamba_indices(total, num_frames, view=view, num_views=num_views) == expected


@given(total=counts, num_frames=st.integers(1, 64), seed=st.integers(0, 2**32))
def test_the_official_training_rule_draws_between_the_starts(total, num_frames, seed):
    indices = videomamba_indices(total, num_frames, generator=torch.Generator().manual_seed(seed))
    length = (total - 1) / num_frames
    for i, index in enumerate(indices):
        assert round(length * i) <= index <= min(total - 1, round(length * (i + 1)))


def test_sampling_takes_the_rule_it_names():
    assert Sampling().indices(32, 8) == uniform_indices(32, 8)
    assert Sampling(short="loop").indices(3, 8) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert Sampling(rule="videomamba").indices(100, 4) == [12, 37, 62, 86]
    assert Sampling(rule="strided", stride=2).indices(10, 4) == [1, 3, 5, 7]
    assert Sampling(rule="strided", stride=8, short="loop").indices(10, 4) == [0, 8, 6, 4]
    for rule in ("uniform", "strided", "videomamba"):
        draws = {tuple(Sampling(rule=rule).indices(64, 4, generator=torch.Generator().manual_seed(s)))
                 for s in range(5)}  # fmt: skip
        assert len(draws) > 1


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rule": "dense"}, r"rule \('dense'\) must be one of: uniform, strided, videomamba"),
        ({"stride": 2}, r"stride \(2\) must be at least 1, and 1 unless rule is 'strided'"),
        ({"rule": "strided", "stride": 0}, r"stride \(0\)"),
        ({"rule": "strided", "short": "repeat"}, r"short \('repeat'\) must be one of: hold, loop"),
        ({"short": "black"}, r"short \('black'\) must be one of: repeat, hold, loop"),
        ({"rule": "videomamba", "short": "hold"}, "must be null"),
    ],
)
def test_impossible_samplings_are_named(settings, text):
    with pytest.raises(ValueError, match=text):
        Sampling(**settings)


def test_impossible_windows_are_named():
    with pytest.raises(ValueError, match=r"start \(10\) a frame of the video, 0 to 9"):
        strided_indices(10, 4, stride=2, start=10)
    with pytest.raises(
        ValueError, match=r"view \(3\) must be at least 0 and less than num_views \(3\)"
    ):
        uniform_view_indices(10, 4, view=3, num_views=3)


@pytest.mark.parametrize(("total", "num_frames", "text"), [(0, 4, "total"), (4, 0, "num_frames")])
def test_bad_counts_are_named(total, num_frames, text):
    with pytest.raises(ValueError, match=text):
        uniform_indices(total, num_frames)
