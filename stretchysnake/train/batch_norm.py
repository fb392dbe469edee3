"""Running statistics of batch norms in training: the same on every rank, and untouched by a step that is not taken.

Each rank's batch norms see its own clips; what they keep is then averaged over the ranks by their numbers of clips, in
one vector. DDP alone would spread rank 0's, and sliced models would keep one of their own on each rank.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stretchysnake.models.recompute import BATCH_NORMS
from stretchysnake.ranks import Runtime


def running_statistics(model: nn.Module) -> list[Tensor]:
    """The buffers of a model's batch norms themselves: means, variances and counters; [] where it has none."""
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


def copies_of(statistics: Sequence[Tensor]) -> list[Tensor]:
    """What `put_back` needs to undo the steps after it."""
    return [buffer.clone() for buffer in statistics]


def put_back(statistics: Sequence[Tensor], copies: Sequence[Tensor]) -> None:
    """Give the buffers the values of before."""
    for buffer, copy in zip(statistics, copies, strict=True):
        buffer.copy_(copy)


def average_over_ranks(statistics: Sequence[Tensor], *, clips: int, runtime: Runtime) -> None:
    """The mean over the ranks, each weighing as many as the `clips` it saw; all ranks call it together."""
    if not statistics or runtime.world_size == 1:
        return
    values = torch.cat([buffer.double().flatten().cpu() for buffer in statistics])
    *sums, total = runtime.sum(torch.cat([values * clips, values.new_tensor([clips])])).split(
        [buffer.numel() for buffer in statistics] + [1]
    )
    for buffer, mean in zip(statistics, sums, strict=True):
        mean = (mean / total).view_as(buffer)
        buffer.copy_(mean if buffer.is_floating_point() else mean.round())
