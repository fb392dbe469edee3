"""The --budget of a verb: the scale of its model that fits."""

import sys

from stretchysnake.cli.progress import Progress
from stretchysnake.eval.features.placement import Placement


def within_budget(
    weights: str,
    budget: str,
    rows: str | None,
    given: tuple,
    progress: Progress,
    placement: Placement,
) -> tuple[int, int]:
    """(T, S) for the --budget of another verb; says which and why.

    `given` is what --frames and --size hold; times and memory are measured at `placement`.
    """
    if any(value is not None for value in given):
        raise ValueError(
            f"budget ({budget}) chooses the frames and the size; give either it or frames and size"
        )
    from stretchysnake.search.budget_plan import planned_scale

    made = planned_scale(weights, budget, rows, placement=placement, progress=progress)
    progress.close()
    print(made.reason, file=sys.stderr)
    return made.choice.num_frames, made.choice.size
