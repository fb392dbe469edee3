"""Does a plan keep its promise? The cost of the chosen cell measured again, its accuracy on queries it never saw.

    python benchmarks/plan.py --weights W --rows rows.jsonl [--trials 100] [--out benchmarks/results/plan.json]

Time: after one calibration, budgets are drawn between the cheapest and the dearest cell, and each chosen cell is timed
anew; kept when the 90th percentile of 20 passes is within the budget. Wall time depends on what else the machine does
from minute to minute, so the same is done with the process's own processor time. Memory the same, FLOPs by counting.
Accuracy: the rows must hold which queries were right (`correct`). Queries are split at random; the cell is chosen on
one half and judged on the other, beside the cell that is best there. That one is picked with the answers in hand and so
is flattered by chance: the regret is an upper bound.
"""

import argparse
import json
import os
import random
import statistics
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.sweeps import cost
from stretchysnake.eval.sweeps.cost import count_flops, measure_peak_bytes, measure_times
from stretchysnake.flexibility import eval_scale
from stretchysnake.results.comparison import unpack_correct
from stretchysnake.results.intervals import wilson_interval
from stretchysnake.results.rows import environment, latest, read_rows, select
from stretchysnake.search.accuracy_estimate import estimated
from stretchysnake.search.budget import Budget
from stretchysnake.search.plan import choose, plan

PASSES = 20


def cost_trials(weights: str, made, kind: str, trials: int, rng: random.Random) -> dict:
    """How often the chosen cell, measured anew, is within the budget."""
    model, variant, _ = read_subject(weights)
    fixed = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    low, high = (pick(cell.cost(kind) for cell in made.cells) for pick in (min, max))
    kept, used = 0, []
    for _ in range(trials):
        budget = Budget(kind, rng.uniform(low, 1.1 * high))
        cell, _ = choose(made.cells, budget)
        scale = eval_scale(variant, num_frames=cell.num_frames, size=cell.size)
        if kind == "milliseconds":
            used_now = float(np.quantile(measure_times(model, scale, repeats=PASSES), 0.9))
        elif kind == "mebibytes":
            used_now = (fixed + measure_peak_bytes(model, scale)) / 2**20
        else:
            used_now = count_flops(model.config, scale) / 1e9
        kept += used_now <= budget.limit
        used.append(used_now / budget.limit)
    return {
        "trials": trials,
        "kept": kept / trials,
        "interval": wilson_interval(kept, trials),
        "cost_over_budget_median": statistics.median(used),
    }


def accuracy_trials(rows, made, trials: int, rng: np.random.Generator) -> dict:
    """Regret on held-out queries: of the cell chosen on the other half, against the best one there."""
    cells = {(row.num_frames, row.size): row for row in rows}
    right = {
        place: np.array(unpack_correct(row.correct, row.num_queries))
        for place, row in cells.items()
    }
    count = len(next(iter(right.values())))
    costs = sorted(cell.gflops for cell in made.cells)
    regrets, shares = [], []
    for _ in range(trials):
        order = rng.permutation(count)
        planning, held_out = order[: count // 2], order[count // 2 :]
        measured = {
            place: (float(flags[planning].mean()), len(planning)) for place, flags in right.items()
        }
        guesses = estimated(measured)
        seen = []
        for cell in made.cells:
            place = (cell.num_frames, cell.size)
            seen.append(replace(cell, accuracy=measured[place][0], estimate=guesses[place]))
        budget = Budget("gflops", float(rng.uniform(costs[0], costs[-1])))
        chosen, _ = choose(seen, budget)
        fitting = [cell for cell in seen if cell.gflops <= budget.limit]
        after = {
            cell: float(right[cell.num_frames, cell.size][held_out].mean()) for cell in fitting
        }
        regrets.append(max(after.values()) - after[chosen])
        shares.append(regrets[-1] <= 0.01 + 1e-9)
    return {
        "trials": trials,
        "planning_queries": count // 2,
        "held_out_queries": count - count // 2,
        "regret_mean": statistics.mean(regrets),
        "within_1_point": statistics.mean(shares),
        "regret_p90": float(np.quantile(regrets, 0.9)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--out", default="benchmarks/results/plan.json")
    run = parser.parse_args()
    rows = read_rows(run.rows)
    made = plan(run.weights, Budget("milliseconds", 1e9), rows, remeasure=True)
    rng = random.Random(0)
    found = {"environment": environment(), "cells": len(made.cells), "dataset": made.dataset}
    for kind in ("gflops", "mebibytes", "milliseconds"):
        found[kind] = cost_trials(run.weights, made, kind, run.trials, rng)
        print(kind, found[kind], flush=True)
    found["load_average"] = os.getloadavg()
    cost.time = SimpleNamespace(perf_counter=time.process_time)
    alone = plan(run.weights, Budget("milliseconds", 1e9), rows, remeasure=True)
    found["processor_milliseconds"] = cost_trials(
        run.weights, alone, "milliseconds", run.trials, rng
    )
    print("processor_milliseconds", found["processor_milliseconds"], flush=True)
    model, variant, metadata = read_subject(run.weights)
    del model
    of = select(rows, model=variant.name, metric="top1", status="ok", seed=metadata["seed"])
    found["accuracy"] = accuracy_trials(latest(of), made, 10 * run.trials, np.random.default_rng(0))
    print("accuracy", found["accuracy"])
    Path(run.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
