"""`stretchysnake train`: train a model on a list or a folder of videos, or go on with a training."""

import os
from pathlib import Path

from stretchysnake.cli.options import parsed, tell_passed_over
from stretchysnake.cli.progress import Progress

EXAMPLES = (
    "stretchysnake train --data clips.csv --out runs/mine --variant static_tokens --steps 2000\n"
    "  stretchysnake train --data clips/ --out runs/mine --print_config > run.yaml\n"
    "  stretchysnake train --config run.yaml --optim.lr 0.001\n"
    "  stretchysnake train --data clips.csv --out runs/hiera --model hiera-base --model.drop_path 0.1\n"
    "  stretchysnake train pretrain_static_tokens --data k400.csv --out runs/k400 --dry-run\n"
    "  stretchysnake train --resume runs/mine\n"
    "  stretchysnake train --resume runs/mine --data /new/place/clips.csv\n"
    "  torchrun --nproc-per-node 4 -m stretchysnake.cli train --config run.yaml"
)
FLAGS = ("--resume", "--dry-run")
"""What `run` takes beside the fields of a TrainRun."""


def run(argv: list[str]) -> int:
    from stretchysnake.eval.unused_fields import refuse_unused
    from stretchysnake.train.run import TrainRun

    argv, dry = [word for word in argv if word != "--dry-run"], "--dry-run" in argv
    if "--resume" in argv:
        from stretchysnake.train.checkpoints.outputs import started_run

        run = started_run(**resumed(argv))
    else:
        defaults = None
        if argv and not argv[0].startswith("-"):
            from stretchysnake.recipes.named import recipe_named

            defaults = recipe_named(argv.pop(0))
        run, _ = parsed("train", TrainRun, EXAMPLES, argv, defaults=defaults)
        refuse_unused(run, "cache", "cache_frames", "cache_size", "verify_cache")
        refuse_unused(run, "held_out", "held_out_every")
    from stretchysnake.data.processes.nursery import nursery
    from stretchysnake.ranks import open_runtime, torchrun_ranks

    ranks = torchrun_ranks(os.environ)
    with nursery(), open_runtime(**ranks, longest_wait=run.rank_timeout) as runtime:
        if dry:
            from stretchysnake.train.dry_run import dry_run

            print("\n".join(dry_run(run, runtime=runtime)))
            return 0
        from stretchysnake.cli.progress import ProgressBar, bar_is_possible
        from stretchysnake.train.loop import train

        progress = ProgressBar() if bar_is_possible() else Progress()
        try:
            result = train(run, progress=progress if runtime.is_first else None, runtime=runtime)
        finally:
            progress.close()
        if runtime.is_first:
            from stretchysnake.report.figures.training_log import write_training_log

            page = Path(run.out) / "log.html"
            if not page.exists():  # a finished run is left as it is
                write_training_log(Path(run.out))
            print(
                f"loss {result.final_loss:.3f} after {len(result.losses)} steps, {result.clips} clips, "
                f"{result.seconds:.0f} s\nweights: {result.weights}\nloss curve: {page}"
            )
            tell_passed_over([run.data], classes=True)
    return 0


def resumed(argv: list[str]) -> dict:
    """What `--resume RUN` says: the folder, and where data, weights or cache were moved to."""
    words = [part for word in argv for part in (word.split("=", 1) if word[:2] == "--" else [word])]
    names = {"--resume": "out", "--data": "data", "--weights": "weights", "--cache": "cache"}
    options, values = words[::2], words[1::2]
    if len(options) != len(values) or {*options} - {*names} or len({*options}) < len(options):
        raise ValueError(
            "--resume takes the folder of a started training and nothing else, but --data, --weights and --cache "
            "where these were moved; a run with other settings is a new run in another folder"
        )
    found = {names[option]: value for option, value in zip(options, values, strict=True)}
    return {**found, "out": Path(found["out"])}
