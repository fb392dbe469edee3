"""How many steps a run takes: of its list and its fields alone, never of what can be read today."""

import math

from stretchysnake.data.clips.loader import batch_size_at
from stretchysnake.flexibility import Scale, scale_at
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
        scale = scale_at(run.bound_variant, seed=run.seed, step=step)
        seen += batch_size_at(scale, batch_size=run.batch_size, token_budget=run.token_budget)
        step += 1
    return step


def drawn_scales(run: TrainRun, steps: int) -> list[Scale]:
    """Every scale of the first steps of a run, each once; 4000 steps see what the longest sets hold."""
    drawn = (
        scale_at(run.bound_variant, seed=run.seed, step=step) for step in range(min(steps, 4000))
    )
    return list(dict.fromkeys(drawn))
