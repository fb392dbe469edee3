"""`stretchysnake quickstart`: make videos, train vanilla and static tokens on from one model, measure, report."""

import time

from stretchysnake.cli.options import parsed
from stretchysnake.cli.progress import Progress

EXAMPLES = (
    "stretchysnake quickstart --out runs/quickstart --steps 1000\n"
    "  stretchysnake quickstart --start null --steps 2000   # both from scratch\n"
    "  stretchysnake quickstart --pretrained          # in a minute or two: nothing is trained"
)
FLAG = "--pretrained"


def run(argv: list[str]) -> int:
    from stretchysnake.recipes.quickstart import (
        QuickstartRun,
        pretrained_quickstart,
        quickstart,
    )

    words = without_flag(argv)
    defaults = None if words == argv else pretrained_quickstart()
    run, _ = parsed("quickstart", QuickstartRun, EXAMPLES, words, defaults=defaults)
    progress, started = Progress(), time.perf_counter()
    report, headlines = quickstart(run, progress=progress)
    progress.close()
    for line in headlines:
        print(line)
    print(f"report: {report}   ({(time.perf_counter() - started) / 60:.1f} min)")
    return 0


def without_flag(argv: list[str]) -> list[str]:
    """The words without `--pretrained`, alone or with `true`; other defaults then hold."""
    if FLAG not in argv:
        return [word for word in argv if word != f"{FLAG}=true"]
    place = argv.index(FLAG)
    value = argv[place + 1 : place + 2]
    if value == ["false"]:
        return argv
    return [*argv[:place], *argv[place + 1 + (value == ["true"]) :]]
