"""Which (T, S), and which precision, to use for a budget: cost and accuracy of every cell, the Pareto front, and the
best cell that fits.

Accuracy comes from the rows of a sweep. FLOPs are counted; times and memory are measured on this machine, once: they
are kept in a file (eval/sweeps/kept_costs.py). A time is the 90th percentile of the slowest of several rounds that take
turns among the cells, and must fit the budget with a quarter to spare: tomorrow's machine is never as idle as today's.
"""

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from stretchysnake.eval.features.extraction import model_hash
from stretchysnake.eval.features.narrow_products import narrow_bytes
from stretchysnake.eval.features.placed_model import device_name, device_of, precision_of
from stretchysnake.eval.features.placement import AUTO, Placement
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.sweeps.available_memory import available_memory
from stretchysnake.eval.sweeps.cost import (
    count_flops,
    estimate_memory,
    is_joined,
    measure_peak_bytes,
    measure_times,
)
from stretchysnake.eval.sweeps.kept_costs import keep_costs, read_costs
from stretchysnake.flexibility import Scale, eval_scale
from stretchysnake.models.backbone import Backbone
from stretchysnake.models.weights.published.named import weights_file
from stretchysnake.results.intervals import wilson_interval
from stretchysnake.results.rows import Row, latest, select
from stretchysnake.search.accuracy_estimate import estimated
from stretchysnake.search.budget import SHOWN, Budget
from stretchysnake.whole_file import sha256_of

TIME_MARGIN = 1.25
"""A time fits when it stays within the budget even this much slower."""
ROUNDS, REPEATS, CELL_SECONDS = 6, 8, 20
"""Times are taken in rounds over all cells, so that a busy second of the machine does not hit one cell alone; a cell
takes part in further rounds until that many seconds were spent on it."""


@dataclass(frozen=True, kw_only=True)
class PricedCell:
    """What one clip at (T, S) in a precision costs, and what it gives."""

    num_frames: int
    size: int
    gflops: float
    milliseconds: float
    """90th percentile, in the slowest round, of the forward pass of one clip; decoding is not in it."""
    mebibytes: float
    """Weights and the most that tensors hold at once; Python and torch themselves (some 250 MiB) are not in it."""
    accuracy: float
    """As measured."""
    estimate: float
    """What cells are compared by: the accuracy with less of the queries' luck (accuracy_estimate.py)."""
    num_queries: int
    precision: str = "fp32"

    def cost(self, kind: str) -> float:
        """What counts against a budget: a time with its margin, the others as they are."""
        return getattr(self, kind) * (TIME_MARGIN if kind == "milliseconds" else 1.0)

    def __str__(self) -> str:
        narrow = "" if self.precision == "fp32" else f" {self.precision}"
        return f"T={self.num_frames} S={self.size}{narrow}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells, cheapest first, those on the Pareto front, the chosen one and the reason."""

    budget: Budget
    objective: str
    dataset: str
    cells: list[PricedCell]
    front: list[PricedCell]
    choice: PricedCell
    reason: str
    notes: list[str]


