"""What a study leaves behind: tables, figures, one HTML page, and a summary that says what holds and what does not."""

from dataclasses import asdict
from pathlib import Path

from stretchysnake.recipes.motion_digits import PREFIX, Suites, suite_infos, training_info
from stretchysnake.recipes.stopwatch import Stopwatch
from stretchysnake.recipes.study_plan import StudyRun


def write_study(
    run: StudyRun, suites: Suites, trained: list, main: list, other: list, watch: Stopwatch
) -> tuple[str, list[str]]:
    """Write report.html, summary.md, claims.csv, tables/ and figures/ under run.out; (path of the page, summary lines).

    `main` are the rows of all methods, `other` those of vanilla trained at another T.
    """
    from stretchysnake.report.claims import claims, claims_in_words, claims_table, order_table
    from stretchysnake.report.context import ReportContext, write_context
    from stretchysnake.report.headlines import claim, headlines
    from stretchysnake.report.page import write_overview_png, write_page
    from stretchysnake.results import environment, select
    from stretchysnake.whole_file import write_whole

    out = Path(run.out)
    found = claims(main, other_vanillas=other)
    retrieval = select(main, protocol="retrieval", metric="top1")
    orders = [order_table(main, dataset=PREFIX + suite) for suite in suites.clips]
    words = [claim(headlines(retrieval)), *claims_in_words(found)]
    training = [
        training_info(
            t.run, result, model=t.method if t.is_main else f"{t.method} T={t.num_frames}"
        )
        for t, result in trained
    ]
    context = ReportContext(
        title="The paper's experiments on MotionDigits",
        summary=" ".join(words),
        suites=suite_infos(suites, out=out),
        training=training,
        commands=[command_of(run)],
        seeds=run.seeds,
        versions=environment(),
        timings=watch.seconds,
        settings=asdict(run),
        notes=notes(run),
    )
    # MERGE, pictures that need models (recipes/visualize.py), into `context.pictures` before the page is written:
    #   subjects = {t.method: result.weights for t, result in trained if t.is_main and t.seed == run.seeds[0]
    #               and t.method in TRANSFERRED}
    #   for gallery, queries in suites.clips.values():
    #       write_feature_maps(out / "pictures", subjects, queries.records, run.sizes, ...)
    #       write_activation_maps(out / "pictures", subjects, [r.path for r in queries.records[:2]], run.sizes, ...)
    written = _tables(out / "tables", main)
    for table, name in [
        (claims_table(found), "claims"),
        *zip(orders, (f"order-{s}" for s in suites.clips), strict=True),
    ]:
        write_whole(out / "tables" / f"{name}.md", table.to_markdown())
        write_whole(out / "tables" / f"{name}.csv", table.to_csv())
    _figures(out / "figures", retrieval)
    write_overview_png(out / "overview.png", retrieval, dataset=PREFIX + run.suites[0])
    # MERGE, figures from rows (report/export.py): write_tables(out / "tables", [*main, *other], context) replaces
    #   _tables and _figures, and write_page takes [*main, *other], so that Table A3 is on the page.
    write_page(out / "report.html", main, context)
    write_context(out / "context.json", context)
    lines = ["# The paper's claims on MotionDigits", "", *(f"- {line}" for line in words), ""]
    lines += [claims_table(found).to_markdown(), *(order.to_markdown() for order in orders)]
    lines += ["## What this rests on", "", *(f"- {note}" for note in notes(run)), ""]
    lines += [
        f"- Rows: {len(main) + len(other)} in rows.jsonl; seeds {', '.join(map(str, run.seeds))}.",
        "",
    ]
    lines += ["Command:", "", f"    {command_of(run)}", "", "Tables:", ""]
    lines += [f"- [{name}](tables/{name})" for name in written]
    write_whole(out / "summary.md", "\n".join(lines) + "\n")
    watch.lap("write the report")
    return str(out / "report.html"), words


def notes(run: StudyRun) -> list[str]:
    """What limits the study, one sentence each."""
    lines = [
        f"Every model is a nano VideoMamba trained for {run.steps} steps of {run.batch_size} clips from scratch; the "
        "paper's are 74 M parameters and start from self-supervised weights.",
        "Methods get equal numbers of steps, as in the paper equal epochs, so not equal compute: FlexiViT and flex-all "
        "see more tokens.",
        "Group-safe retrieval equals retrieval on the queries, because no handwritten image is on both sides; it "
        "differs inside the gallery.",
    ]
    if run.finetune_steps:
        lines.append(
            f"Fine-tuning: {run.finetune_steps} steps at T = 8, 32 px on each gallery, tested with {run.num_views} "
            "views of the whole picture in the cells that share T or S with that scale."
        )
    else:
        lines.append("Fine-tuning was left out (finetune_steps 0), so its part of Fig. 4 is empty.")
    if len(run.seeds) == 1:
        lines.append("One seed: intervals are over queries and blind to the luck of a training.")
    return lines


def command_of(run: StudyRun) -> str:
    """The command that makes this study: fields that differ from the defaults."""
    default = asdict(StudyRun())
    words = ["stretchysnake study motion-digits"]
    for name, value in asdict(run).items():
        if isinstance(value, dict):
            changed = [(f"{name}.{k}", v) for k, v in value.items() if v != default[name][k]]
        else:
            changed = [(name, value)] if value != default[name] else []
        for key, new in changed:
            text = f"[{','.join(map(str, new))}]" if isinstance(new, (tuple, list)) else str(new)
            words.append(f"--{key} {text}")
    return " ".join(words)


def _tables(folder: Path, rows: list) -> list[str]:
    """Every protocol, metric and data set as Markdown and CSV, and what else the rows fill; the names written."""
    from stretchysnake.report.tables import (
        accuracy_table,
        further_tables,
        measured_tables,
        to_csv,
        to_markdown,
    )
    from stretchysnake.results import select
    from stretchysnake.whole_file import write_whole

    names = []
    for protocol, metric, dataset in measured_tables(rows):
        table = accuracy_table(select(rows, protocol=protocol), dataset=dataset, metric=metric)
        name = f"{protocol}-{metric}-{dataset}".replace("/", "-").replace("@", "-at-")
        write_whole(folder / f"{name}.md", f"{protocol}: {to_markdown(table)}")
        write_whole(folder / f"{name}.csv", to_csv(table))
        names.append(f"{name}.md")
    for number, table in enumerate(further_tables(rows), 1):
        write_whole(folder / f"further-{number}.md", table.to_markdown())
        write_whole(folder / f"further-{number}.csv", table.to_csv())
        names.append(f"further-{number}.md")
    return names


def _figures(folder: Path, rows: list) -> None:
    from stretchysnake.report import figures
    from stretchysnake.report.cells import datasets_of
    from stretchysnake.whole_file import write_whole

    for dataset in datasets_of(rows):
        name = dataset.replace("/", "-")
        drawn = {
            "heat": figures.heat_maps(rows, dataset=dataset),
            "size": figures.accuracy_over_size(rows, dataset=dataset),
            "cost": figures.accuracy_over_cost(rows, dataset=dataset),
        }
        for kind, svg in drawn.items():
            write_whole(folder / f"{kind}-{name}.svg", svg)
