"""Which clips a training step takes, in which order, at which scales: all before any pixel is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch

from stretchysnake.data.clips.seeds import ORDER, generator_of
from stretchysnake.flexibility import Scale, scales_at


def batch_size_at(
    scale: Scale, *, batch_size: int, token_budget: int | None = None, num_sample: int = 1
) -> int:
    """Return the clips per batch: `batch_size`, or as many as `token_budget` patch tokens hold (at least one video's,
    of which there are `num_sample`, and no part of one)."""
    if token_budget is None:
        return batch_size
    return _whole_units(token_budget // scale.num_tokens, num_sample)


def _whole_units(num_clips: int, unit: int) -> int:
    """Clips of as many whole units as make at most `num_clips`, or of one."""
    return max(1, num_clips // unit) * unit


def group_sizes(
    scales: Sequence[Scale],
    *,
    batch_size: int,
    token_budget: int | None = None,
    unit: int = 1,
    num_sample: int = 1,
) -> list[int]:
    """Clips of each group of a step: as equal as `unit` allows, together `batch_size` or what `token_budget` holds.

    Of several groups a budget holds whole units, at least one each; of one, whole videos of `num_sample` clips.
    """
    if len(scales) == 1:
        sizes = {"batch_size": batch_size, "token_budget": token_budget}
        return [batch_size_at(scales[0], **sizes, num_sample=num_sample)]
    if token_budget is not None:
        tokens = sum(scale.num_tokens for scale in scales)
        return [_whole_units(token_budget // tokens, max(unit, num_sample))] * len(scales)
    shares = range(len(scales))
    return [len(share_of(batch_size, rank=g, world_size=len(scales), unit=unit)) for g in shares]


def share_of(num_clips: int, *, rank: int, world_size: int, unit: int = 1) -> range:
    """The places of a step's clips that a rank loads and computes: contiguous, no `unit` of neighbours parted,
    sizes differing by at most one unit."""
    units = -(-num_clips // unit)
    first, last = (units * r // world_size * unit for r in (rank, rank + 1))
    return range(min(first, num_clips), min(last, num_clips))


def shares_of(sizes: Sequence[int], *, rank: int, world_size: int, unit: int = 1) -> list[range]:
    """The places in a step of a rank's clips of every group; of one group, those of `share_of`.

    The step's units are cut over the ranks once, so that a rank has as many as `share_of` gives it of one group. Of
    each group shares differ by at most one unit, too, some may be empty; what is left over goes to the ranks that
    still lack most. Of `sizes` (clips of each group) the last alone may end with part of a unit.
    """
    ranks, places, first = range(world_size), [], 0
    counts = [-(-size // unit) for size in sizes]
    lacks = [len(share_of(sum(counts), rank=r, world_size=world_size)) for r in ranks]
    for size, count in zip(sizes, counts, strict=True):
        each, left = divmod(count, world_size)
        more = set(sorted(ranks, key=lambda r: -lacks[r])[:left])
        units = [each + (r in more) for r in ranks]
        lacks = [lack - taken for lack, taken in zip(lacks, units, strict=True)]
        cuts = [first + min(size, unit * sum(units[:r])) for r in (rank, rank + 1)]
        places.append(range(*cuts))
        first += size
    return places


class TrainingStep(NamedTuple):
    """What a step trains on: its scales and their samples, before any pixel is read."""

    step: int
    groups: list[tuple[Scale, list[int]]]
    """One in the paper's training."""

    @property
    def scale(self) -> Scale:
        """The first."""
        return self.groups[0][0]

    @property
    def indices(self) -> list[int]:
        """Those of all groups."""
        return [index for _, indices in self.groups for index in indices]


def training_steps(
    num_clips: int,
    *,
    variant,
    batch_size: int,
    seed: int,
    steps: int,
    start_step: int = 0,
    token_budget: int | None = None,
    shuffle: bool = True,
    scales_per_step: int = 1,
    scale_draw: str = "dealt",
    num_sample: int = 1,
    unit: int = 1,
) -> Iterator[TrainingStep]:
    """Yield steps `start_step` to `steps - 1`; every epoch is a permutation, a batch may reach into the next one.

    Without `shuffle` every epoch goes through the clips in their order. The clips of a step are cut into
    `scales_per_step` groups of a scale each (flexibility.scales_at), in whole `unit`s. `num_sample` clips side by side
    are of one video, and count once in an epoch; `batch_size` and `unit` are clips, multiples of it.
    A pure function of its arguments: with `start_step=k` it yields exactly what a run from 0 yields from step k on.
    ValueError when `start_step` is not one of the steps (or just past them: nothing is left to do).
    """
    if not 0 <= start_step <= steps:
        raise ValueError(f"start_step ({start_step}) must be between 0 and steps ({steps}).")
    if num_clips < 1:
        raise ValueError("there is no clip to train on; check the list of videos.")
    order: dict[int, torch.Tensor] = {}

    def sample(position: int) -> int:
        epoch, place = divmod(position, num_clips)
        if not shuffle:
            return place
        if epoch not in order:
            for past in [e for e in order if e < epoch - 1]:
                del order[past]
            order[epoch] = torch.randperm(num_clips, generator=generator_of(seed, ORDER, epoch))
        return int(order[epoch][place])

    if batch_size % num_sample and token_budget is None:
        raise ValueError(
            f"batch_size ({batch_size}) must be a multiple of num_sample ({num_sample}), the clips of a video."
        )
    position = first = 0  # in clips
    if token_budget is None:  # every step takes as many clips, so those before need no look
        position, first = start_step * batch_size, start_step
    for step in range(first, steps):
        scales = scales_at(variant, seed=seed, step=step, groups=scales_per_step, draw=scale_draw)
        sizes = group_sizes(
            scales,
            batch_size=batch_size,
            token_budget=token_budget,
            unit=unit,
            num_sample=num_sample,
        )
        if step >= start_step:
            places = accumulate(sizes, initial=position)
            yield TrainingStep(
                step,
                [
                    (scale, [sample((first + i) // num_sample) for i in range(size)])
                    for scale, size, first in zip(scales, sizes, places, strict=False)
                ],
            )
        position += sum(sizes)
