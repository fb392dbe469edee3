"""Paired tests and differences on rows made by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_rows import row

from stretchysnake.results.comparison import (
    mcnemar_p,
    mean_difference,
    pack_correct,
    paired_test,
    query_error,
    unpack_correct,
)


def pair(size, vanilla, static, *, seed=0, native=False):
    return [
        row(size=size, value=vanilla, seed=seed, native=native),
        row(size=size, value=static, seed=seed, model="static_tokens"),
    ]


def difference(rows, cells):
    kwargs = {"dataset": "motion-digits/short", "cells": cells}
    return mean_difference(rows, "static_tokens", "vanilla", **kwargs)


def test_mean_difference_tells_native_from_away():
    rows = pair(16, 0.2, 0.5) + pair(32, 0.8, 0.6, native=True) + pair(64, 0.1, 0.2)
    assert difference(rows, "all").mean == pytest.approx(0.2 / 3)
    assert difference(rows, "away").mean == pytest.approx(0.2)
    assert difference(rows, "away").cells == ((8, 16), (8, 64))
    assert difference(rows, "native").mean == pytest.approx(-0.2)
    assert difference([], "all") is None


def test_mean_difference_over_seeds_holds_seeds_and_queries():
    rows = [r for seed, d in enumerate((0.1, 0.2, 0.3)) for r in pair(16, 0.2, 0.2 + d, seed=seed)]
    found = difference(rows, "all")
    assert found.per_seed == pytest.approx((0.1, 0.2, 0.3))
    over_seeds = (
        4.302653 * 0.1 / math.sqrt(3)
    )  # by hand; the queries as if independent, 100 of them
    theirs = [math.sqrt(p * (1 - p) / 100) for p in (0.3, 0.4, 0.5)]
    over_queries = 1.959964 * math.hypot(math.sqrt(0.2 * 0.8 / 100), sum(theirs) / 3)
    half = math.hypot(over_seeds, over_queries)
    assert found.interval == pytest.approx((0.2 - half, 0.2 + half))
    assert found.interval_over == "seeds and queries"


def test_rows_that_count_no_queries_speak_of_seeds_alone():
    rows = [r for seed, d in enumerate((0.1, 0.2, 0.3)) for r in pair(16, 0.2, 0.2 + d, seed=seed)]
    found = difference([replace(r, num_queries=0) for r in rows], "all")
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert found.interval == pytest.approx((0.2 - half, 0.2 + half))
    assert found.interval_over == "seeds"
    single = difference([replace(r, num_queries=0) for r in rows if r.seed == 0], "all")
    assert single.interval is None and single.p_value is None


def test_three_seeds_that_agree_by_chance_still_leave_the_queries():
    """The bits of 3 seeds × 2 cells: each query's own gain, averaged, then its spread over queries, in numpy."""
    rng = np.random.default_rng(0)
    base, gained = rng.random((2, 200)) < 0.3, rng.random((3, 2, 200)) < 0.2
    rows, gains = [], []
    for seed in range(3):
        for cell, size in enumerate((16, 64)):
            a, b = base[cell] | gained[seed, cell], base[cell]
            rows += [judged(b, size=size, seed=seed)]
            rows += [judged(a, size=size, seed=seed, model="static_tokens")]
            gains.append(a.astype(float) - b)
    per_query = np.mean(gains, 0)
    error = per_query.std(ddof=1) / np.sqrt(200)
    found = difference(rows, "all")
    over_seeds = 4.302653 * np.std(found.per_seed, ddof=1) / np.sqrt(3)
    assert found.mean == pytest.approx(per_query.mean())
    half = np.hypot(over_seeds, 1.959964 * error)
    assert found.interval == pytest.approx((found.mean - half, found.mean + half))
    sides = [[[r for r in rows if (r.seed, r.model) == (s, m)] for s in range(3)]
             for m in ("static_tokens", "vanilla")]  # fmt: skip
    assert query_error(*sides) == pytest.approx(error)


