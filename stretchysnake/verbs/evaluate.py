"""`stretchysnake evaluate`: protocols over a grid of scales, one row per cell and metric."""

from stretchysnake.command_line import Progress, parsed

EXAMPLES = (
    "stretchysnake evaluate --weights runs/mine/weights.safetensors --gallery train.csv "
    "--queries test.csv\n    --frames [8,16] --sizes [16,32,64] --out runs/mine/rows.jsonl\n"
    "  stretchysnake evaluate --config run.yaml --protocols [retrieval,probe] --metrics [top1,map,gallery_top1] "
    "--feature_cache features/"
)


def run(argv: list[str]) -> int:
    from stretchysnake.eval.bad_videos import incomplete
    from stretchysnake.eval.run import EvaluateRun

    run, _ = parsed("evaluate", EvaluateRun, EXAMPLES, argv)
    from stretchysnake.eval.evaluate import evaluate
    from stretchysnake.report.tables import render_text

    progress = Progress()
    rows = evaluate(run, progress=progress)
    progress.close()
    print(render_text(rows))
    print(f"rows: {run.out}")
    return 1 if run.on_error == "report" and incomplete(rows) else 0
