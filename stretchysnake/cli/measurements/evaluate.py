"""`stretchysnake evaluate`: protocols over a grid of scales, one row per cell and metric."""

import os
from dataclasses import dataclass, replace

from stretchysnake.cli.budget import within_budget
from stretchysnake.cli.options import parsed, tell_passed_over
from stretchysnake.cli.progress import Progress
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun

EXAMPLES = (
    "stretchysnake evaluate --weights runs/mine/weights.safetensors --gallery train.csv "
    "--queries test.csv\n    --frames [8,16] --sizes [16,32,64] --out runs/mine/rows.jsonl\n"
    "  stretchysnake evaluate --config run.yaml --protocols [retrieval,probe] --metrics [top1,map,gallery_top1] "
    "--feature_cache features/\n"
    "  stretchysnake evaluate --weights runs/fine/weights.safetensors --gallery train.csv --queries test.csv "
    "--protocols [finetune] --num_views 4 --num_crops 3 --out rows.jsonl\n"
    "  torchrun --nproc-per-node 4 -m stretchysnake.cli evaluate --config run.yaml"
)


@dataclass(frozen=True, kw_only=True)
class BudgetChoice:
    """The cell chosen by what a clip may cost, instead of given."""

    budget: str | None = None
    """Instead of frames and sizes: what one clip may cost, e.g. "20 GFLOPs", "50 ms" or "2 GB"; needs rows."""
    rows: str | None = None
    """Rows measured before, on other queries, which tell the accuracy of every cell."""


def run(argv: list[str]) -> int:
    from stretchysnake.eval.features.bad_videos import incomplete

    (run, choice), _ = parsed("evaluate", (EvaluateRun, BudgetChoice), EXAMPLES, argv)
    from stretchysnake.eval.sweeps.evaluate import evaluate
    from stretchysnake.report.tables.grids import render_text

    progress = Progress()
    if choice.budget is not None:
        given = (run.frames, run.sizes)
        cell = within_budget(
            run.weights, choice.budget, choice.rows, given, progress, run.placement
        )
        run = replace(run, frames=[cell[0]], sizes=[cell[1]])
    elif choice.rows is not None:
        raise ValueError(
            f"rows ({choice.rows}) say which cell is best for a budget; give --budget too"
        )
    from stretchysnake.ranks import open_runtime, torchrun_ranks

    with open_runtime(**torchrun_ranks(os.environ), longest_wait=run.rank_timeout) as runtime:
        rows = evaluate(run, progress=progress if runtime.is_first else None, runtime=runtime)
        progress.close()
        if not runtime.is_first:
            return 0
        print(render_text(rows))
        print(f"rows: {run.out}")
        tell_passed_over([run.gallery, run.queries], classes=True)
    return 1 if run.on_error == "report" and incomplete(rows) else 0
