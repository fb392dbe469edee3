"""What a study leaves behind: tables, figures, one HTML page, and a summary that says what holds and what does not."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from stretchysnake.recipes.motion_digits import PREFIX, Suites, suite_infos, training_info
from stretchysnake.recipes.study.conditions import Training
from stretchysnake.recipes.study.design import TRANSFERRED, StudyRun
from stretchysnake.recipes.study.stopwatch import Stopwatch


def write_study(
    run: StudyRun, suites: Suites, planned: list[Training], watch: Stopwatch
) -> tuple[str, list[str]]:
    """Write report.html, summary.md, tables/ and pictures/ under run.out, of all that is finished; (path of the page,
    summary lines)."""
    from stretchysnake.recipes.study.kept_rows import rows_of
    from stretchysnake.recipes.study.stored_rows import rows_in
    from stretchysnake.report.pages.context import ReportContext, write_context
    from stretchysnake.report.tables.cells import peers_of
    from stretchysnake.results.rows import environment
    from stretchysnake.train.checkpoints.identity import settings_digest
    from stretchysnake.train.loop import train

    out = Path(run.out)
    trained = [(one, train(one.run)) for one in planned if one.is_finished]  # and so only read
    rows = rows_of(run, planned, rows_in(run), source=suites.source_key)
    done = {(row.model, row.seed, row.run_id.split("-")[0]) for row in rows}
    measured = [t for t in planned if (t.row_model, t.seed, settings_digest(t.run)) in done]
    left = len(planned) - len(measured)
    training = [training_info(t.run, result, model=t.shown) for t, result in trained]
    training += _told_before(out / "context.json", measured, training)
    context = ReportContext(
        title="The paper's experiments on MotionDigits",
        suites=suite_infos(suites, out=out),
        training=training,
        commands=[command_of(run)],
        seeds=run.seeds,
        versions=environment(),
        timings=watch.seconds,
        settings=asdict(run),
        notes=[
            *notes(run, peers_of(rows)),
            *([f"{left} of {len(planned)} trainings are not done yet."] if left else []),
        ],
        pictures=_pictures(run, suites, trained, out / "pictures"),
    )
    words = write_pages(out, rows, context)
    write_context(out / "context.json", context)
    watch.lap("write the report")
    return str(out / "report.html"), words


def _told_before(path: Path, measured: Sequence[Training], here: Sequence) -> list:
    """What the context of an earlier sitting told of measured trainings whose folders are not here, but their rows."""
    from stretchysnake.report.pages.context import read_context

    if not path.is_file():
        return []
    wanted = {(one.shown, one.seed) for one in measured} - {(one.model, one.seed) for one in here}
    return [one for one in read_context(path).training if (one.model, one.seed) in wanted]


def write_pages(
    folder: Path,
    rows: list,
    context,
    *,
    summary: str = "summary.md",
    tables: bool = True,
    rows_name: str = "rows.jsonl",
) -> list[str]:
    """Write tables/ (unless left out), overview.png, report.html and the summary into the folder; returns the summary's
    first lines.

    Everything follows from rows and context, so a study measured once can be told anew (publishing.py).
    """
    from stretchysnake.report.figures.gallery import pictures_of
    from stretchysnake.report.pages.export import write_tables
    from stretchysnake.report.pages.page import write_overview_png, write_page
    from stretchysnake.report.tables.cells import main_rows
    from stretchysnake.report.tables.claims import claims, claims_in_words, unsettled
    from stretchysnake.report.tables.claims_tables import claims_grid, tables_of_claims
    from stretchysnake.report.tables.headlines import claim, headlines
    from stretchysnake.report.tables.study.questions import question_claims
    from stretchysnake.results.rows import select
    from stretchysnake.whole_file import write_whole

    retrieval = select(main_rows(rows), protocol="retrieval", metric="top1")
    of_paper, asked = claims(rows), question_claims(rows)
    words = [claim(headlines(retrieval)), *claims_in_words(of_paper), *claims_in_words(asked)]
    words.append(unsettled([*of_paper, *asked]))
    pictures = pictures_of(rows, context)  # once for files and page
    if tables:
        write_tables(folder / "tables", rows, context, pictures)
    first = PREFIX + context.settings["suites"][0]
    write_overview_png(folder / "overview.png", retrieval, dataset=first)
    write_page(folder / "report.html", rows, context, pictures)
    lines = ["# The paper's claims on MotionDigits", "", *(f"- {line}" for line in words), ""]
    shown = [claims_grid(rows), *tables_of_claims(rows)]
    lines += [table.to_markdown() for table in shown if table]
    lines += ["## What this rests on", "", *(f"- {note}" for note in context.notes), ""]
    seeds = ", ".join(map(str, context.seeds))
    lines += [f"- Rows: {len(rows)} in {rows_name}; seeds {seeds}.", ""]
    lines += ["Command:", "", *(f"    {command}" for command in context.commands), ""]
    if tables:
        all_files = "[tables/README.md](tables/README.md), each also as a file beside it;"
    else:
        all_files = f"`stretchysnake study report {rows_name}` writes each as a file;"
    lines += [f"Every table and figure: {all_files}"]
    lines += ["[report.html](report.html) holds them all and opens offline.", ""]
    write_whole(folder / summary, "\n".join(lines) + "\n")
    return words


def notes(run: StudyRun, peers: Sequence[str]) -> list[str]:
    """What limits the study, one sentence each; `peers` are those of the run's that have rows."""
    beside = f", or one of its peers ({', '.join(peers)})," if peers else ""
    begun = "from scratch"
    if run.start_steps:
        begun = (
            "from the weights of a vanilla of the same seed, which had "
            f"{run.start_steps:,} steps at the native scale"
        )
    lines = [
        f"Every model is a nano VideoMamba{beside} trained for {run.steps} steps of {run.batch_size} clips {begun}; "
        "the paper's are 74 M parameters and start from self-supervised weights.",
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
    if others := {name: rate for name, rate in run.rates.items() if rate != run.optim.lr}:
        told = ", ".join(f"{name} {rate:g}" for name, rate in others.items())
        lines.append(f"Learning rates other than {run.optim.lr:g}: {told}.")
    if peers:
        rated = {name.split(" ")[0] for name in run.rates}
        untuned = [peer for peer in peers if peer not in rated]
        own = (
            f"learning rate {run.optim.lr:g} included, which was not tuned for {', '.join(untuned)}"
            if untuned
            else "but for the learning rates told"
        )
        lines.append(
            f"The peers are trained by the study's own recipe, {own}; they are asked for retrieval alone, as in the "
            "paper's A.2."
        )
    elif run.peers:
        lines.append(
            f"Its peers ({', '.join(run.peers)}) are not measured yet: A.2 and claim (iv) are open."
        )
    else:
        lines.append(
            "No model was trained beside it (peers []), so A.2 and claim (iv) are left out."
        )
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
    """What is drawn from the models of the first seed that are here: t-SNE of each suite's queries, activation maps of
    its first video."""
    from stretchysnake.eval.features.placement import Placement
    from stretchysnake.recipes.visualize import write_activation_maps, write_feature_maps
    from stretchysnake.report.pages.context import read_pictures

    drawn = [(t, result) for t, result in trained if t.is_main and t.method in TRANSFERRED]
    if not drawn:
        return []
    first = min(t.seed for t, _ in drawn)
    subjects = {t.method: result.weights for t, result in drawn if t.seed == first}
    placement, videos = Placement(device=run.device), []
    for suite, (_, queries) in suites.clips.items():
        write_feature_maps(
            folder,
            subjects,
            queries.records,
            title=PREFIX + suite,
            cache=suites.cache,
            placement=placement,
        )
        videos.append(queries.records[0].path)
    write_activation_maps(folder, subjects, videos, placement=placement)
    return read_pictures(folder)
