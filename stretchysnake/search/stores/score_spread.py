"""What a score means for the weights of an index: how pairs of different videos in it score.

Features of some weights all point much the same way, so that 0.89 may be another scene altogether; of others 0.4 is a
match. The index itself tells: its own pairs of different videos are what "nothing in common" looks like, mostly.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stretchysnake.search.stores.candidate import Candidate

NUM_ROWS = 512
"""Rows drawn; all their pairs of different videos are compared, some 130,000."""


class ScoreSpread(NamedTuple):
    """Cosines of pairs of rows of different videos."""

    quantiles: tuple[float, ...]
    """The lowest, then each thousandth of the pairs further on, up to the highest: 1,001 numbers."""
    num_pairs: int

    def share_below(self, score: float) -> float:
        """The share of these pairs that score less, in [0, 1], to a thousandth."""
        return min(1.0, bisect_left(self.quantiles, score) / (len(self.quantiles) - 1))

    def quantile(self, share: float) -> float:
        """The score below which this share of the pairs lies."""
        return self.quantiles[round(share * (len(self.quantiles) - 1))]

    def __str__(self) -> str:
        return (
            f"half of all pairs of different videos in the index score {self.quantile(0.25):.2f} to "
            f"{self.quantile(0.75):.2f}, and 1 of 100 more than {self.quantile(0.99):.2f}"
        )


def score_spread(rows: Sequence[Candidate]) -> ScoreSpread | None:
    """The spread of some rows of an index; None where they are of one video only."""
    if len(rows) < 2:
        return None
    features = np.stack([row.features for row in rows]).astype(np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-30)
    contents = np.array([row.row.file.sha256 for row in rows])
    first, second = np.triu_indices(len(rows), 1)
    different = contents[first] != contents[second]
    cosines = (features @ features.T)[first[different], second[different]]
    if not len(cosines):
        return None
    return ScoreSpread(tuple(np.quantile(cosines, np.linspace(0, 1, 1001)).tolist()), len(cosines))
