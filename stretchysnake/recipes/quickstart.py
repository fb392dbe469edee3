"""The main job, end to end: make the videos, train two models with one budget, measure, show.

Command: `stretchysnake quickstart` (or `make quickstart`). Needs 2 CPU cores; times are in README.md.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from stretchysnake.flexibility import NANO
from stretchysnake.models.config import VideoMambaConfig
from stretchysnake.train.run import OptimConfig, TrainRun

METHODS = ("vanilla", "static_tokens")


@dataclass(frozen=True, kw_only=True)
class QuickstartRun:
    """What the quickstart makes and measures."""

    out: str = "runs/quickstart"
    data: str | None = None
    """Folder of the MotionDigits videos; null puts them under `out`."""
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0,)
    steps: int = 1000
    batch_size: int = 32
    data_seed: int = 0
    suites: tuple[str, ...] = ("short", "fine", "long")
    frames: tuple[int, ...] = (4, 8, 16)
    sizes: tuple[int, ...] = (16, 24, 32, 48, 64)
    source_clips: int = 2000
    gallery_clips: int = 300
    query_clips: int = 300
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=4e-3))


def train_run(
    quickstart: QuickstartRun, method: str, seed: int, *, data: str, cache: str
) -> TrainRun:
    """The training run of one method and seed; methods differ in `variant` alone."""
    return TrainRun(
        data=data,
        out=str(Path(quickstart.out) / f"{method}-seed{seed}-{quickstart.steps}"),
        variant=method,
        sets=NANO,
        model=VideoMambaConfig.named("nano", num_classes=0),
        optim=quickstart.optim,
        steps=quickstart.steps,
        batch_size=quickstart.batch_size,
        seed=seed,
        cache=cache,
    )


def quickstart(run: QuickstartRun, *, progress: Callable[[str], None] | None = None):
    """Do all of it; returns (path of the report, the three headlines as text lines).

    Finished stages of an earlier call are reused: videos, frame cache, trainings, cells.
    """
    from stretchysnake.data import motion_digits
    from stretchysnake.data.loader import open_clips
    from stretchysnake.data.records import read_records
    from stretchysnake.eval.subject import read_subject
    from stretchysnake.eval.sweep import Subject, sweep
    from stretchysnake.report.headlines import headlines, tiles
    from stretchysnake.report.page import write_overview_png, write_page
    from stretchysnake.results import append_rows, environment, read_rows
    from stretchysnake.train.loop import train

    out = Path(run.out)
    data = Path(run.data) if run.data else out / "motion-digits"
    sizes = motion_digits.MotionDigitsSizes(
        source=run.source_clips, source_test=0, gallery=run.gallery_clips, query=run.query_clips
    )
    timings, started = {}, time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal started
        timings[stage] = round(timings.get(stage, 0.0) + time.perf_counter() - started, 1)
        started = time.perf_counter()

    lists = motion_digits.generate(data, sizes=sizes, seed=run.data_seed, progress=progress)
    lap("make the videos")
    cache_folder = str(data / "frame-cache")

    def clips(csv):
        return open_clips(read_records(csv), cache=cache_folder, progress=progress)

    suites = {suite: tuple(clips(csv) for csv in lists[suite]) for suite in run.suites}
    clips(lists["source"][0])
    lap("decode them once")

    trained = {}
    for method in run.methods:
        for seed in run.seeds:
            wanted = train_run(run, method, seed, data=str(lists["source"][0]), cache=cache_folder)
            trained[method, seed] = (wanted, train(wanted, progress=progress))
            lap(f"train {method}")

    def of_this_size(row) -> bool:
        """Whether the row was measured on the videos of this run, not on more or fewer of an earlier one."""
        suite = row.dataset.removeprefix("motion-digits/")
        if suite not in suites:
            return False
        gallery, queries = suites[suite]
        sizes = len(gallery.records), len(queries.records) + len(queries.failures)
        return (row.num_gallery, row.num_expected) == sizes

    rows_path, env = out / "rows.jsonl", environment()
    for (_, seed), (_, result) in trained.items():
        model, variant, metadata = read_subject(result.weights)
        subject = Subject(
            model=model,
            variant=variant,
            seed=seed,
            run_id=metadata["digest"],
            commit=env.get("commit", ""),
            device=env.get("cpu", ""),
        )
        for suite, (gallery, queries) in suites.items():
            dataset = f"motion-digits/{suite}"
            known = read_rows(rows_path) if rows_path.exists() else []
            done = {
                (row.num_frames, row.size)
                for row in known
                if row.run_id == subject.run_id and row.dataset == dataset and of_this_size(row)
            }
            cells = [(t, s) for t in run.frames for s in run.sizes if (t, s) not in done]
            for row in sweep(subject, dataset, gallery, queries, cells, progress=progress):
                append_rows(rows_path, [row])
    lap("measure")

    digests = {read_subject(result.weights)[2]["digest"] for _, result in trained.values()}
    rows = [row for row in read_rows(rows_path) if row.run_id in digests and of_this_size(row)]
    report = out / "report.html"
    context = report_context(run, data, lists, trained, env, timings)
    write_page(report, rows, context)
    first = context.suites[0]
    write_overview_png(out / "overview.png", rows, dataset=first.dataset, chance=first.chance)
    lap("write the report")
    headline = [f"{tile.value}  {tile.label} ({tile.detail})" for tile in tiles(headlines(rows))]
    return str(report), headline


def report_context(
    run: QuickstartRun, data: Path, lists: dict, trained: dict, env: dict, timings: dict
):
    """What the page tells beside the numbers."""
    from stretchysnake.data import motion_digits
    from stretchysnake.data.records import read_records
    from stretchysnake.models.checkpoints import read_checkpoint
    from stretchysnake.report.context import ReportContext, SuiteInfo, TrainingInfo

    suites = []
    for suite in run.suites:
        info, sheet = motion_digits.info(suite), Path(run.out) / f"{suite}.png"
        labels = motion_digits.contact_sheet(data, suite, sheet)
        suites.append(
            SuiteInfo(
                name=suite,
                dataset=f"motion-digits/{suite}",
                description=info["description"],
                num_classes=len(info["classes"]),
                chance=info["chance"],
                contact_sheet_png=sheet,
                labels=labels,
                sample_clips=[record.path for record in read_records(lists[suite][1])[:6]],
            )
        )
    training = []
    for (method, seed), (wanted, result) in trained.items():
        state, _ = read_checkpoint(result.weights)
        training.append(
            TrainingInfo(
                model=method,
                seed=seed,
                steps=wanted.steps,
                seconds=result.seconds,
                clips=result.clips,
                final_loss=result.final_loss,
                loss_curve=result.losses[:: max(1, len(result.losses) // 300)],
                parameters=sum(tensor.numel() for tensor in state.values()),
                scales=_scales_in_words(wanted),
            )
        )
    return ReportContext(
        suites=suites,
        training=training,
        commands=["make quickstart", f"stretchysnake quickstart --out {run.out}"],
        seeds=run.seeds,
        versions=env,
        timings=timings,
        settings=asdict(run),
    )


def _scales_in_words(run: TrainRun) -> str:
    from stretchysnake.flexibility import scale_at

    seen = {
        scale_at(run.bound_variant, seed=run.seed, step=step) for step in range(min(run.steps, 500))
    }
    frames = sorted({scale.num_frames for scale in seen})
    sizes = sorted({scale.size for scale in seen})
    patches = sorted({scale.patch_size for scale in seen})
    return f"T {_listed(frames)}, S {_listed(sizes)} px, P {_listed(patches)} px"


def _listed(values: list[int]) -> str:
    return ", ".join(str(value) for value in values)
