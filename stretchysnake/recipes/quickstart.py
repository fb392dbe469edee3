"""The main job, end to end: make the videos, train two models on from one trained model, measure, show.

Command: `stretchysnake quickstart` (or `make quickstart`). Needs 2 CPU cores; times are in README.md. As in the paper
(§4.1), training begins with a model that is trained at one scale; `--start null` trains both from scratch.
`stretchysnake quickstart --pretrained` measures the weights that came with the package instead, in a minute or two.
"""

from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path

from stretchysnake.eval.features.placement import check_device
from stretchysnake.models.weights.shipped.shipped import Shipped, all_shipped
from stretchysnake.recipes.motion_digits import (
    PREFIX,
    Suites,
    check_asked,
    make_suites,
    nano_run,
    suite_infos,
    training_info,
)
from stretchysnake.recipes.side_by_side import check_jobs, side_by_side
from stretchysnake.recipes.study.stopwatch import Stopwatch
from stretchysnake.train.run import OptimConfig, TrainRun

METHODS = ("vanilla", "static_tokens")
OF_A_TRAINING = ("seeds", "steps", "batch_size", "optim", "start")
"""Fields that mean nothing where nothing is trained."""


@dataclass(frozen=True, kw_only=True)
class QuickstartRun:
    """What the quickstart makes and measures."""

    out: str = "runs/quickstart"
    data: str | None = None
    """Folder of the MotionDigits videos; null puts them under `out`."""
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0,)
    start: str | None = "videomamba-nano"
    """Weights that every training goes on from, by name or file; null trains from scratch, which takes three times the
    steps for less."""
    steps: int = 500
    batch_size: int = 32
    data_seed: int = 0
    device: str = "auto"
    """Where models are trained and measured: "cpu", "cuda" or e.g. "cuda:1"; "auto": a GPU if there is one."""
    suites: tuple[str, ...] = ("short", "fine", "long")
    frames: tuple[int, ...] = (4, 8, 16)
    sizes: tuple[int, ...] = (16, 24, 32, 48, 64)
    source_clips: int = 2000
    gallery_clips: int = 200
    query_clips: int = 200
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=4e-3))
    jobs: int | None = None
    """Trainings side by side, each measured where it was trained; null for what processors and memory are enough for.
    The rows are the same, whatever it is."""
    threads: int = 1
    """Threads of each, on which the last bits of a training depend."""

    pretrained: bool = False
    """Train nothing: measure the nano weights that came with the package (`stretchysnake weights`)."""

    def __post_init__(self):
        check_device(self.device)
        check_jobs(self.jobs, self.threads)
        check_asked(self, "methods", least_source=0 if self.pretrained else 1)
        if self.pretrained:
            self._check_pretrained()

    def _check_pretrained(self):
        for known in fields(self):
            value = getattr(self, known.name)
            if known.name in OF_A_TRAINING and value != _default(known):
                raise ValueError(
                    f"{known.name} ({value}) belongs to a training, and with pretrained nothing is trained; leave one "
                    "of the two out"
                )
        there = shipped_by_variant()
        for method in self.methods:
            if method not in there:
                raise ValueError(
                    f"methods ({method}) must be of those whose weights came with the package: "
                    f"{', '.join(there)}; leave pretrained out to train others"
                )


def pretrained_quickstart() -> QuickstartRun:
    """The quickstart without trainings: all cells of all suites, no training videos, and of the others as many as take
    about 170 s of processor time: every class of every suite has five or more in the gallery."""
    return QuickstartRun(
        out="runs/quickstart-pretrained",
        source_clips=0,
        gallery_clips=120,
        query_clips=72,
        pretrained=True,
    )


def train_run(
    quickstart: QuickstartRun, method: str, seed: int, *, data: str, cache: str
) -> TrainRun:
    """The training run of one method and seed; methods differ in `variant` alone."""
    run = nano_run(
        method,
        seed,
        out=Path(quickstart.out) / f"{method}-seed{seed}-{quickstart.steps}",
        data=data,
        cache=cache,
        steps=quickstart.steps,
        batch_size=quickstart.batch_size,
        optim=quickstart.optim,
        device=quickstart.device,
    )
    return replace(run, weights=quickstart.start)


def quickstart(run: QuickstartRun, *, progress: Callable[[str], None] | None = None):
    """Do all of it; returns (path of the report, the three headlines as text lines).

    Finished stages of an earlier call are reused: videos, frame cache, trainings, cells.
    """
    from stretchysnake.models.weights.published.named import weights_file
    from stretchysnake.report.pages.page import write_overview_png, write_page
    from stretchysnake.report.tables.headlines import headlines, tiles
    from stretchysnake.results.rows import environment

    if run.start is not None and not run.pretrained:
        weights_file(run.start)  # what is not there is told before a video is made
    out, watch = Path(run.out), Stopwatch()
    suites = make_suites(run, watch, progress=progress)
    wanted = _wanted(run)
    side_by_side(
        {f"{m} seed {s}": (train_and_measure, (run, suites, m, s)) for m, s in wanted},
        jobs=run.jobs,
        threads=run.threads,
        logs=out / "logs",
        progress=progress,
    )
    watch.lap("measure" if run.pretrained else "train and measure")
    trained, rows, env = {}, [], environment()
    for method, seed in wanted:
        trained[method, seed], found = _trained_and_measured(run, suites, method, seed, progress)
        rows += found
    report = out / "report.html"
    context = report_context(run, suites, trained, env, watch.seconds)
    write_page(report, rows, context)
    first = context.suites[0]
    write_overview_png(out / "overview.png", rows, dataset=first.dataset, chance=first.chance)
    watch.lap("write the report")
    headline = [f"{tile.value}  {tile.label} ({tile.detail})" for tile in tiles(headlines(rows))]
    return str(report), [*headline, *context.trained_elsewhere]


