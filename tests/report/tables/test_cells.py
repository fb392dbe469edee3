"""Rows averaged over seeds: mean, spread and interval of a cell by hand; what counts as the main vanilla."""

import math

import pytest
from hand_made_rows import DATASET, cell

from stretchysnake.report.tables.cells import (
    cells_of,
    interval_of,
    main_rows,
    models_of,
    of_shared_seeds,
)
from stretchysnake.results.intervals import wilson_interval


def test_cell_is_the_mean_over_its_seeds():
    rows = [
        cell("vanilla", 8, 32, value, seed=seed, gflops=1.0 + seed, num_queries=100 - seed)
        for seed, value in enumerate((0.5, 0.7, 0.6))
    ]
    found = cells_of(rows, dataset=DATASET)["vanilla", 8, 32]
    assert (found.value, found.spread) == (pytest.approx(0.6), pytest.approx(0.1))
    over_seeds = 4.302653 * 0.1 / math.sqrt(3)  # Student's t of two degrees of freedom
    errors = [
        math.sqrt(p * (1 - p) / n) for p, n in ((0.5, 100), (0.7, 99), (0.6, 98))
    ]  # no bits: as if the seeds answered alike
    half = math.hypot(over_seeds, 1.959964 * sum(errors) / 3)
    assert (found.low, found.high) == (pytest.approx(0.6 - half), pytest.approx(0.6 + half))
    assert (found.num_seeds, found.gflops, found.num_queries) == (3, 2.0, 98)
    assert found.native and found.trained and found.status == "ok"


def test_seeds_without_a_value_are_left_out_and_said():
    rows = [cell("vanilla", 8, 32, 0.5), cell("vanilla", 8, 32, None, seed=1)]
    found = cells_of(rows, dataset=DATASET)["vanilla", 8, 32]
    assert (found.value, found.spread, found.num_seeds) == (0.5, None, 1)
    assert found.note == "1 of 2 seeds without a value"
    assert (found.low, found.high) == wilson_interval(200, 400)
    (grid,) = (cells_of([*rows, cell("temporal", 8, 64, 0.1)], dataset=DATASET),)
    assert grid["temporal", 8, 32].status == "absent" and grid["vanilla", 8, 64].value is None


def test_cells_are_means_over_the_seeds_that_all_models_have():
    """Seed 2 is a hard one, which temporal never saw."""
    rows = [cell("vanilla", 8, 32, value, seed=s) for s, value in enumerate((0.6, 0.8, 0.1))]
    rows += [cell("temporal", 8, 32, value, seed=s) for s, value in ((0, 0.5), (1, 0.7), (5, 0.9))]
    found = cells_of(rows, dataset=DATASET)
    assert found["vanilla", 8, 32].value == pytest.approx(0.7)
    assert found["temporal", 8, 32].value == pytest.approx(0.6)
    assert {one.num_seeds for one in found.values()} == {2}
    apart = cells_of([rows[2], rows[5]], dataset=DATASET)  # none is common: each its own
    assert [one.value for one in apart.values()] == [0.1, 0.9]


def test_each_data_set_has_shared_seeds_of_its_own():
    rows = [cell("vanilla", 8, 32, 0.1, seed=seed) for seed in (0, 1)]
    rows += [cell("temporal", 8, 32, 0.2, seed=seed) for seed in (1, 2)]
    there = [cell("vanilla", 8, 32, 0.3, seed=2, dataset="other")]
    assert of_shared_seeds(rows + there) == [rows[1], rows[2], *there]


def test_interval_of_one_seed_is_the_rows_own():
    assert interval_of([cell("vanilla", 8, 32, 0.5, low=0.3, high=0.6)]) == (0.3, 0.6)
    assert interval_of([cell("vanilla", 8, 32, 0.5, metric="map")]) is None
    low, high = interval_of([cell("vanilla", 8, 32, v, seed=s) for s, v in enumerate((0.0, 1.0))])
    assert (low, high) == (0.0, 1.0)  # cut to what a share can be


def test_main_vanilla_is_trained_at_the_native_frames_of_the_others():
    def native(run, frames, model="vanilla"):
        return cell(model, frames, 32, 0.5, run_id=run, native=True)

    rows = [
        native("a", 4),
        native("b", 8),
        native("c", 8, "static_tokens"),
        cell("vanilla", 4, 64, 0.1, run_id="a"),
    ]
    assert {row.run_id for row in main_rows(rows)} == {"b", "c"}
    assert main_rows(rows[1:3]) == rows[1:3]


def test_models_stand_in_the_papers_order():
    rows = [cell(m, 8, 32, 0.1) for m in ("static_tokens", "zebra", "flexivit", "vanilla", "alpha")]
    assert models_of(rows) == ["vanilla", "flexivit", "alpha", "zebra", "static_tokens"]
