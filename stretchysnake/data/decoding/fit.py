"""Into which height and width a displayed picture is fitted: the square of the scale, its own shape, or its middle.

| fit      | a picture shown as 1920 x 1080, at S = 224 and P = 16                                  |
|----------|----------------------------------------------------------------------------------------|
| `square` | all of it, squashed to S x S (the paper's resize)                                      |
| `keep`   | all of it, 10 x 18 patches: as many tokens as the square has (14 x 14) or a few less   |
| `crop`   | the middle square of a short side of S                                                 |

Paper does not say how aspect is treated; we squash by default, because its "Resize" to R^s x R^s does.

The picture is the one on a screen: turned upright, with square pixels (picture.py). Imports no torch, so that --help
stays quick.
"""

from __future__ import annotations

import math
from functools import lru_cache

from stretchysnake.flexibility import Scale

FITS = ("square", "keep", "crop")


def checked_fit(fit: str) -> str:
    """The same; ValueError for an unknown one."""
    if fit not in FITS:
        raise ValueError(f"fit ({fit!r}) must be one of: {', '.join(FITS)}.")
    return fit


@lru_cache(maxsize=4096)
def kept_grid(height: int, width: int, most: int) -> tuple[int, int]:
    """(rows, columns) of at most `most` patches whose shape is nearest to that of a picture height x width.

    Nearest is the least of two losses, as logs of ratios: how far columns / rows is from width / height, and a quarter
    of how many times `most` exceeds the patches. So 16:9 gets 10 x 18 of 196 and neither 9 x 16 (exact, a quarter of
    the patches unused) nor 10 x 19 (the most, 7 % too wide). No side goes below one patch: what is longer than
    `most` : 1 is squashed to that.

    >>> kept_grid(1080, 1920, 196), kept_grid(1920, 1080, 196), kept_grid(20, 1, 16)
    ((10, 18), (18, 10), (16, 1))
    """
    if height > width:
        columns, rows = kept_grid(width, height, most)
        return rows, columns
    aspect, best = width / height, (math.inf, 0, 0)
    for rows in range(1, math.isqrt(most) + 1):
        for wanted in (math.floor(aspect * rows), math.ceil(aspect * rows)):
            columns = min(wanted, most // rows)
            shape = abs(math.log(columns / rows / aspect))
            # rounded, so that equal losses are equal and more patches win
            loss = round(shape + math.log(most / (rows * columns)) / 4, 9)
            best = min(best, (loss, -rows * columns, rows))
    _, minus, rows = best
    return rows, -minus // rows


def fitted_size(height: int, width: int, *, scale: Scale, fit: str) -> tuple[int, int]:
    """(H, W) of the clips of a picture shown as height x width: S x S, or multiples of P where it keeps its shape."""
    if fit != "keep":
        return scale.size, scale.size
    rows, columns = kept_grid(height, width, scale.grid**2)
    return rows * scale.patch_size, columns * scale.patch_size