def test_mean_difference_of_one_seed_speaks_of_queries():
    found = difference(pair(16, 0.5, 0.5), "all")
    half = 1.959964 * math.sqrt(2 * 0.25 / 100)
    assert (found.interval_over, found.interval) == ("queries", pytest.approx((-half, half)))


def test_mean_difference_uses_only_cells_every_seed_has_on_both_sides():
    rows = pair(16, 0.2, 0.5) + pair(64, 0.1, 0.9) + pair(16, 0.2, 0.4, seed=1)
    rows += [row(size=64, seed=1, value=None, status="oom"), rows[3]]
    found = difference(rows, "all")
    assert found.mean == pytest.approx(0.25)
    assert (found.cells, found.num_cells_left_out) == (((8, 16),), 1)


def test_a_cell_measured_again_counts_once_and_last():
    rows = pair(16, 0.2, 0.5) + pair(16, 0.2, 0.3)
    assert difference(rows, "all").mean == pytest.approx(0.1)


@given(st.lists(st.booleans(), max_size=70))
def test_packed_flags_come_back(flags):
    assert unpack_correct(pack_correct(flags), len(flags)) == flags


def test_damaged_flags_are_named():
    with pytest.raises(ValueError, match="must be base64 of 9 bits"):
        unpack_correct(pack_correct([True] * 8), 9)
    with pytest.raises(ValueError, match="the row is damaged"):
        unpack_correct("§", 3)


def judged(flags, **changes):
    right = {"correct": pack_correct(flags), "queries": "q", "num_queries": len(flags)}
    return row(value=sum(flags) / len(flags), num_expected=len(flags), **(right | changes))


def test_paired_test_counts_discordant_queries():
    a = judged([True] * 9 + [False] * 11)
    b = judged([False] * 8 + [True] * 3 + [False] * 9, model="static_tokens")
    found = paired_test(a, b)
    assert (found.only_a, found.only_b, found.num_queries) == (8, 2, 20)
    assert found.difference == pytest.approx(0.3)
    # 2 * (C(10,0) + C(10,1) + C(10,2)) / 2**10, by hand
    assert found.p_value == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert found.interval.low < 0.3 < found.interval.high
    assert paired_test(b, a).p_value == found.p_value


def test_mcnemar_is_one_without_discordant_pairs_and_holds_for_many():
    assert mcnemar_p(0, 0) == mcnemar_p(5, 5) == 1
    # far beyond floats: 3,000 discordant pairs; the normal approximation has z = 5.46
    assert mcnemar_p(1650, 1350) == pytest.approx(
        math.erfc(299 / math.sqrt(3000) / math.sqrt(2)), rel=0.05
    )
    assert mcnemar_p(0, 5000) == 0


def test_paired_test_refuses_what_cannot_be_paired():
    with pytest.raises(ValueError, match="does not hold which queries were right"):
        paired_test(row(), judged([True]))
    with pytest.raises(ValueError, match=r"queries \(q and other\) must be the same"):
        paired_test(judged([True]), judged([True], queries="other"))


def test_mean_difference_of_one_seed_is_paired_where_rows_hold_the_queries():
    flags = [i % 2 == 0 for i in range(100)]
    better = [flag or i < 10 for i, flag in enumerate(flags)]  # five queries more, none fewer
    rows = [judged(flags), judged(better, model="static_tokens")]
    found = difference(rows, "all")
    assert found.mean == pytest.approx(0.05)
    half = 1.959964 * math.sqrt(0.05 * 0.95 * 100 / 99 / 100)  # by hand: a 0/1 gain of each query
    assert found.interval == pytest.approx((0.05 - half, 0.05 + half))
    unpaired = difference(
        [judged(flags, queries="a"), judged(better, model="static_tokens")], "all"
    )
    assert unpaired.interval.high - unpaired.interval.low > 3 * 2 * half


def test_mean_difference_leaves_other_protocols_alone():
    rows = [*pair(16, 0.2, 0.5), row(size=16, value=0.9, protocol="probe")]
    assert difference(rows, "all").mean == pytest.approx(0.3)
