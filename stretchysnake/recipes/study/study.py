"""Every table and figure of the paper, made on MotionDigits: train, measure, fine-tune, ablate, conclude.

Command   stretchysnake study motion-digits            3 seeds, hours on 2 cores (--dry-run estimates)
          stretchysnake study motion-digits --only [main]  one part in this sitting
          stretchysnake study motion-digits --quick    every part in minutes, for CI
          --peers []                                   without the other models of A.2: an hour less
Paper     Table 1 and Fig. 3 (six methods over T and S), Fig. 4 (probe, fine-tuning), Tables 2, A2 and A3; §4.2's
          claims; A.2 and Figures A1 to A12 (other models trained flexibly)
"""

from collections.abc import Callable
from pathlib import Path

from stretchysnake.recipes.motion_digits import Suites, make_suites
from stretchysnake.recipes.side_by_side import side_by_side
from stretchysnake.recipes.study.conditions import Training, conditions, trainings
from stretchysnake.recipes.study.design import StudyRun
from stretchysnake.recipes.study.pages import write_study
from stretchysnake.recipes.study.stopwatch import Stopwatch


def study(run: StudyRun, *, progress: Callable[[str], None] | None = None) -> tuple[str, list[str]]:
    """Do what `run.only` names, or all of it; returns (path of the report, what holds as text lines).

    Resumable at any point: finished videos, trainings, features and rows are kept, an interrupted training goes on
    from its checkpoint, and what has all its rows is not done again, whether its weights are still there or not. Each
    model is measured as soon as it is trained, several side by side (`run.jobs`). The report is of all that is
    finished, in whichever sitting.
    """
    from stretchysnake.recipes.study.kept_rows import is_measured
    from stretchysnake.recipes.study.stored_rows import rows_in

    conditions(run)  # a word that it does not have is told before a video is made
    watch = Stopwatch()
    suites = make_suites(run, watch, source_test=run.source_test_clips, progress=progress)
    planned = list(trainings(run, data=suites.source, cache=suites.cache))
    rows = rows_in(run)
    left = [
        number
        for number, training in enumerate(planned)
        if not is_measured(run, training, rows, source=suites.source_key)
    ]
    sides = {"jobs": run.jobs, "threads": run.threads, "logs": Path(run.out) / "logs"}
    starts = {}  # each once, before what goes on from it
    for n in left:
        if (start := planned[n].start) is not None:
            starts.setdefault(Path(start.out).name, (finish_start, (run, suites, n)))
    side_by_side(starts, progress=progress, **sides)
    tasks = {
        f"{planned[n].shown} seed {planned[n].seed}": (finish_training, (run, suites, n))
        for n in left
    }
    side_by_side(tasks, progress=progress, **sides)
    watch.lap("train, measure, fine-tune and test")
    return write_study(run, suites, planned, watch)


def finish_start(
    run: StudyRun,
    suites: Suites,
    number: int,
    *,
    progress: Callable[[str], None] | None = None,
) -> None:
    """What the training of that number goes on from, which others of its seed go on from too."""
    from stretchysnake.train.loop import train

    train(_of_number(run, suites, number).start, progress=progress)


def _of_number(run: StudyRun, suites: Suites, number: int) -> Training:
    return list(trainings(run, data=suites.source, cache=suites.cache))[number]


def finish_training(
    run: StudyRun,
    suites: Suites,
    number: int,
    *,
    progress: Callable[[str], None] | None = None,
) -> None:
    """The training of that number, and all that is wanted of its measurements; what is made is kept on disk."""
    from stretchysnake.recipes.study.measuring import measured, transferred

    training = _of_number(run, suites, number)
    results = trained(training, progress=progress)
    measured(run, suites, training, results, progress=progress)
    if run.wants("transfer", training.shown):
        transferred(run, suites, training, results, progress=progress)


def trained(training: Training, *, progress: Callable[[str], None] | None = None) -> list:
    """The result of the training, after that of what it starts from; what is finished already is only read."""
    from stretchysnake.train.loop import train

    runs = [run for run in (training.start, training.run) if run is not None]
    return [train(run, progress=progress) for run in runs]
