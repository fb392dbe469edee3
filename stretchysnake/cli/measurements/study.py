"""`stretchysnake study`: the paper's experiments on the built-in videos, and its Table 2 on the public ones."""

import time
from dataclasses import dataclass

from stretchysnake.cli.options import parsed
from stretchysnake.cli.progress import Progress
from stretchysnake.shown import shown_lines

EXAMPLES = (
    "stretchysnake study motion-digits --out runs/study\n"
    "  stretchysnake study motion-digits --dry-run\n"
    "  stretchysnake study motion-digits --quick --out runs/quick\n"
    "  stretchysnake study motion-digits --seeds [0] --steps 3000 --variants [vanilla,static_tokens]\n"
    "  stretchysnake study motion-digits --only [main,variants] --seeds [0,1,2,3,4]\n"
    "  stretchysnake study power runs/study/rows.jsonl         # seeds and queries that would settle its claims\n"
    "  stretchysnake study table2 --weights weights/ --data lists/ --out runs/table2\n"
    "  stretchysnake study report runs/study/rows.jsonl --out redrawn\n"
    "  stretchysnake study publish runs/study docs/results/motion-digits"
)
TABLE2_EXAMPLES = (
    "stretchysnake study table2                                          # what to put where\n"
    "  stretchysnake study table2 --weights weights/ --data lists/ --out runs/table2\n"
    "  stretchysnake study table2 --weights weights/ --data lists/ --systems [Hiera-B,AIM] --datasets [hmdb51]\n"
    "  stretchysnake study table2 --demo --out runs/demo                   # made weights and videos"
)
PUBLISHED_EXAMPLES = (
    "stretchysnake study report docs/results/motion-digits/rows.jsonl.gz --out redrawn\n"
    "  stretchysnake study publish runs/study docs/results/motion-digits"
)
POWER_EXAMPLES = "stretchysnake study power runs/study/rows.jsonl"
ACTIONS = ("motion-digits", "table2", "power", "report", "publish")
FLAGS = ("--quick", "--dry-run", "--demo")


def run(argv: list[str]) -> int:
    from stretchysnake.recipes.study.design import StudyRun, quick_study

    flags = {word: word in argv for word in FLAGS}
    argv = [word for word in argv if word not in flags]
    if argv and not argv[0].startswith("-"):
        if argv[0] not in ACTIONS:
            raise ValueError(f"study ({argv[0]}) must be one of: {', '.join(ACTIONS)}")
        what, *argv = argv
        if what in ("report", "publish"):
            return _published(what, [*argv, *(flag for flag, given in flags.items() if given)])
        if what == "table2":
            return _table2(argv, flags)
        if what == "power":
            return _power(argv, flags)
    elif not {"-h", "--help"} & set(argv):
        raise ValueError(f"study needs what to study first: stretchysnake study {ACTIONS[0]}")
    if flags["--demo"]:
        raise ValueError("--demo belongs to stretchysnake study table2")
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


@dataclass(frozen=True, kw_only=True)
class RedrawRun:
    """Every table and figure of a study, its page and summary, from its rows (.jsonl or .jsonl.gz), or its folder."""

    out: str = "runs/redrawn"


@dataclass(frozen=True, kw_only=True)
class PublishStudyRun:
    """A finished study (FOLDER) into a new folder (FOLDER), slim: page, pictures it shows, summary, rows compressed."""


def _published(what: str, argv: list[str]) -> int:
    from stretchysnake.recipes.study.publishing import publish, redraw

    rule = "ROWS, one file or folder" if what == "report" else "two folders: STUDY INTO"
    run_class = RedrawRun if what == "report" else PublishStudyRun
    run, given = parsed(f"study {what}", run_class, PUBLISHED_EXAMPLES, argv, paths=rule)
    if len(given) != (1 if what == "report" else 2):
        raise ValueError(f"study {what} ({' '.join(given)}) must name {rule}")
    lines = redraw(given[0], run.out) if what == "report" else publish(*given)
    print(*lines, f"report: {run.out if what == 'report' else given[1]}/report.html", sep="\n")
    return 0


@dataclass(frozen=True, kw_only=True)
class PowerRun:
    """How many seeds and queries would settle the claims of a study, from the scatter in its rows."""


def _power(argv: list[str], flags: dict[str, bool]) -> int:
    if given := [flag for flag, is_given in flags.items() if is_given]:
        raise ValueError(
            f"study power reads rows and measures nothing; leave out {' and '.join(given)}"
        )
    _, paths = parsed("study power", PowerRun, POWER_EXAMPLES, argv, paths="files of rows")
    from stretchysnake.report.tables.study.power_table import power_table
    from stretchysnake.results.rows import read_rows

    print(power_table([row for path in paths for row in read_rows(path)]).to_text())
    return 0


def _table2(argv: list[str], flags: dict[str, bool]) -> int:
    from stretchysnake.recipes.table2.table2 import Table2Run, plan, table2

    if flags["--quick"]:
        raise ValueError("--quick belongs to stretchysnake study motion-digits; table2 has --demo")
    run, _ = parsed("study table2", Table2Run, TABLE2_EXAMPLES, argv)
    options = {}
    progress = Progress()
    if flags["--demo"] and not flags["--dry-run"]:
        from stretchysnake.recipes.table2.demo import make

        run, options["systems"] = make(run, progress=progress)
        options["made"] = True
    elif flags["--dry-run"] or None in (run.weights, run.data):
        print("\n".join(plan(run)))
        return 0
    result = table2(run, **options, progress=progress)
    progress.close()
    print(result.table.to_text())
    for line in [*result.troubles, *result.missing]:
        print(shown_lines(line))
    print(f"table: {run.out}/table2.md   rows: {run.out}/rows.jsonl")
    return 1 if result.troubles else 0
