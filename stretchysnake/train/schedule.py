"""How many steps a run takes, and their scales: of its list and its fields alone, never of what can be read today."""

import math

from stretchysnake.data.clips.training_order import group_sizes
from stretchysnake.eval.features.shapes import check_fit
from stretchysnake.flexibility import Scale
from stretchysnake.train.run import TrainRun


def total_steps(run: TrainRun, num_clips: int) -> int:
    """run.steps, or as many as run.epochs passes over the listed videos take at the batch sizes the run will draw.

    A video drawn `num_sample` times into a step is passed once.
    """
    if run.epochs is None:
        return run.steps
    wanted = math.ceil(run.epochs * num_clips) * run.num_sample  # in clips
    if run.token_budget is None:
        return math.ceil(wanted / run.batch_size)
    step = seen = 0
    while seen < wanted:
        seen += sum(group_sizes(run.scales_of(step), **run.clips_of_a_step))
        step += 1
    return step


def drawn_scales(run: TrainRun, steps: int) -> list[Scale]:
    """Every scale of the first steps of a run, each once; 4000 steps see what the longest sets hold."""
    drawn = (scale for step in range(min(steps, 4000)) for scale in run.scales_of(step))
    return list(dict.fromkeys(drawn))


def check_drawn_scales(run: TrainRun, steps: int) -> None:
    """ValueError where the model cannot take a scale of the run, or the shapes that `fit` gives pictures at it."""
    check_fit(
        run.model,
        drawn_scales(run, steps),
        fit=run.fit,
        way_out="choose other sets (--sets.sizes, --sets.frames, ...) or another --variant",
    )
