"""Exact nearest neighbours: one blocked matrix product, then fp64 where it could have been wrong.

Q queries, G gallery rows, C width, B gallery rows of one block.

The product in working precision gives only each block's largest score, so at most chunk × 4·chunk
scores exist at a time. A block whose largest score is further below the k-th largest block maximum
than twice the rounding bound holds none of the k nearest. Only the other blocks (about k of G/16 on
real features) are scored again, in fp64. So the result is the fp64 ranking whatever the chunk, the
device or torch's matrix product precision: `torch.set_float32_matmul_precision("medium")` makes the first
pass bf16 where the hardware has it, widens the bound, and changes no result.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SIMILARITIES = ("cosine", "l2")
BLOCK = 16
_RESCORED = 2**22
"""fp64 values gathered at a time when blocks are scored again (32 MiB)."""


def nearest(
    query: Tensor,
    gallery: Tensor,
    *,
    k: int = 1,
    similarity: str = "cosine",
    chunk: int = 1024,
    exclude: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Indices (Q, k) int64 of the nearest gallery rows, nearest first; (Q, C) against (G, C), fp32.

    The ranking is that of fp64 arithmetic on the given values; equal scores go to the lower gallery
    index. exclude = (ids of the queries (Q,), ids of the gallery (G,)): a pair of equal ids is skipped.
    ValueError when fewer than k gallery rows are left for some query, and for non-finite features.
    """
    _check(query, gallery, k, similarity, exclude)
    query, gallery = query.float(), gallery.float()
    if similarity == "cosine":
        left, right = F.normalize(query, dim=1), F.normalize(gallery, dim=1)
        squares = None
    else:
        left, right = query, gallery
        squares = gallery.square().sum(1)
    part = max(BLOCK, 4 * chunk // BLOCK * BLOCK)
    rows = _rows_of_blocks(len(gallery), part).to(gallery.device)
    found = []
    for start in range(0, len(query), chunk):
        here = slice(start, start + chunk)
        ids = None if exclude is None else (exclude[0][here], exclude[1])
        maxima = _block_maxima(left[here], right, squares, part, ids)
        bound = _rounding_bound(left[here], right, squares)
        kth = maxima.topk(k, dim=1).values[:, -1:] if k <= maxima.shape[1] else -torch.inf
        near = (maxima >= kth - 2 * bound) & (maxima > -torch.inf)
        found.append(_rescored(query[here], gallery, near, rows, k, similarity, ids))
    return torch.cat(found) if found else torch.empty(0, k, dtype=torch.int64)


def scores(query: Tensor, gallery: Tensor, *, similarity: str = "cosine") -> Tensor:
    """(Q, G) fp64 similarities, larger is nearer; for L2 minus the squared distance plus |query|²."""
    query, gallery = query.double(), gallery.double()
    if similarity == "cosine":
        return F.normalize(query, dim=1) @ F.normalize(gallery, dim=1).T
    return 2 * query @ gallery.T - gallery.square().sum(1)


def _rows_of_blocks(count: int, part: int) -> Tensor:
    """(number of blocks + 1, BLOCK): the gallery rows of each block, -1 for none; the last row is all -1.

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
    return torch.cat([*tables, torch.full((1, BLOCK), -1)])


def _block_maxima(query: Tensor, gallery: Tensor, squares: Tensor | None, part: int, ids) -> Tensor:
    maxima = []
    for start in range(0, len(gallery), part):
        here = slice(start, start + part)
        score = query @ gallery[here].T
        if squares is not None:
            score = 2 * score - squares[here]  # -|q - g|² without the query's own norm
        if ids is not None:
            score.masked_fill_(ids[0][:, None] == ids[1][here], -torch.inf)
        if score.shape[1] % BLOCK:
            score = F.pad(score, (0, -score.shape[1] % BLOCK), value=-torch.inf)
        maxima.append(score.view(len(query), BLOCK, -1).amax(1))
    return torch.cat(maxima, 1)


def _rounding_bound(query: Tensor, gallery: Tensor, squares: Tensor | None) -> Tensor:
    """(Q, 1): how far a first-pass score can be from the exact one.

    A sum of n products in any order is off by at most γ = n·2⁻²⁴ times the product of the norms; 4·(n + 8)
    also covers the normalisation. Reduced matrix product precision rounds both factors and the result once.
    """
    reduced = {"highest": 0.0, "high": 2**-10, "medium": 2**-8}[
        torch.get_float32_matmul_precision()
    ]
    relative = 4 * reduced + 4 * (query.shape[1] + 8) * 2**-24
    if squares is None:
        return torch.full((len(query), 1), relative, device=query.device)
    largest = squares.max()
    norms = query.norm(dim=1, keepdim=True)
    return relative * (2 * norms * largest.sqrt() + largest)


def _rescored(query, gallery, near, rows, k, similarity, ids) -> Tensor:
    """The k nearest (Q, k) among the rows of the blocks marked in near (Q, blocks), in fp64."""
    counts = near.sum(1)
    step = max(1, _RESCORED // (int(counts.max()) * BLOCK * query.shape[1]))
    found = []
    for start in range(0, len(query), step):
        q = query[start : start + step].double()
        row, block = near[start : start + step].nonzero(as_tuple=True)
        count = counts[start : start + step]
        place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
        table = row.new_full((len(q), int(count.max())), -1)  # -1 picks the row of no rows
        table[row, place] = block
        candidates = rows[table].flatten(1).sort(dim=1).values  # by index, so that ties fall so
        g = gallery[candidates.clamp(min=0)].double()
        if similarity == "cosine":
            norms = q.norm(dim=1, keepdim=True) * g.norm(dim=2)
            score = (q[:, None] * g).sum(2) / norms.clamp(min=1e-300)
        else:
            score = -(q[:, None] - g).square().sum(2)
        absent = candidates < 0
        if ids is not None:
            absent |= ids[0][start : start + step, None] == ids[1][candidates.clamp(min=0)]
        score.masked_fill_(absent, -torch.inf)
        order = score.sort(dim=1, descending=True, stable=True).indices[:, :k]
        found.append(candidates.gather(1, order))
    return torch.cat(found)


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
