"""Stochastic depth: whole branches of a residual network left out in training (Huang et al. 2016).

B batch.
"""

import torch
from torch import Tensor


def drop_path(x: Tensor, rate: float, *, training: bool, draws: Tensor | None = None) -> Tensor:
    """Zero whole samples with probability `rate`, scaling the rest by 1 / (1 - rate); identity in eval.

    A sample (row of x) is zeroed where its number in `draws`, uniform in [0, 1), is below the rate: draws (rows,), or
    (B, n) where each of B clips stands in n rows, clip after clip. Without draws they come from torch's generator,
    and a batch computed in parts gets others than the whole.
    """
    if rate == 0.0 or not training:
        return x
    if draws is None:
        draws = torch.rand(x.shape[0], device=x.device)
    keep = (draws.reshape(-1) >= rate).to(x.device, x.dtype)
    return x * keep.view(-1, *[1] * (x.dim() - 1)) / (1.0 - rate)


def growing_rates(last: float, num_blocks: int) -> list[float]:
    """Rates that grow linearly with depth from 0 in the first block to `last` in the last."""
    return [last * i / max(1, num_blocks - 1) for i in range(num_blocks)]


def draws_by_block(
    draws: Tensor | None, num_clips: int, num_blocks: int, each: int
) -> tuple[Tensor | None, ...]:
    """The numbers of every block, (B, each), of draws (B, num_blocks · each); None for each where there are none."""
    if draws is None:
        return (None,) * num_blocks
    wanted = (num_clips, num_blocks * each)
    if tuple(draws.shape) != wanted:
        raise ValueError(
            f"drop_draws (shape {tuple(draws.shape)}) must be {wanted} here: num_drop_draws(scale) a clip"
        )
    return draws.split(each, dim=1)
