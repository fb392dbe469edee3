"""`stretchysnake study`: the paper's experiments on a benchmark, from videos to a report."""

import time

from stretchysnake.cli.options import parsed
from stretchysnake.cli.progress import Progress

EXAMPLES = (
    "stretchysnake study motion-digits --out runs/study\n"
    "  stretchysnake study motion-digits --dry-run\n"
    "  stretchysnake study motion-digits --quick --out runs/quick\n"
    "  stretchysnake study motion-digits --seeds [0] --steps 3000 --variants [vanilla,static_tokens]"
)
BENCHMARKS = ("motion-digits",)
FLAGS = ("--quick", "--dry-run")


def run(argv: list[str]) -> int:
    from stretchysnake.recipes.study.design import StudyRun, quick_study

    flags = {word: word in argv for word in FLAGS}
    argv = [word for word in argv if word not in flags]
    if argv and not argv[0].startswith("-"):
        if argv[0] not in BENCHMARKS:
            raise ValueError(f"benchmark ({argv[0]}) must be one of: {', '.join(BENCHMARKS)}")
        argv = argv[1:]
    elif not {"-h", "--help"} & set(argv):
        raise ValueError(f"study needs a benchmark first: stretchysnake study {BENCHMARKS[0]}")
    defaults = quick_study() if flags["--quick"] else None
    run, _ = parsed("study", StudyRun, EXAMPLES, argv, defaults=defaults)
    if flags["--dry-run"]:
        from stretchysnake.recipes.study.cost import study_cost

        print("\n".join(study_cost(run)))
        return 0
    from stretchysnake.recipes.study.study import study

    progress, started = Progress(), time.perf_counter()
    report, lines = study(run, progress=progress)
    progress.close()
    for line in lines:
        print(line)
    print(f"summary: {run.out}/summary.md")
    print(f"report: {report}   ({(time.perf_counter() - started) / 60:.1f} min)")
    return 0
