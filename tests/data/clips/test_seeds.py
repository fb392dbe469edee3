"""Draws by their coordinates: many at once are those asked for one by one, and neighbours share nothing."""

import numpy as np

from stretchysnake.data.clips.seeds import DROP_PATH, seed_of, uniforms


def test_uniforms_are_the_seeds_of_their_places():
    rows = [7, 0, 2**40]
    found = uniforms(-3, DROP_PATH, 11, rows=rows, columns=5)
    for i, row in enumerate(rows):
        for column in range(5):
            assert found[i, column] == (seed_of(-3, DROP_PATH, 11, row, column) >> 11) / 2**53


def test_uniforms_are_uniform_and_neighbours_independent():
    found = uniforms(0, 4, 0, rows=range(2000), columns=24)
    assert found.min() >= 0 and found.max() < 1
    # 48,000 draws: standard errors 0.0013 of the mean and 0.0046 of a correlation
    assert abs(found.mean() - 0.5) < 0.006 and abs(found.std() - 12**-0.5) < 0.006
    for a, b in ((found[1:], found[:-1]), (found[:, 1:], found[:, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
    next_step = uniforms(0, 4, 1, rows=range(2000), columns=24)
    assert abs(np.corrcoef(found.ravel(), next_step.ravel())[0, 1]) < 0.02
