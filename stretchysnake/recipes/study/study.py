"""Every table and figure of the paper, made on MotionDigits: train, measure, fine-tune, ablate, conclude.

Command   stretchysnake study motion-digits            3 seeds, about 4 hours on 2 cores (--dry-run estimates)
          stretchysnake study motion-digits --quick    every part in minutes, for CI
          --peers []                                   without the other models of A.2: an hour less
Paper     Table 1 and Fig. 3 (six methods over T and S), Fig. 4 (probe, fine-tuning), Tables 2, A2 and A3; §4.2's
          claims; A.2 and Figures A1 to A12 (other models trained flexibly)
"""

from collections.abc import Callable
from pathlib import Path

from stretchysnake.recipes.motion_digits import PREFIX, Suites, make_suites, open_suites
from stretchysnake.recipes.side_by_side import side_by_side
from stretchysnake.recipes.study.design import (
    ABLATED,
    STATIC_PATCHES,
    StudyRun,
    Training,
    trainings,
    transfers,
)
from stretchysnake.recipes.study.pages import write_study
from stretchysnake.recipes.study.stopwatch import Stopwatch


def study(run: StudyRun, *, progress: Callable[[str], None] | None = None) -> tuple[str, list[str]]:
    """Do all of it; returns (path of the report, what holds as text lines).

    Resumable at any point: finished videos, trainings, features and rows are kept, an interrupted training goes on
    from its checkpoint. Each model is measured as soon as it is trained, several side by side (`run.jobs`).
    """
    watch = Stopwatch()
    suites = make_suites(run, watch, progress=progress)
    planned = list(trainings(run, data=suites.source, cache=suites.cache))
    side_by_side(
        {
            f"{training.shown} seed {training.seed}": (
                finish_training,
                (run, suites.folder, suites.lists, number),
            )
            for number, training in enumerate(planned)
        },
        jobs=run.jobs,
        threads=run.threads,
        logs=Path(run.out) / "logs",
        progress=progress,
    )
    watch.lap("train, measure, fine-tune and test")
    trained, rows = [], []
    for training in planned:
        result, found = _finished(run, suites, training, progress)
        trained.append((training, result))
        rows += found
    return write_study(run, suites, trained, rows, watch)


def finish_training(
    run: StudyRun,
    folder: Path,
    lists: dict,
    number: int,
    *,
    progress: Callable[[str], None] | None = None,
) -> None:
    """The training of that number and all that is measured of it, by a process that opens the videos itself; what is
    made is kept on disk."""
    suites = open_suites(folder, lists, run.suites, progress=progress)
    planned = list(trainings(run, data=suites.source, cache=suites.cache))
    _finished(run, suites, planned[number], progress)


def _finished(run: StudyRun, suites: Suites, training: Training, progress) -> tuple:
    """(result of a training, its rows in the study's order); what is finished already is only read."""
    from stretchysnake.train.loop import train

    result = train(training.run, progress=progress)
    rows = _measured(run, suites, training, result.weights, progress=progress)
    if training.is_main:
        rows += _transferred(run, suites, training, result.weights, progress=progress)
    return result, rows


def _measured(run: StudyRun, suites: Suites, training: Training, weights: str, *, progress) -> list:
    """Retrieval, group-safe retrieval and the probe in every cell; with other patches where Table A2 asks for it."""
    from stretchysnake.eval.protocols.protocol import Protocol

    retrieval = Protocol(metrics=("top1", "recall@5", "gallery_top1"))
    if not training.is_main:
        cells = run.cells_of(training)
        # what one architecture cannot take stands in the tables as that, and the others are measured
        options = {"refused_as_rows": bool(training.peer), "progress": progress}
        return _rows(run, suites, _model(training, weights), cells, [Protocol()], **options)
    # No image of a digit is on both sides, so the group-safe number differs inside the gallery alone.
    safe = Protocol(metrics=("top1", "gallery_top1"), group_safe=True)
    protocols = [retrieval, safe, Protocol(kind="probe")]
    tested = _model(training, weights)
    rows = _rows(run, suites, tested, run.cells, protocols, progress=progress)
    if training.method in ABLATED:
        options = {"patch_from": STATIC_PATCHES, "progress": progress}
        rows += _rows(run, suites, tested, run.cells, [Protocol()], **options)
    return rows


def _transferred(
    run: StudyRun, suites: Suites, training: Training, weights: str, *, progress
) -> list:
    """Fine-tuning on each suite's gallery, tested with several views on its queries."""
    from stretchysnake.eval.protocols.protocol import Protocol
    from stretchysnake.train.loop import train

    rows = []
    for suite in suites.clips:
        gallery = str(suites.lists[suite][0])
        for protocol, wanted in transfers(
            run,
            suite,
            training.method,
            training.seed,
            weights=weights,
            data=gallery,
            cache=suites.cache,
        ):
            result = train(wanted, progress=progress)
            tested = _model(training, result.weights, suffix=f"-views{run.num_views}")
            protocols = [Protocol(kind=protocol, num_views=run.num_views)]
            rows += _rows(
                run, suites, tested, run.cross, protocols, names=[suite], progress=progress
            )
    return rows


def _model(training: Training, weights: str, *, suffix: str = ""):
    """The model under test. A fine-tuned one keeps the rule of patches that it was pre-trained with."""
    from stretchysnake.eval.features.placement import Placement
    from stretchysnake.eval.sweeps.model_under_test import model_under_test

    return model_under_test(
        weights,
        variant=training.run.bound_variant,
        name=training.row_model if training.peer else None,
        suffix=suffix,
        placement=Placement(device=training.run.device),
    )


def _rows(
    run: StudyRun, suites: Suites, tested, cells, protocols, *, names=None, **options
) -> list:
    from stretchysnake.eval.sweeps.resumed_sweep import resumed_sweep

    rows = []
    for suite, clips in suites.clips.items():
        if names is not None and suite not in names:
            continue
        rows += resumed_sweep(
            Path(run.out) / "rows.jsonl",
            tested,
            PREFIX + suite,
            lambda clips=clips: clips,
            cells,
            protocols=protocols,
            belongs=suites.hold,
            feature_cache=str(Path(run.out) / "features"),
            **options,
        )
    return rows
