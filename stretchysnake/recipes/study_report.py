"""What a study leaves behind: tables, figures, one HTML page, and a summary that says what holds and what does not."""

from dataclasses import asdict
from pathlib import Path

from stretchysnake.recipes.motion_digits import PREFIX, Suites, suite_infos, training_info
from stretchysnake.recipes.stopwatch import Stopwatch
from stretchysnake.recipes.study_plan import TRANSFERRED, StudyRun


def write_study(
    run: StudyRun, suites: Suites, trained: list, rows: list, watch: Stopwatch
) -> tuple[str, list[str]]:
    """Write report.html, summary.md, tables/ and pictures/ under run.out; (path of the page, summary lines)."""
    from stretchysnake.report.cells import main_rows
    from stretchysnake.report.claims import claims, claims_in_words
    from stretchysnake.report.claims_tables import claims_grid, tables_of_claims
    from stretchysnake.report.context import ReportContext, write_context
    from stretchysnake.report.export import write_tables
    from stretchysnake.report.headlines import claim, headlines
    from stretchysnake.report.page import write_overview_png, write_page
    from stretchysnake.results import environment, select
    from stretchysnake.whole_file import write_whole

    out = Path(run.out)
    retrieval = select(main_rows(rows), protocol="retrieval", metric="top1")
    words = [claim(headlines(retrieval)), *claims_in_words(claims(rows))]
    training = [
        training_info(
            t.run, result, model=t.method if t.is_main else f"{t.method} T={t.num_frames}"
        )
        for t, result in trained
    ]
    context = ReportContext(
        title="The paper's experiments on MotionDigits",
        suites=suite_infos(suites, out=out),
        training=training,
        commands=[command_of(run)],
        seeds=run.seeds,
        versions=environment(),
        timings=watch.seconds,
        settings=asdict(run),
        notes=notes(run),
        pictures=_pictures(run, suites, trained, out / "pictures"),
    )
    write_tables(out / "tables", rows, context)
    write_overview_png(out / "overview.png", retrieval, dataset=PREFIX + run.suites[0])
    write_page(out / "report.html", rows, context)
    write_context(out / "context.json", context)
    lines = ["# The paper's claims on MotionDigits", "", *(f"- {line}" for line in words), ""]
    tables = [claims_grid(rows), *tables_of_claims(rows)]
    lines += [table.to_markdown() for table in tables if table]
    lines += ["## What this rests on", "", *(f"- {note}" for note in notes(run)), ""]
    lines += [
        f"- Rows: {len(rows)} in rows.jsonl; seeds {', '.join(map(str, run.seeds))}.",
        "",
    ]
    lines += ["Command:", "", f"    {command_of(run)}", ""]
    lines += [
        "Every table and figure: [tables/README.md](tables/README.md), each also as a file beside it;"
    ]
    lines += ["[report.html](report.html) holds them all and opens offline.", ""]
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


def _pictures(run: StudyRun, suites: Suites, trained: list, folder: Path) -> list:
    """What is drawn from the first seed's models: t-SNE of each suite's queries, activation maps of its first video."""
    from stretchysnake.recipes.visualize import write_activation_maps, write_feature_maps
    from stretchysnake.report.context import read_pictures

    subjects = {
        t.method: result.weights
        for t, result in trained
        if t.is_main and t.seed == run.seeds[0] and t.method in TRANSFERRED
    }
    if not subjects:
        return []
    videos = []
    for suite, (_, queries) in suites.clips.items():
        write_feature_maps(
            folder, subjects, queries.records, title=PREFIX + suite, cache=suites.cache
        )
        videos.append(queries.records[0].path)
    write_activation_maps(folder, subjects, videos)
    return read_pictures(folder)
