"""`stretchysnake evaluate`: protocols over a grid of scales, one row per cell and metric."""

import os

from stretchysnake.command_line import Progress, parsed

EXAMPLES = (
    "stretchysnake evaluate --weights runs/mine/weights.safetensors --gallery train.csv "
    "--queries test.csv\n    --frames [8,16] --sizes [16,32,64] --out runs/mine/rows.jsonl\n"
    "  stretchysnake evaluate --config run.yaml --protocols [retrieval,probe] --metrics [top1,map,gallery_top1] "
    "--feature_cache features/\n"
    "  stretchysnake evaluate --weights runs/fine/weights.safetensors --gallery train.csv --queries test.csv "
    "--protocols [finetune] --num_views 4 --num_crops 3 --out rows.jsonl\n"
    "  torchrun --nproc-per-node 4 -m stretchysnake.cli evaluate --config run.yaml"
)


def run(argv: list[str]) -> int:
    from stretchysnake.eval.bad_videos import incomplete
    from stretchysnake.eval.run import EvaluateRun

    run, _ = parsed("evaluate", EvaluateRun, EXAMPLES, argv)
    from stretchysnake.eval.evaluate import evaluate
    from stretchysnake.report.tables import render_text

    ranks = {name: int(os.environ.get(name.upper(), 0)) for name in ("rank", "local_rank")}
    from stretchysnake.train.runtime import open_runtime

    with open_runtime(world_size=int(os.environ.get("WORLD_SIZE", 1)), **ranks) as runtime:
        progress = Progress()
        rows = evaluate(run, progress=progress if runtime.is_first else None, runtime=runtime)
        progress.close()
        if not runtime.is_first:
            return 0
        print(render_text(rows))
        print(f"rows: {run.out}")
    return 1 if run.on_error == "report" and incomplete(rows) else 0
