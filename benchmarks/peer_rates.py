"""Which learning rate do the study's nano peers need? Short trainings at vanilla's scale; writes JSON.

    python benchmarks/peer_rates.py [--steps 300] [--rates 5e-4,1e-3,2e-3,4e-3] [--seed 0] [--data FOLDER]
        [--models timesformer-nano,...] [--out runs/peer-rates] [--json benchmarks/results/peer_rates.json]

Each model and rate: a training from scratch on MotionDigits at the native scale (vanilla, T = 8, 32 px), with the
study's batch, warm-up and schedule; then the mean loss of the last 30 steps, and retrieval top-1 on the short suite in
the native cell. Resumable: finished trainings are kept. One thread by default, so that it runs beside other work.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch

from stretchysnake.eval.sweeps.model_under_test import model_under_test
from stretchysnake.eval.sweeps.sweep import sweep
from stretchysnake.recipes.motion_digits import MODEL, PREFIX, make_suites, nano_run
from stretchysnake.recipes.quickstart import QuickstartRun
from stretchysnake.recipes.study.design import StudyRun
from stretchysnake.recipes.study.stopwatch import Stopwatch
from stretchysnake.results.rows import environment
from stretchysnake.train.loop import train

LAST = 30
"""Steps whose mean loss is told: one step's is of one batch."""


def measure(model_name: str, rate: float, args, suites) -> dict:
    """One training, its last losses and its retrieval in the native cell of the short suite."""
    study = StudyRun()
    run = nano_run(
        "vanilla",
        args.seed,
        out=Path(args.out) / f"{model_name}-{rate:g}-seed{args.seed}-{args.steps}",
        data=suites.source,
        cache=suites.cache,
        steps=args.steps,
        batch_size=study.batch_size,
        optim=replace(study.optim, lr=rate),
        model_name=model_name,
    )
    begun = time.process_time()
    result = train(run, progress=None)
    seconds = time.process_time() - begun
    native = run.sets.native
    tested = model_under_test(result.weights, name=model_name)
    cell = [(native.num_frames, native.size)]
    (row,) = sweep(tested, PREFIX + "short", *suites.clips["short"], cell)
    return {
        "model": model_name,
        "lr": rate,
        "seed": args.seed,
        "steps": args.steps,
        "last_loss": round(mean(loss for _, loss in list(result.losses)[-LAST:]), 4),
        "short_native_top1": row.value,
        "processor_seconds": round(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", default="runs/peer-rates")
    parser.add_argument("--data", default=None)
    parser.add_argument("--json", default="benchmarks/results/peer_rates.json")
    parser.add_argument("--models", default=",".join([*StudyRun().peers, MODEL]))
    parser.add_argument("--rates", default="5e-4,1e-3,2e-3,4e-3")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    suites = make_suites(
        QuickstartRun(
            out=args.out, data=args.data, suites=("short",), gallery_clips=300, query_clips=300
        ),
        Stopwatch(),
    )
    path, keys = Path(args.json), ("model", "lr", "seed", "steps")
    before = json.loads(path.read_text())["trainings"] if path.exists() else []
    measured = {tuple(one[key] for key in keys): one for one in before}
    for rate in map(float, args.rates.split(",")):  # a stop leaves every model at the same rates
        for model_name in args.models.split(","):
            one = measure(model_name, rate, args, suites)
            measured[tuple(one[key] for key in keys)] = one
            print(json.dumps(one), flush=True)
            told = {"environment": environment(), "threads": args.threads}
            path.write_text(
                json.dumps(told | {"trainings": list(measured.values())}, indent=1) + "\n"
            )


if __name__ == "__main__":
    main()
