"""A row of an index that may be among the nearest of a query."""

from typing import NamedTuple

import numpy as np

from stretchysnake.search.index import IndexRow


class Candidate(NamedTuple):
    """A row that may be among the nearest."""

    order: tuple
    """Sorts rows of equal score: (path, start)."""
    row: IndexRow
    features: np.ndarray
