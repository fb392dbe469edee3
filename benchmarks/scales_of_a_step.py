"""Does a step of several scales help? Nano models on MotionDigits, one to eight scales a step; writes rows and JSON.

    python benchmarks/scales_of_a_step.py --steps 3000 [--settings static_tokens/1,static_tokens/4] [--seeds 0,1,2]
        [--out runs/study] [--rows runs/study/scales.jsonl] [--json ...] [--minutes M]
    python benchmarks/scales_of_a_step.py --from_start --steps 500

A setting is `variant/k` or `variant/k/independent`: k groups of a step's 32 clips, each of a scale of its own, dealt
like cards or drawn anew. All settings of a seed see the same clips in the same order, as many steps and so as many
clips; tokens a step are the same on average. From scratch, or (--from_start) going on from the vanilla of the seed
that `stretchysnake study motion-digits` trains, whose folder --out then is. Retrieval top-1 over the 15 cells of the
study, on its three suites, galleries and queries. Resumable: finished trainings and cells are kept, those of the study
among them where --rows is a copy of its rows; --minutes stops before a training that would start later than that. One
thread by default (--threads), so that it runs beside other work; rows say which commit measured them.
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch

from stretchysnake.cli.allocator import keep_freed_memory
from stretchysnake.eval.features.placement import Placement
from stretchysnake.eval.sweeps.model_under_test import model_under_test
from stretchysnake.eval.sweeps.resumed_sweep import resumed_sweep
from stretchysnake.recipes.motion_digits import PREFIX, make_suites, nano_run
from stretchysnake.recipes.study.design import StudyRun
from stretchysnake.recipes.study.stopwatch import Stopwatch
from stretchysnake.results.comparison import mean_difference
from stretchysnake.results.rows import environment, read_rows
from stretchysnake.train.loop import train
from stretchysnake.train.run import TrainRun

SETTINGS = (
    "static_tokens/1",
    "vanilla/1",
    "static_tokens/4",
    "static_tokens/2",
    "static_tokens/8",
    "static_tokens/2/independent",
    "static_tokens/4/independent",
)


def name_of(setting: str, steps: int, *, from_start: bool = False) -> str:
    """What the rows call a setting: another budget is another model; that of the study has its names."""
    variant, k, *draw = setting.split("/")
    groups = f" k={k}{' independent' if draw else ''}"
    if from_start and steps == StudyRun().steps:
        return variant if k == "1" else f"{variant}{groups}"
    name = variant if variant == "vanilla" else f"{variant}{groups}"
    return f"{name}, {steps} steps{' from a vanilla' if from_start else ''}"


def run_of(setting: str, seed: int, args, suites, study: StudyRun) -> TrainRun:
    """The training of one setting and seed. What goes on from a vanilla has the study's own folders."""
    variant, k, *draw = setting.split("/")
    several = f"-k{k}{'-independent' if draw else ''}" if int(k) > 1 else ""
    begun = "" if args.from_start else "scratch-"
    out = Path(args.out) / f"{begun}{variant}{several}-seed{seed}-{args.steps}"
    run = nano_run(
        variant,
        seed,
        out=out,
        data=suites.source,
        cache=suites.cache,
        steps=args.steps,
        batch_size=study.batch_size,
        optim=study.optim,
        device=args.device,
    )
    run = replace(run, scales_per_step=int(k), scale_draw=draw[0] if draw else "dealt")
    if args.from_start:
        start = Path(args.out) / f"start-seed{seed}-{study.start_steps}" / "weights.safetensors"
        run = replace(run, weights=str(start))
    return run


def measure(setting: str, seed: int, args, suites, study: StudyRun) -> dict:
    """Train one setting and seed, measure it in every cell of every suite; its cost."""
    run = run_of(setting, seed, args, suites, study)
    begun = time.process_time()
    result = train(run, progress=None)
    seconds = time.process_time() - begun
    tested = model_under_test(
        result.weights,
        name=name_of(setting, args.steps, from_start=args.from_start),
        placement=Placement(device=args.device),
    )
    steps = args.steps + (study.start_steps if args.from_start else 0)
    told = {"train_steps": steps, "train_clips": steps * study.batch_size}
    for suite, clips in suites.clips.items():
        resumed_sweep(
            args.rows,
            tested,
            PREFIX + suite,
            lambda clips=clips: clips,
            study.cells,
            belongs=suites.hold,
            finish=lambda row: replace(row, train_data=suites.source_key, **told),
        )
    tokens = sum(s.num_tokens for step in range(run.steps) for s in run.scales_of(step))
    return {
        "setting": tested.name,
        "seed": seed,
        "processor_seconds": round(seconds),
        "tokens_a_clip": round(tokens / run.steps / run.scales_per_step, 1),
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
    parser.add_argument("--out", default="runs/study")
    parser.add_argument("--from_start", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", default="runs/study/scales.jsonl")
    parser.add_argument("--json", default="benchmarks/results/scales_of_a_step.json")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as the command line does
    Path(args.rows).parent.mkdir(parents=True, exist_ok=True)

    begun, study = time.time(), StudyRun(out=args.out)
    suites = make_suites(study, Stopwatch(), source_test=study.source_test_clips)
    settings, costs = args.settings.split(","), []
    for seed in map(int, args.seeds.split(",")):
        for setting in settings:
            if time.time() - begun > 60 * args.minutes:
                break
            costs.append(measure(setting, seed, args, suites, study))
            print(json.dumps(costs[-1]), flush=True)
    rows = read_rows(args.rows)
    names = [name_of(setting, args.steps, from_start=args.from_start) for setting in settings]
    alone = [
        name for name, setting in zip(names, settings, strict=True) if setting.split("/")[1] == "1"
    ]
    found = differences(rows, names, alone)
    for one in found:
        low, high = one["interval"] or (float("nan"), float("nan"))
        print(
            f"{one['suite']:22} {one['cells']:7} {one['a']:>40} - {one['b']:40} "
            f"{100 * one['mean']:+6.1f} [{100 * low:+.1f}, {100 * high:+.1f}] over {len(one['seeds'])} seeds"
        )
    before = json.loads(Path(args.json).read_text()) if Path(args.json).exists() else {}
    budget = f"{args.steps}{' from a vanilla' if args.from_start else ''}"
    kept = {k: v for k, v in before.get("steps", {}).items() if k != budget}
    told = {"costs": costs, "differences": found}
    measured = {
        "environment": environment(),
        "machine": platform.processor(),
        "threads": args.threads,
    }
    Path(args.json).write_text(
        json.dumps(measured | {"steps": kept | {budget: told}}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
