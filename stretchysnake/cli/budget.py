"""The --budget of a verb: the scale of its model that fits."""

import sys

from stretchysnake.cli.progress import Progress


def within_budget(
    weights: str, budget: str, rows: str | None, given: tuple, progress: Progress
) -> tuple[int, int]:
    """(T, S) for the --budget of another verb; says which and why. `given` is what --frames and --size hold."""
    if any(value is not None for value in given):
        raise ValueError(
            f"budget ({budget}) chooses the frames and the size; give either it or frames and size"
        )
    from stretchysnake.search.budget_plan import planned_scale

    made = planned_scale(weights, budget, rows, progress=progress)
    progress.close()
    print(made.reason, file=sys.stderr)
    return made.choice.num_frames, made.choice.size
