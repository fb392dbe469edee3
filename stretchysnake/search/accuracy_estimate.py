"""Accuracies of cells made less dependent on the luck of the queries, before the largest is taken for the best.

A cell's estimate lies between its own measurement and the sum of an effect of T and an effect of S, fitted to all
cells. The more the cells scatter about that sum beyond what chance explains, the more the measurement counts
(empirical Bayes). docs/log.md says what it is worth.
"""

from collections.abc import Mapping

import numpy as np

SHARED_QUERIES = 0.3
"""Share of a cell's chance variance p(1 - p)/n left beside that of other cells, since all answer the same queries;
estimated on the rows named in docs/log.md."""


def estimated(
    cells: Mapping[tuple[int, int], tuple[float, int]],
) -> dict[tuple[int, int], float]:
    """(T, S) -> estimate, from (T, S) -> (accuracy, queries); unchanged where cells are too few to fit."""
    places = sorted(cells)
    values = np.array([cells[place][0] for place in places])
    queries = np.array([cells[place][1] for place in places])
    effects = [
        *((0, t) for t in sorted({place[0] for place in places})),
        *((1, s) for s in sorted({place[1] for place in places})),
    ]
    design = np.array(
        [[place[axis] == value for axis, value in effects] for place in places], float
    )
    spare = len(places) - np.linalg.matrix_rank(design)
    if spare < 1:
        return dict(zip(places, values.tolist(), strict=True))
    fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    scatter = ((values - fitted) ** 2).sum() / spare
    chance = SHARED_QUERIES * (values * (1 - values) / queries).mean()
    weight = max(0.0, 1 - chance / scatter) if scatter > 0 else 0.0
    return dict(zip(places, (fitted + weight * (values - fitted)).tolist(), strict=True))