def plan(
    weights: str | os.PathLike,
    budget: Budget,
    rows: Sequence[Row],
    *,
    objective: str = "accuracy",
    dataset: str | None = None,
    remeasure: bool = False,
    placement: Placement = AUTO,
    precisions: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """The cell of the largest estimated objective whose cost fits the budget; ties go to the cheaper one.

    rows are those of `evaluate` or the quickstart with these weights' variant; objective is "accuracy" (top1) or
    another metric among them. remeasure forgets the times kept from before, e.g. of a busy day. Times and
    memory are those of the device and precision of `placement`, on a GPU the memory of its allocator; rows of another
    precision are left out. With `precisions` each of them is priced so, by rows of its own, and the choice is among all
    cells. ValueError when no cell fits, or the rows leave open which data set is meant.
    """
    metric = "top1" if objective == "accuracy" else objective
    notes: list[str] = []
    cells: list[PricedCell] = []
    for precision in precisions or [placement.precision]:
        here = replace(placement, precision=precision)
        model, variant, metadata = read_subject(weights, here)
        own = _of_these_weights(_of_precision(rows, here), model, variant.name, notes)
        dataset, accuracies = _accuracies(own, metric, dataset, metadata.get("seed"), notes)
        estimates = estimated(accuracies)
        scales = {(t, s): eval_scale(variant, num_frames=t, size=s) for t, s in sorted(accuracies)}
        times, memory = _measured(model, scales, weights_file(weights), remeasure, notes, progress)
        fixed = sum(t.nbytes for t in model.state_dict().values()) + narrow_bytes(model)
        cells += [
            PricedCell(
                num_frames=t,
                size=s,
                gflops=count_flops(model.config, scale) / 1e9,
                milliseconds=times[t, s],
                mebibytes=(fixed + memory[t, s]) / 2**20,
                accuracy=accuracies[t, s][0],
                estimate=estimates[t, s],
                num_queries=accuracies[t, s][1],
                precision=precision,
            )
            for (t, s), scale in scales.items()
            if (t, s) in times
        ]
    notes = list(dict.fromkeys(notes))
    cells.sort(key=lambda cell: (cell.cost(budget.kind), -cell.estimate))
    choice, reason = choose(cells, budget)
    return Plan(
        budget=budget,
        objective=metric,
        dataset=dataset,
        cells=cells,
        front=pareto_front(cells, budget.kind),
        choice=choice,
        reason=reason,
        notes=notes,
    )


def pareto_front(cells: Sequence[PricedCell], kind: str) -> list[PricedCell]:
    """The cells than which no other is as cheap and better, or as good and cheaper; cheapest first."""
    front: list[PricedCell] = []
    for cell in sorted(cells, key=lambda cell: (cell.cost(kind), -cell.estimate)):
        if not front or cell.estimate > front[-1].estimate:
            front.append(cell)
    return front


def choose(cells: Sequence[PricedCell], budget: Budget) -> tuple[PricedCell, str]:
    """(the best cell that fits, why); ValueError when none does."""
    kind, unit = budget.kind, SHOWN[budget.kind]
    fitting = [cell for cell in cells if cell.cost(kind) <= budget.limit]
    if not fitting:
        least = min(cells, key=lambda cell: cell.cost(kind))
        raise ValueError(
            f"budget ({budget}) is below the cheapest cell measured ({least}: {least.cost(kind):.4g} {unit}); "
            "raise it, or measure smaller cells with evaluate"
        )
    best = min(fitting, key=lambda cell: (-cell.estimate, cell.cost(kind)))
    low, high = wilson_interval(best.accuracy * best.num_queries, best.num_queries)
    reason = (
        f"{best} is the most accurate of the {len(fitting)} of {len(cells)} cells within {budget}: "
        f"measured {100 * best.accuracy:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}) at "
        f"{best.cost(kind):.4g} {unit}"
    )
    lucky = max(fitting, key=lambda cell: cell.accuracy)
    if lucky.accuracy > best.accuracy:
        reason += (
            f"; {lucky} measured {100 * (lucky.accuracy - best.accuracy):.1f} points more, which its T and its S do "
            "not bear out in the other cells"
        )
    better = [cell for cell in cells if cell.estimate > best.estimate]
    if better:
        following = min(better, key=lambda cell: cell.cost(kind))
        reason += (
            f"; the next better one, {following} with {100 * following.accuracy:.1f} %, needs "
            f"{following.cost(kind):.4g} {unit}"
        )
    else:
        reason += "; no cell at any cost is better"
    return best, reason


def _of_precision(rows: Sequence[Row], placement: Placement) -> list[Row]:
    found = select(rows, precision=placement.precision)
    if rows and not found:
        others = ", ".join(sorted({row.precision for row in rows}))
        raise ValueError(
            f"rows hold no cell measured in precision {placement.precision}, only in: {others}; measure it with "
            f"stretchysnake evaluate --precision {placement.precision}, or plan with the precision of the rows"
        )
    return found


def _of_these_weights(
    rows: Sequence[Row], model: Backbone, variant: str, notes: list[str]
) -> list[Row]:
    """The rows measured with these very weights, whatever their name; else those of their variant, and a note."""
    of_weights = select(rows, weights=(model_hash(model), model_hash(model, head=True)))
    if of_weights:
        return of_weights
    of_variant = select(rows, model=variant)
    if not of_variant:
        names = ", ".join(sorted({row.model for row in rows})) or "none"
        raise ValueError(
            f"rows hold no cell of these weights' variant ({variant}), only of: {names}; make them with "
            "stretchysnake evaluate"
        )
    others = sorted({row.weights for row in of_variant if row.weights})
    if others:
        notes.append(
            f"accuracy is of other weights of this variant ({', '.join(others[:4])}), not of these"
        )
    return of_variant


def _accuracies(
    of_model: Sequence[Row], metric: str, dataset: str | None, seed, notes: list[str]
) -> tuple[str, dict[tuple[int, int], tuple[float, int]]]:
    """(data set, (T, S) -> (accuracy, queries)), over the weights' own seed where the rows have it."""
    chosen = select(of_model, metric=metric, status="ok")
    if not chosen:
        metrics = ", ".join(sorted({row.metric for row in of_model}))
        raise ValueError(f"objective ({metric}) must be a metric of the rows: accuracy, {metrics}")
    for field, value in (("dataset", dataset), ("protocol", None)):
        choices = sorted({getattr(row, field) for row in chosen})
        if value is None and field == "protocol" and "retrieval" in choices:
            value = "retrieval"
        if value is None and len(choices) > 1:
            raise ValueError(
                f"{field} must be one of: {', '.join(choices)}; the rows hold all of them"
            )
        if value is not None and value not in choices:
            raise ValueError(f"{field} ({value}) must be one of: {', '.join(choices)}")
        chosen = select(chosen, **{field: value or choices[0]})
    chosen = latest(chosen)
    seeds = sorted({row.seed for row in chosen})
    if len(seeds) > 1:
        if seed in seeds:
            chosen = select(chosen, seed=seed)
        else:
            notes.append(f"accuracy is the mean over seeds {', '.join(map(str, seeds))}")
    cells: dict[tuple[int, int], list[Row]] = {}
    for row in chosen:
        cells.setdefault((row.num_frames, row.size), []).append(row)
    return chosen[0].dataset, {
        place: (sum(row.value for row in of) / len(of), sum(row.num_queries for row in of))
        for place, of in cells.items()
    }


def _measured(
    model: Backbone,
    scales: dict[tuple[int, int], Scale],
    weights: Path,
    remeasure: bool,
    notes: list[str],
    progress: Callable[[str], None] | None,
) -> tuple[dict, dict]:
    """(T, S) -> ms at the 90th percentile, and -> bytes; kept for this machine (kept_costs.py)."""
    device, precision = device_of(model), precision_of(model)
    # kept ones of before are fp32; 2: others natively on a CPU
    how = [ROUNDS, REPEATS] + [precision, 2] * (precision != "fp32")
    key = json.dumps([sha256_of(weights), _machine(device), *how])
    held = {} if remeasure else read_costs(weights, key)
    names = {
        place: f"{scale.num_frames}x{scale.size}x{scale.patch_size}"
        for place, scale in scales.items()
    }
    missing = {}
    for place, scale in scales.items():
        needed = estimate_memory(model.config, scale, batch_size=1, joined=is_joined(model))
        if needed > available_memory(device):
            where = "this machine's memory" if device.type == "cpu" else f"the memory of {device}"
            notes.append(f"T={place[0]} S={place[1]} does not fit in {where}")
        elif names[place] not in held:
            missing[place] = scale
    rounds: dict[tuple[int, int], list[list[float]]] = {place: [] for place in missing}
    for turn in range(ROUNDS if missing else 0):
        for place, scale in missing.items():
            if sum(map(sum, rounds[place])) > 1e3 * CELL_SECONDS:
                continue
            if progress:
                progress(
                    f"measuring times, round {turn + 1} of {ROUNDS}: T={place[0]} S={place[1]}"
                )
            rounds[place].append(measure_times(model, scale, repeats=REPEATS))
    for place, scale in missing.items():
        percentile = max(sorted(times)[int(0.9 * len(times))] for times in rounds[place])
        held[names[place]] = {"milliseconds": percentile, "bytes": measure_peak_bytes(model, scale)}
    if missing:
        try:
            keep_costs(weights, key, held)
        except OSError as error:
            notes.append(f"times are not kept: {error.filename}: {error.strerror}")
    costs = {place: held[name] for place, name in names.items() if name in held}
    return (
        {place: one["milliseconds"] for place, one in costs.items()},
        {place: one["bytes"] for place, one in costs.items()},
    )


def _machine(device: torch.device) -> list:
    """What times depend on beside the model."""
    name = device_name(device) or platform.processor()
    return [platform.node(), name, torch.get_num_threads(), torch.__version__]


def plan_json(made: Plan) -> str:
    """The plan as JSON text."""
    return json.dumps(asdict(made), indent=1)
