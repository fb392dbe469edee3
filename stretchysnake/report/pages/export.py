"""Every table as Markdown and CSV, every figure as SVG and PNG, and one Markdown page of them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from stretchysnake.report.figures.gallery import first_protocol_rows, pictures_of
from stretchysnake.report.figures.picture import Picture
from stretchysnake.report.file_names import file_name, told_apart
from stretchysnake.report.pages.context import ReportContext
from stretchysnake.report.tables.accuracy_table import accuracy_table
from stretchysnake.report.tables.cells import main_rows
from stretchysnake.report.tables.claims_tables import claims_grid, tables_of_claims
from stretchysnake.report.tables.grids import (
    further_tables,
    measured_tables,
    to_csv,
    to_markdown,
)
from stretchysnake.report.tables.headlines import claim, headlines, tiles
from stretchysnake.results.rows import Row, select
from stretchysnake.whole_file import write_whole


def write_tables(
    folder: str | Path,
    rows: Sequence[Row],
    context: ReportContext | None = None,
    pictures: dict[str, list[Picture]] | None = None,
) -> list[Path]:
    """Writes all tables and figures of the rows into a folder, with README.md showing them; returns the paths.

    The grids' CSV has a line for each cell at full precision; other tables' CSV is the table as printed.
    Each file is whole or not there. `pictures` are those of `pictures_of(rows, context)`, where the caller draws them
    elsewhere too. ValueError without rows.
    """
    context = context or ReportContext()
    folder = Path(folder)
    top1 = first_protocol_rows(rows)
    headline = headlines(top1)  # ValueError without rows, before anything is written
    pictures = pictures or pictures_of(rows, context)
    made = [p for kind in pictures.values() for p in kind]
    source = provenance(rows, context)
    texts: list[tuple[str, str, str]] = []  # file name, Markdown, CSV
    for protocol, metric, dataset in measured_tables(main_rows(rows)):
        grid = accuracy_table(
            select(main_rows(rows), protocol=protocol), dataset=dataset, metric=metric
        )
        name = file_name(f"table-1-{protocol}-{metric}-{dataset}", otherwise="table")
        heading = f"{protocol}: " + to_markdown(grid)
        texts.append((name, heading, to_csv(grid)))
    for table in [claims_grid(rows), *tables_of_claims(rows), *further_tables(rows)]:
        if table is None:
            continue
        texts.append((table.file_name, table.to_markdown(), table.to_csv()))
    paths = write_pictures(folder, made)
    names = told_apart(name for name, _, _ in texts)
    for name, (_, markdown, comma) in zip(names, texts, strict=True):
        paths += [folder / f"{name}.md", folder / f"{name}.csv"]
        write_whole(paths[-2], f"{markdown}\n{source}")
        write_whole(paths[-1], comma)
    lines = [f"# {context.title}", "", claim(headline), ""]
    lines += [f"- **{t.value}** {t.label}: {t.detail}" for t in tiles(headline)]
    lines += ["", source]
    for picture in made:
        lines += [f"![{picture.alt}]({picture.file_name}.png)", "", picture.caption, ""]
    for name, (_, markdown, _) in zip(names, texts, strict=True):
        lines += [markdown, f"[{name}.csv]({name}.csv)", ""]
    paths.append(folder / "README.md")
    write_whole(paths[-1], "\n".join(lines))
    return paths


def write_pictures(folder: str | Path, pictures: Iterable[Picture]) -> list[Path]:
    """Writes each picture as SVG and PNG under its name; returns the paths."""
    paths = []
    for picture in pictures:
        for ending, content in (("svg", picture.svg()), ("png", picture.png())):
            paths.append(Path(folder) / f"{picture.file_name}.{ending}")
            write_whole(paths[-1], content)
    return paths


def provenance(rows: Sequence[Row], context: ReportContext) -> str:
    """What every number of a table rests on: seeds, rows, commit, device, commands."""
    seeds = sorted({row.seed for row in rows})
    parts = [f"Seeds: {', '.join(map(str, seeds))}."]
    for name, values in (
        ("Runs", {row.run_id for row in rows}),
        ("Commit of the rows", {row.commit for row in rows}),
        ("Measured on", {row.device for row in rows}),
    ):
        if listed := sorted(values - {""}):
            parts.append(f"{name}: {', '.join(listed)}.")
    text = " ".join(parts) + "\n"
    if context.commands:
        text += "\nCommands:\n\n" + "".join(f"    {command}\n" for command in context.commands)
    return text
