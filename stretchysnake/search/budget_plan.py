"""A plan from what a user has: rows measured before, or lists to measure them with."""

from collections.abc import Callable

from stretchysnake.eval.features.placement import AUTO, ON_CPU, Placement
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.flexibility import Variant
from stretchysnake.results.rows import read_rows
from stretchysnake.search.budget import parse_budget
from stretchysnake.search.plan import Plan, plan


def plan_for(
    run, *, placement: Placement = AUTO, progress: Callable[[str], None] | None = None
) -> Plan:
    """The plan of a PlanRun for the device and precision of `placement`, or for each of the run's precisions.

    Cells without rows are measured with its gallery and queries first.
    """
    budget = parse_budget(run.budget)
    if (run.gallery is None) != (run.queries is None):
        raise ValueError("gallery and queries must be given together, or neither")
    if run.gallery is None:
        if run.rows is None:
            raise ValueError(
                "rows (null) must name rows of stretchysnake evaluate; or give gallery and queries to measure them"
            )
        rows = read_rows(run.rows)
    else:
        _, variant, _ = read_subject(run.weights, ON_CPU)  # of its scales alone
        frames, sizes = trained_cells(variant)
        asked = [
            EvaluateRun(
                weights=run.weights,
                gallery=run.gallery,
                queries=run.queries,
                out=run.rows or "plan-rows.jsonl",
                frames=frames if run.frames is None else run.frames,
                sizes=sizes if run.sizes is None else run.sizes,
                metrics=["top1"] if run.objective == "accuracy" else [run.objective],
                device=placement.device,
                precision=precision,
                num_workers=run.num_workers,
                timeout_seconds=run.timeout_seconds,
                batch_size=run.batch_size,
            )
            for precision in run.precisions or [placement.precision]
        ]
        rows = [row for one in asked for row in evaluate(one, progress=progress)]
    return plan(
        run.weights,
        budget,
        rows,
        objective=run.objective,
        dataset=run.dataset,
        remeasure=run.remeasure,
        placement=placement,
        precisions=run.precisions,
        progress=progress,
    )


def planned_scale(
    weights: str,
    budget: str,
    rows: str | None,
    *,
    placement: Placement = AUTO,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """The plan behind `--budget` of another verb, from the rows given there."""
    limit = parse_budget(budget)
    if rows is None:
        raise ValueError(
            f"budget ({budget}) needs --rows, the rows of stretchysnake evaluate, to know which scale is best"
        )
    return plan(weights, limit, read_rows(rows), placement=placement, progress=progress)


def trained_cells(variant: Variant) -> tuple[list[int], list[int]]:
    """The T and the S that a variant is trained on; what it cannot be tested at is left out."""
    sets = variant.sets
    frames = [sets.native.num_frames] if variant.name == "vanilla" else list(sets.frames)
    if variant.name == "static_tokens":
        return frames, list(sets.sizes)
    fixed = [sets.native.size]
    sizes = fixed if variant.name in ("vanilla", "temporal") else list(sets.sizes)
    return frames, [size for size in sizes if size % sets.native.patch_size == 0] or fixed
