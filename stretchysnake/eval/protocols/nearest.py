"""Exact nearest neighbours: one blocked matrix product, then fp64 where it could have been wrong.

Q queries, G gallery rows, C width, B gallery rows of one block.

1. Products in working precision, a tile of gallery rows × chunk queries at a time, give only each block's largest
   score: at most 4·chunk × chunk scores exist at once. A block whose largest score is further below the k-th largest
   block maximum than twice the rounding bound holds none of the k nearest.
2. The rows of the other blocks (about k of G/16 on real features) are scored one by one, and held to the same bound.
3. Where more than one is left, fp64 ranks them.

A query to which 1 leaves more than a share of the gallery (features collapsed to one direction; for L2 one row that
dwarfs the others) has all of it scored by `exhaustive.py` instead: a pair scored by itself in 2 and 3 costs some two
hundred pairs of a product.

If |computed - exact| ≤ b, k rows lie at or above the k-th largest computed score m, so the k-th largest exact score is
at least m - b, and a row of the k nearest has a computed score of at least m - 2b: none is lost in 1 or 2. So the
result is the fp64 ranking whatever the chunk, the device or torch's matrix product precision:
`torch.set_float32_matmul_precision("medium")` makes 1 and 2 bf16 where the hardware has it, widens the bound, and
changes no result.

L2's score is 2 q·g - |g|². A pass over every product to subtract |g|² would cost a tenth of the time. So blocks are
made of rows of nearly one norm, and the largest product less the block's largest |g|² is a score that one of its rows
reaches; less its smallest |g|², one that none of them exceeds.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stretchysnake.eval.protocols.exhaustive import Exhaustive, k_best, place_of_entries

SIMILARITIES = ("cosine", "l2")
BLOCK = 16
_RESCORED = 2**22
"""Numbers gathered, and pairs kept, at a time when rows are scored again (16 MiB in fp32, 32 MiB in fp64)."""
_PLAIN_SHARE = 1 / 64
"""Share of the gallery that may be left to a query after 1; with more, every pair of it is scored in fp64."""


def nearest(
    query: Tensor,
    gallery: Tensor,
    *,
    k: int = 1,
    similarity: str = "cosine",
    chunk: int = 2048,
    exclude: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Indices (Q, k) int64 of the nearest gallery rows, nearest first; (Q, C) against (G, C), fp32.

    The ranking is that of fp64 arithmetic on the given values; equal scores go to the lower gallery
    index. exclude = (ids of the queries (Q,), ids of the gallery (G,)): a pair of equal ids is skipped.
    ValueError when fewer than k gallery rows are left for some query, and for non-finite features.
    """
    _check(query, gallery, k, similarity, exclude)
    if not len(query):
        return torch.empty(0, k, dtype=torch.int64)
    query, gallery = query.float(), gallery.float()
    if k * BLOCK > _PLAIN_SHARE * len(gallery):  # at least k blocks are left to each
        return Exhaustive(gallery, similarity).nearest(query, k=k, exclude=exclude)
    part = max(BLOCK, 4 * chunk // BLOCK * BLOCK)
    rows = _rows_of_blocks(len(gallery), part).to(gallery.device)
    if similarity == "cosine":
        left, right = F.normalize(query, dim=1), F.normalize(gallery, dim=1)
        layout, squares, spread, placed = None, None, 0.0, exclude
    else:  # 2 q·g - |g|²: the largest is the nearest; from here to the ranking, gallery rows stand as in layout
        squares = torch.linalg.vector_norm(gallery, dim=1).square()
        layout = _by_norm(rows, squares)
        left, right, squares = 2 * query, gallery[layout], squares[layout]
        placed = None if exclude is None else (exclude[0], exclude[1][layout])
        of_blocks = squares[rows]
        highest = of_blocks.masked_fill(rows < 0, -torch.inf).amax(1, keepdim=True)
        spread = highest - of_blocks.masked_fill(rows < 0, torch.inf).amin(1, keepdim=True)
    size = min(part, len(gallery) + BLOCK), min(chunk, len(query))
    tile = right.new_empty(size[0] * size[1])
    neighbours = torch.empty(len(query), k, dtype=torch.int64, device=gallery.device)
    crowded = torch.zeros(len(query), dtype=torch.bool, device=gallery.device)
    for start in range(0, len(query), chunk):
        here = slice(start, start + chunk)
        ids = None if placed is None else (placed[0][here], placed[1])
        maxima = _block_maxima(left[here], right, len(rows), part, ids, tile)
        if squares is not None:
            maxima -= highest
        possible = _within(maxima, k, _rounding_bound(query[here], squares), spread)
        crowded[here] = possible.sum(0) * BLOCK > _PLAIN_SHARE * len(gallery)
        rescored = start + (~crowded[here]).nonzero()[:, 0]
        block, place = possible[:, ~crowded[here]].nonzero(as_tuple=True)
        order = place.argsort(stable=True)
        block, place = block[order], place[order]
        counts = place.bincount(minlength=len(rescored))
        ends = [0, *counts.cumsum(0).tolist()]
        step = max(1, _RESCORED // (int(counts.max()) * BLOCK)) if len(rescored) else 1
        for first in range(0, len(rescored), step):
            few = rescored[first : first + step]
            these = slice(ends[first], ends[min(first + step, len(rescored))])
            ids = None if placed is None else (placed[0][few], placed[1])
            score, row, owner = _row_pairs(
                left[few], right, squares, rows, block[these], place[these] - first, ids
            )
            row = row if layout is None else layout[row]
            bound = _rounding_bound(query[few], squares)
            best = _nearly_best(score, row, owner, k=k, bound=bound)
            neighbours[few] = _ranked(query[few], gallery, *best, k=k, similarity=similarity)
    if crowded.any():
        ids = None if exclude is None else (exclude[0][crowded], exclude[1])
        search = Exhaustive(gallery, similarity)
        neighbours[crowded] = search.nearest(query[crowded], k=k, exclude=ids)
    return neighbours


def scores(query: Tensor, gallery: Tensor, *, similarity: str = "cosine") -> Tensor:
    """(Q, G) fp64 similarities, larger is nearer; for L2 minus the squared distance plus |query|²."""
    query, gallery = query.double(), gallery.double()
    if similarity == "cosine":
        return F.normalize(query, dim=1) @ F.normalize(gallery, dim=1).T
    return 2 * query @ gallery.T - gallery.square().sum(1)


def _rows_of_blocks(count: int, part: int) -> Tensor:
    """(number of blocks, BLOCK): the gallery rows of each block, -1 for none.

    A block takes every (width/BLOCK)-th row of its part: its maximum is then a reduction over an outer
    dimension, which vectorises.
    """
    tables = []
    for start in range(0, count, part):
        width = min(part, count - start)
        padded = width + -width % BLOCK
        index = torch.arange(start, start + padded)
        index[width:] = -1
        tables.append(index.view(BLOCK, -1).T)
    return torch.cat(tables)


def _by_norm(rows: Tensor, squares: Tensor) -> Tensor:
    """(G,): the gallery row to stand at each place, so that those of a block are neighbours in norm."""
    layout = rows.new_empty(len(squares))
    layout[rows[rows >= 0]] = squares.argsort()
    return layout


def _block_maxima(query, gallery, blocks: int, part: int, ids, tile) -> Tensor:
    """(blocks, Q): each block's largest product. Gallery rows lead: the product is faster so, and the maxima too."""
    maxima, done, count = query.new_empty(blocks, len(query)), 0, len(query)
    for start in range(0, len(gallery), part):
        rows = gallery[start : start + part]
        padded = len(rows) + -len(rows) % BLOCK
        score = tile[: padded * count].view(padded, count)
        torch.mm(rows, query.T, out=score[: len(rows)])
        score[len(rows) :] = -torch.inf
        if ids is not None:
            same = ids[1][start : start + part, None] == ids[0]
            score[: len(rows)].masked_fill_(same, -torch.inf)
        here = maxima[done : done + padded // BLOCK]
        torch.amax(score.view(BLOCK, -1, count), 0, out=here)
        done += len(here)
    return maxima


def _within(score: Tensor, k: int, bound: Tensor, spread: Tensor | float = 0.0) -> Tensor:
    """(n, Q) bool: the scores of each column that, raised by spread, can belong to its k largest exact ones."""
    if k > len(score):
        return score > -torch.inf
    kth = score.amax(0) if k == 1 else score.T.topk(k, dim=1).values[:, -1]
    return (score >= kth - 2 * bound - spread) & (score > -torch.inf)


def _rounding_bound(query: Tensor, squares: Tensor | None) -> Tensor:
    """(Q,): how far a score of the product can be from the exact one; squares of the gallery's norms for L2.

    A sum of n products in any order is off by at most about n·2⁻²⁴ times the product of the norms; for cosine each
    norm adds half as much, for L2 |g|² its own n·2⁻²⁴, so that 2·(n + 8) covers both, the last roundings included.
    Reduced matrix product precision rounds both factors and the result once.
    """
    reduced = {"highest": 0.0, "high": 2**-10, "medium": 2**-8}[
        torch.get_float32_matmul_precision()
    ]
    relative = 4 * reduced + 2 * (query.shape[1] + 8) * 2**-24
    if squares is None:
        return torch.full((len(query),), relative, device=query.device)
    largest = squares.max()
    return relative * (2 * query.norm(dim=1) * largest.sqrt() + largest)


def _row_pairs(query, gallery, squares, rows, block, place, ids) -> tuple[Tensor, Tensor, Tensor]:
    """(scores, gallery rows, queries), each (n,): every row of the blocks with the query it is a candidate of.

    `place` is sorted, and so are the queries returned.
    """
    step, products = max(1, _RESCORED // (BLOCK * gallery.shape[1])), []
    for start in range(0, len(block), step):
        owner = place[start : start + step]
        candidates = rows[block[start : start + step]]  # (n, BLOCK)
        near = gallery[candidates.clamp(min=0)]  # (n, BLOCK, C)
        score = torch.bmm(near, query[owner, :, None])[:, :, 0]
        if squares is not None:
            score -= squares[candidates]
        absent = candidates < 0
        if ids is not None:
            absent |= ids[0][owner, None] == ids[1][candidates.clamp(min=0)]
        products.append(score.masked_fill_(absent, -torch.inf))
    return torch.cat(products).flatten(), rows[block].flatten(), place.repeat_interleave(BLOCK)


def _nearly_best(score, candidates, owner, *, k: int, bound) -> tuple[Tensor, Tensor]:
    """The (gallery rows, queries) among the pairs that can belong to the k nearest, by query, then by gallery row."""
    column = place_of_entries(owner, len(bound))
    table = score.new_full((len(bound), int(column.max()) + 1), -torch.inf)
    table[owner, column] = score
    possible = _within(table.T, k, bound).T[owner, column]
    candidates, owner = candidates[possible], owner[possible]
    order = candidates.argsort()
    order = order[owner[order].argsort(stable=True)]
    return candidates[order], owner[order]


def _ranked(query, gallery, candidates, owner, *, k: int, similarity: str) -> Tensor:
    """The k nearest (Q, k) of each query among its candidates, in fp64; ties to the lower index."""
    if k == 1 and len(owner) == len(query):  # one is left of each: nothing to rank
        return candidates[:, None]
    score, step = [], max(1, _RESCORED // query.shape[1])
    for start in range(0, len(owner), step):
        here = slice(start, start + step)
        q, g = query[owner[here]].double(), gallery[candidates[here]].double()
        if similarity == "cosine":
            norms = q.norm(dim=1) * g.norm(dim=1)
            score.append((q * g).sum(1) / norms.clamp(min=1e-300))
        else:
            score.append(-(q - g).square().sum(1))
    return k_best(torch.cat(score), candidates, owner, count=len(query), k=k)


def _check(query: Tensor, gallery: Tensor, k: int, similarity: str, exclude) -> None:
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity ({similarity!r}) must be one of: {', '.join(SIMILARITIES)}")
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k ({k}) must be between 1 and the gallery's size ({len(gallery)})")
    if query.dim() != 2 or gallery.dim() != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query {tuple(query.shape)} and gallery {tuple(gallery.shape)} must be (Q, C) and (G, C) "
            "of one width; extract both with one model"
        )
    for name, features in (("query", query), ("gallery", gallery)):
        if not features.numel():
            continue
        low, high = torch.aminmax(features)  # NaN stays NaN: one pass, no copy
        if not (low.isfinite() and high.isfinite()):
            bad = int((~features.isfinite().all(1)).nonzero()[0])
            raise ValueError(
                f"{name} row {bad} holds non-finite values; the weights or the video are damaged"
            )
    if exclude is None:
        return
    ids, inverse, counts = exclude[1].unique(return_inverse=True, return_counts=True)
    del inverse
    place = torch.searchsorted(ids, exclude[0]).clamp(max=len(ids) - 1)
    dropped = torch.where(ids[place] == exclude[0], counts[place], 0)
    left = len(gallery) - dropped
    if len(left) and int(left.min()) < k:
        worst = int(left.argmin())
        raise ValueError(
            f"k ({k}) must not exceed the gallery rows left for each query; query {worst} has "
            f"{int(left[worst])} of {len(gallery)} outside its own group"
        )
