"""Budgets in words."""

import pytest

from stretchysnake.search.budget import Budget, parse_budget


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("20 GFLOPs", "gflops", 20),
        ("500mflops", "gflops", 0.5),
        ("50 ms", "milliseconds", 50),
        ("1.5 s", "milliseconds", 1500),
        ("2 GiB", "mebibytes", 2048),
        ("1 MB", "mebibytes", 1e6 / 2**20),
        ("3 GB", "mebibytes", 3e9 / 2**20),
        ("3 MiB", "mebibytes", 3),
        ("7 us", "milliseconds", 0.007),
        ("2 TFLOPs", "gflops", 2000),
    ],
)
def test_units(text, kind, limit):
    assert parse_budget(text) == Budget(kind, pytest.approx(limit))


@pytest.mark.parametrize(
    "text", ["", "20", "GFLOPs", "20 apples", "-1 ms", "0 ms", "1..2 ms", "1e999 s"]
)
def test_what_is_no_budget_lists_the_units(text):
    with pytest.raises(
        ValueError, match=r"must be a positive number and a unit.*GFLOPs TFLOPs us ms"
    ):
        parse_budget(text)
