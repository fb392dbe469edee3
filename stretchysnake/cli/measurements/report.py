"""`stretchysnake report`: one HTML page from measured rows, and its tables and figures as files."""

from dataclasses import dataclass, replace
from pathlib import Path

from stretchysnake.cli.options import parsed

EXAMPLES = (
    "stretchysnake report runs/a/rows.jsonl runs/b/rows.jsonl --out report.html --tables tables/"
)


@dataclass(frozen=True, kw_only=True)
class ReportRun:
    """One self-contained HTML page from rows."""

    out: str = "report.html"
    tables: str | None = None
    """Folder for every table as Markdown and CSV and every figure as SVG and PNG; null writes none."""
    pictures: str | None = None
    """Folder that `stretchysnake visualize` wrote; its pictures are shown on the page."""
    context: str | None = None
    """context.json of a study: suites, trainings and the commands that measured the rows."""


def run(argv: list[str]) -> int:
    run, paths = parsed("report", ReportRun, EXAMPLES, argv, paths="files of rows")
    from stretchysnake.report.figures.gallery import pictures_of
    from stretchysnake.report.pages.context import ReportContext, read_context, read_pictures
    from stretchysnake.report.pages.export import write_tables
    from stretchysnake.report.pages.page import write_page
    from stretchysnake.report.tables.grids import render_text
    from stretchysnake.results.rows import environment, read_rows

    rows = [row for path in paths for row in read_rows(path)]
    if not rows:
        raise ValueError(
            f"rows ({', '.join(paths)}) hold no measured number; run stretchysnake evaluate first"
        )
    options = [f"--{name} {value}" for name, value in vars(run).items() if value is not None]
    command = " ".join(["stretchysnake report", *paths, *options])
    given = read_pictures(run.pictures) if run.pictures else []
    context = ReportContext(versions=environment())
    if run.context:
        context = read_context(run.context)
    context = replace(
        context,
        commands=[*context.commands, command],
        pictures=[*context.pictures, *given],
    )
    pictures = pictures_of(rows, context)  # once for page and files
    write_page(run.out, rows, context, pictures)
    print(render_text(rows))
    if run.tables:
        written = write_tables(run.tables, rows, context, pictures)
        print(f"tables and figures: {len(written)} files, {Path(run.tables) / 'README.md'}")
    print(f"report: {run.out}")
    return 0
