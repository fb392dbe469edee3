"""Seeds and numbers that depend on all of their coordinates: what a draw is may be asked again, anywhere, in any order.

    seed_of(run.seed, 1, step, place)                          the seed of one clip's augmentation
    uniforms(run.seed, 4, step, rows=places, columns=depth)    one number in [0, 1) for each (place, column)

The first coordinate after the run's seed says what is drawn, so that no two kinds of draw share their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

ORDER, AUGMENTATION, REPLACEMENT, MIXTURE, DROP_PATH, DROPOUT = range(6)
"""What is drawn: an epoch's samples, a clip's augmentation, what replaces it, a batch's mixing, drop path, dropout."""

_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def seed_of(seed: int, *place: int) -> int:
    """A seed that depends on all of its numbers: 64-bit mixing (splitmix64), so neighbours share nothing."""
    state = seed & (2**64 - 1)
    for number in place:
        state = (state ^ (number + _STEP)) * _FIRST % 2**64
        state = (state ^ (state >> 27)) * _SECOND % 2**64
        state ^= state >> 31
    return state


def generator_of(seed: int, *place: int) -> torch.Generator:
    """torch's generator of this place."""
    return torch.Generator().manual_seed(seed_of(seed, *place))


def uniforms(seed: int, *place: int, rows: Sequence[int], columns: int) -> np.ndarray:
    """float64 (len(rows), columns) in [0, 1): that of (row, column) is seed_of(seed, *place, row, column) / 2^64.

    Computed for all of them at once; rounded down to 53 bits, so that it stays below 1.
    """
    state = np.full((len(rows), 1), seed_of(seed, *place), dtype=np.uint64)
    for numbers in (np.asarray(rows, dtype=np.uint64)[:, None], np.arange(columns)[None]):
        state = (state ^ (numbers.astype(np.uint64) + np.uint64(_STEP))) * np.uint64(_FIRST)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(_SECOND)
        state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)).astype(np.float64) / 2**53
