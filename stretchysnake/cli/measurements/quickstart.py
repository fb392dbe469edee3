"""`stretchysnake quickstart`: make videos, train vanilla and static tokens, measure both, show a report."""

import time

from stretchysnake.cli.options import parsed
from stretchysnake.cli.progress import Progress

EXAMPLES = "stretchysnake quickstart --out runs/quickstart --steps 1500"


def run(argv: list[str]) -> int:
    from stretchysnake.recipes.quickstart import QuickstartRun, quickstart

    run, _ = parsed("quickstart", QuickstartRun, EXAMPLES, argv)
    progress, started = Progress(), time.perf_counter()
    report, headlines = quickstart(run, progress=progress)
    progress.close()
    for line in headlines:
        print(line)
    print(f"report: {report}   ({(time.perf_counter() - started) / 60:.1f} min)")
    return 0
