"""How many steps a run takes: of its list and its fields alone, never of what can be read today."""

import math

from stretchysnake.data.clips.training_order import group_sizes
from stretchysnake.train.run import TrainRun


def total_steps(run: TrainRun, num_clips: int) -> int:
    """run.steps, or as many as run.epochs passes over the listed clips take at the batch sizes the run will draw."""
    if run.epochs is None:
        return run.steps
    wanted = math.ceil(run.epochs * num_clips)
    if run.token_budget is None:
        return math.ceil(wanted / run.batch_size)
    step = seen = 0
    while seen < wanted:
        sizes = {"batch_size": run.batch_size, "token_budget": run.token_budget}
        seen += sum(group_sizes(run.scales_of(step), **sizes))
        step += 1
    return step
