"""Does a step of several scales help? Nano models on MotionDigits, one to eight scales a step; writes rows and JSON.

    python benchmarks/scales_of_a_step.py --steps 1000 [--settings static_tokens/1,static_tokens/4] [--seeds 0,1,2]
        [--out runs/scales] [--rows docs/results/scales-per-step/rows.jsonl] [--json ...] [--minutes M]

A setting is `variant/k` or `variant/k/independent`: k groups of a step's 32 clips, each of a scale of its own, dealt
like cards or drawn anew. All settings of a seed see the same clips in the same order, as many steps and so as many
clips; tokens a step are the same on average. Retrieval top-1 over the 15 cells of the quickstart, on its three suites.
Resumable: finished trainings and cells are kept; --minutes stops before a training that would start later than that.
One thread by default (--threads), so that it runs beside other work; rows say which commit measured them.
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch

from stretchysnake.eval.sweeps.model_under_test import model_under_test
from stretchysnake.eval.sweeps.resumed_sweep import resumed_sweep
from stretchysnake.recipes.motion_digits import PREFIX, make_suites, nano_run
from stretchysnake.recipes.quickstart import QuickstartRun
from stretchysnake.recipes.study.stopwatch import Stopwatch
from stretchysnake.results.comparison import mean_difference
from stretchysnake.results.rows import environment, read_rows
from stretchysnake.train.loop import train
from stretchysnake.train.run import OptimConfig

SETTINGS = (
    "static_tokens/1",
    "vanilla/1",
    "static_tokens/4",
    "static_tokens/2",
    "static_tokens/8",
    "static_tokens/2/independent",
    "static_tokens/4/independent",
)


def name_of(setting: str, steps: int) -> str:
    """What the rows call a setting: budgets of different length are different models."""
    variant, k, *draw = setting.split("/")
    groups = "" if variant == "vanilla" else f" k={k}{' independent' if draw else ''}"
    return f"{variant}{groups}, {steps} steps"


def measure(setting: str, seed: int, args, suites, quick: QuickstartRun) -> dict:
    """Train one setting and seed, measure it in every cell; its seconds and tokens."""
    variant, k, *draw = setting.split("/")
    run = nano_run(
        variant,
        seed,
        out=Path(args.out) / f"{setting.replace('/', '-')}-seed{seed}-{args.steps}",
        data=suites.source,
        cache=suites.cache,
        steps=args.steps,
        batch_size=quick.batch_size,
        optim=quick.optim,
    )
    run = replace(run, scales_per_step=int(k), scale_draw=draw[0] if draw else "dealt")
    begun = time.process_time()
    result = train(run, progress=None)
    seconds = time.process_time() - begun
    tested = model_under_test(result.weights, name=name_of(setting, args.steps))
    for suite, clips in suites.clips.items():
        resumed_sweep(
            args.rows,
            tested,
            PREFIX + suite,
            lambda clips=clips: clips,
            [(t, s) for t in quick.frames for s in quick.sizes],
            belongs=suites.hold,
        )
    tokens = sum(s.num_tokens for step in range(run.steps) for s in run.scales_of(step))
    return {
        "setting": name_of(setting, args.steps),
        "seed": seed,
        "processor_seconds": round(seconds),
        "tokens_a_clip": round(tokens / run.steps / int(k), 1),
        "final_loss": result.final_loss,
    }


def differences(rows, names: list[str], baselines: list[str]) -> list[dict]:
    """Each setting minus each baseline, on each suite, away from vanilla's cell and at it, with 95 % intervals."""
    found = []
    for dataset in sorted({row.dataset for row in rows}):
        for a in names:
            for b in baselines:
                for cells in ("away", "native"):
                    gain = a != b and mean_difference(rows, a, b, dataset=dataset, cells=cells)
                    if gain:
                        interval = gain.interval
                        found.append(
                            {"suite": dataset, "a": a, "b": b, "cells": cells}
                            | {"mean_a": gain.mean_a, "mean_b": gain.mean_b, "mean": gain.mean}
                            | {"interval": None if interval is None else list(interval)}
                            | {"p": gain.p_value, "per_seed": gain.per_seed, "seeds": gain.seeds}
                        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", default="runs/scales")
    parser.add_argument("--rows", default="docs/results/scales-per-step/rows.jsonl")
    parser.add_argument("--json", default="benchmarks/results/scales_of_a_step.json")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    Path(args.rows).parent.mkdir(parents=True, exist_ok=True)

    given = {"optim": OptimConfig(lr=4e-3), "gallery_clips": 300, "query_clips": 300}
    begun, quick = time.time(), QuickstartRun(out=args.out, **given)
    suites = make_suites(quick, Stopwatch())
    settings, costs = args.settings.split(","), []
    for seed in map(int, args.seeds.split(",")):
        for setting in settings:
            if time.time() - begun > 60 * args.minutes:
                break
            costs.append(measure(setting, seed, args, suites, quick))
            print(json.dumps(costs[-1]), flush=True)
    rows = read_rows(args.rows)
    names = [name_of(setting, args.steps) for setting in settings]
    found = differences(rows, names, [n for n in names if "k=1" in n or "vanilla" in n])
    for one in found:
        low, high = one["interval"] or (float("nan"), float("nan"))
        print(
            f"{one['suite']:22} {one['cells']:7} {one['a']:>40} - {one['b']:40} "
            f"{100 * one['mean']:+6.1f} [{100 * low:+.1f}, {100 * high:+.1f}] over {len(one['seeds'])} seeds"
        )
    before = json.loads(Path(args.json).read_text()) if Path(args.json).exists() else {}
    kept = {k: v for k, v in before.get("steps", {}).items() if k != str(args.steps)}
    told = {"costs": costs, "differences": found}
    measured = {
        "environment": environment(),
        "machine": platform.processor(),
        "threads": args.threads,
    }
    Path(args.json).write_text(
        json.dumps(measured | {"steps": kept | {str(args.steps): told}}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