def _wanted(run: QuickstartRun) -> list[tuple[str, int]]:
    """(method, seed) of each model; weights that came with the package have the seed that they were trained with."""
    if run.pretrained:
        return [(method, shipped_by_variant()[method].trained["seed"]) for method in run.methods]
    return [(method, seed) for method in run.methods for seed in run.seeds]


def shipped_by_variant() -> dict[str, Shipped]:
    """The weights that came with the package, by the variant that they were trained with."""
    return {model.trained["variant"]: model for model in all_shipped().values()}


def train_and_measure(
    run: QuickstartRun,
    suites: Suites,
    method: str,
    seed: int,
    *,
    progress: Callable[[str], None] | None = None,
) -> None:
    """One training and its sweep; all that is made is kept on disk."""
    _trained_and_measured(run, suites, method, seed, progress)


def _trained_and_measured(run: QuickstartRun, suites: Suites, method: str, seed: int, progress):
    """((the run, its result), rows of every suite and cell); what is finished already is only read.

    Of weights that came with the package (them, rows): each row's note and run_id say whose they are.
    """
    from stretchysnake.eval.features.placement import Placement
    from stretchysnake.eval.sweeps.model_under_test import model_under_test
    from stretchysnake.eval.sweeps.resumed_sweep import resumed_sweep
    from stretchysnake.train.loop import train

    if run.pretrained:
        made = shipped_by_variant()[method]
        weights, suffix, note = made.file, "-shipped", f"{made.name}, {made.said}"
    else:
        wanted = train_run(run, method, seed, data=suites.source, cache=suites.cache)
        result = train(wanted, progress=progress)
        made, weights, suffix = (wanted, result), result.weights, ""
        note = "" if run.start is None else f"trained on from {run.start}"
    placement, rows = Placement(device=run.device), []
    tested = model_under_test(weights, suffix=suffix, placement=placement)
    for suite, clips in suites.clips.items():
        rows += resumed_sweep(
            Path(run.out) / "rows.jsonl",
            tested,
            PREFIX + suite,
            lambda clips=clips: clips,
            [(t, s) for t in run.frames for s in run.sizes],
            belongs=suites.hold,
            finish=lambda row: replace(row, note="; ".join(filter(None, [row.note, note]))),
            progress=progress,
        )
    return made, rows


def report_context(run: QuickstartRun, suites: Suites, trained: dict, env: dict, timings: dict):
    """What the page tells beside the numbers."""
    from stretchysnake.report.pages.context import ReportContext

    settings, seeds = asdict(run), run.seeds
    command, training, elsewhere = "stretchysnake quickstart", [], []
    if run.pretrained:
        command += " --pretrained"
        settings = {name: v for name, v in settings.items() if name not in OF_A_TRAINING}
        seeds = sorted({model.trained["seed"] for model in trained.values()})
        elsewhere = [
            "Nothing was trained here. The weights measured:",
            *(f"{model.name}, {model.said}" for model in trained.values()),
            *of_other_videos(trained),
        ]
    else:
        training = [training_info(wanted, result) for wanted, result in trained.values()]
        if run.start is not None:
            elsewhere = ["All trainings went on from the same weights.", _said_of(run.start)]
    return ReportContext(
        suites=suite_infos(suites, out=Path(run.out)),
        training=training,
        trained_elsewhere=elsewhere,
        commands=[*([] if run.pretrained else ["make quickstart"]), f"{command} --out {run.out}"],
        seeds=seeds,
        versions=env,
        timings=timings,
        settings=settings,
    )


def _said_of(weights: str) -> str:
    """Whose weights these are, where the package knows; else their name."""
    known = all_shipped().get(weights)
    return weights if known is None else f"{known.name}, {known.said}"


def of_other_videos(trained: dict[tuple, Shipped]) -> list[str]:
    """A sentence where weights were trained on another version of MotionDigits than is made here."""
    from stretchysnake.data.motion_digits import VERSION

    others = [
        m.name for m in trained.values() if f"version {VERSION}," not in m.trained["trained_on"]
    ]
    if not others:
        return []
    return [
        f"The videos here are MotionDigits, version {VERSION}: {' and '.join(others)} never saw their kind"
    ]


def _default(known) -> object:
    """The default of a dataclass field."""
    return known.default if known.default is not MISSING else known.default_factory()
