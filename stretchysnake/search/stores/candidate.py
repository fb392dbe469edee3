"""A row of an index that may be among the nearest of a query, and which rows stand for all of them."""

from typing import NamedTuple

import numpy as np

from stretchysnake.search.index import IndexRow


class Candidate(NamedTuple):
    """A row that may be among the nearest."""

    order: tuple
    """Sorts rows of equal score: (path, start)."""
    row: IndexRow
    features: np.ndarray


def drawn_numbers(num_rows: int, count: int) -> list[int]:
    """`count` of the numbers below num_rows, or all, ascending: always the same ones for as many rows."""
    return sorted(np.random.default_rng(0).permutation(num_rows)[:count].tolist())
