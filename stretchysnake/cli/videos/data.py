"""`stretchysnake data`: public benchmarks' lists, and a verdict per video."""

from stretchysnake.cli.options import VIDEOS, parsed
from stretchysnake.cli.progress import Progress
from stretchysnake.shown import shown

EXAMPLES = (
    "stretchysnake data check clips/ --report check.json --clean clean.csv\n"
    "  stretchysnake data info hmdb51 /data/hmdb51 --split 2 --missing missing.txt\n"
    "  stretchysnake data list ucf101 /data/ucf101 --subset test --split 1 --out test.csv\n"
    "  stretchysnake data list lvu /data/lvu --task scene --out scene.csv"
)

ACTIONS = ("info", "list", "check")


def run(argv: list[str]) -> int:
    verbs = {"info": _benchmark, "list": _benchmark, "check": _check}
    if argv[:1] in (["-h"], ["--help"]):
        print(f"usage: stretchysnake data {{{','.join(verbs)}}} ...\n\nexample:\n  {EXAMPLES}")
        raise SystemExit(0)
    if not argv or argv[0] not in verbs:
        found = f"({argv[0]})" if argv else "is not given and"
        raise ValueError(f"data action {found} must be one of: {', '.join(verbs)}")
    return verbs[argv[0]](argv)


def _benchmark(argv: list[str]) -> int:
    from stretchysnake.data.benchmarks.list_and_info import (
        DataInfoRun,
        DataListRun,
        data_info,
        data_list,
    )

    run_class, act = {"info": (DataInfoRun, data_info), "list": (DataListRun, data_list)}[argv[0]]
    run, given = parsed(f"data {argv[0]}", run_class, EXAMPLES, argv[1:], paths="BENCHMARK FOLDER")
    if len(given) != 2:
        raise ValueError(f"data {argv[0]} ({' '.join(given)}) must name a benchmark and its folder")
    code, lines = act(run, *given)
    print(*map(shown, lines), sep="\n")
    return code


def _check(argv: list[str]) -> int:
    from stretchysnake.data.decoding.audit import CheckRun, check
    from stretchysnake.data.decoding.verdicts import render_audit

    run, paths = parsed("data check", CheckRun, EXAMPLES, argv[1:], paths=VIDEOS)
    progress = Progress()
    audit = check(paths, run, progress=progress)
    progress.close()
    for name, path in (("report", run.report), ("clean list", run.clean)):
        if path:
            print(f"{name}: {shown(path)}")
    print(render_audit(audit))
    return 0 if audit.sound else 1
