"""`stretchysnake report`: one HTML page from measured rows."""

from dataclasses import dataclass

from stretchysnake.command_line import parsed

EXAMPLES = "stretchysnake report runs/a/rows.jsonl runs/b/rows.jsonl --out report.html"


@dataclass(frozen=True, kw_only=True)
class ReportRun:
    """One self-contained HTML page from rows."""

    out: str = "report.html"


def run(argv: list[str]) -> int:
    run, paths = parsed("report", ReportRun, EXAMPLES, argv, paths=True)
    from stretchysnake.report.context import ReportContext
    from stretchysnake.report.page import write_page
    from stretchysnake.report.tables import render_text
    from stretchysnake.results import environment, read_rows

    rows = [row for path in paths for row in read_rows(path)]
    if not rows:
        raise ValueError(
            f"rows ({', '.join(paths)}) hold no measured number; run stretchysnake evaluate first"
        )
    commands = ["stretchysnake report " + " ".join(paths) + f" --out {run.out}"]
    write_page(run.out, rows, ReportContext(commands=commands, versions=environment()))
    print(render_text(rows))
    print(f"report: {run.out}")
    return 0
