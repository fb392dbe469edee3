"""Nearest neighbours by the plain product of every pair in fp64: what `nearest` falls back to.

Q queries, G gallery rows, C width. Its time does not depend on the values, so it is the answer where features have
collapsed and no bound of fp32 arithmetic tells rows apart.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_SCORES = 2**23
"""Scores held at a time (64 MiB)."""


class Exhaustive:
    """A gallery (G, C) made ready to be asked: fp64, each distinct row once, so that equal rows tie exactly.

    For L2 the row nearest the middle is taken off both sides first: differences of neighbouring fp32 numbers are exact
    in fp64, so that small distances are too, and those of whole numbers tie.
    """

    def __init__(self, gallery: Tensor, similarity: str):
        rows, self.place = gallery.float().unique(dim=0, return_inverse=True)
        self.centre = None
        if similarity == "l2":
            self.centre = rows[(rows - rows.mean(0)).square().sum(1).argmin()].double()
        self.rows = self._ready(rows)

    def _ready(self, vectors: Tensor) -> Tensor:
        if self.centre is None:
            return F.normalize(vectors.double(), dim=1)
        return vectors.double() - self.centre

    def nearest(
        self, query: Tensor, *, k: int, exclude: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """(Q, k) int64 gallery rows, nearest first, ties to the lower index; `exclude` as of `nearest.nearest`."""
        step, neighbours = max(1, _SCORES // len(self.place)), []
        squares = None if self.centre is None else self.rows.square().sum(1)
        for start in range(0, len(query), step):
            here = slice(start, start + step)
            score = self._ready(query[here].float()) @ self.rows.T
            if squares is not None:
                score = score.mul_(2).sub_(squares)
            score = score[:, self.place]
            if exclude is not None:
                score.masked_fill_(exclude[0][here, None] == exclude[1], -torch.inf)
            neighbours.append(_best(score, k))
        return torch.cat(neighbours)


def _best(score: Tensor, k: int) -> Tensor:
    """The columns (Q, k) of each row's k largest scores, largest first; equal ones in their order."""
    least = score.topk(k, dim=1).values[:, -1:]
    owner, column = (score >= least).nonzero(as_tuple=True)  # by row, then by column
    return k_best(score[owner, column], column, owner, count=len(score), k=k)


def k_best(score: Tensor, value: Tensor, owner: Tensor, *, count: int, k: int) -> Tensor:
    """(count, k): of each owner's values those of its k largest scores, largest first; equal ones in their order.

    `owner` is sorted, and each of the `count` has k entries or more.
    """
    place = place_of_entries(owner, count)
    table = score.new_full((count, int(place.max()) + 1), -torch.inf)
    table[owner, place] = score
    values = value.new_zeros(table.shape)
    values[owner, place] = value
    return values.gather(1, table.sort(dim=1, descending=True, stable=True).indices[:, :k])


def place_of_entries(owner: Tensor, count: int) -> Tensor:
    """(n,): the place of each entry among those of its owner; owner (n,) is sorted."""
    counts = owner.bincount(minlength=count)
    return torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]
