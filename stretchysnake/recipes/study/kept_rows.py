"""Rows of earlier sittings: which belong to a training of the plan, and whether it has all that is wanted of it.

A training is known in its rows by its settings (the first part of run_id), by the steps of all that made its weights
and by the list of its videos (train_data), none of which speaks of folders or times: rows alone, copied to another
machine, keep it from being done again.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stretchysnake.eval.protocols.protocol import HEADS
from stretchysnake.eval.sweeps.sweep import protocol_name
from stretchysnake.recipes.motion_digits import PREFIX
from stretchysnake.recipes.study.conditions import Training, transfers
from stretchysnake.recipes.study.design import StudyRun
from stretchysnake.recipes.study.measuring import SOURCE, measurements, wanted_of
from stretchysnake.results.rows import Row
from stretchysnake.train.checkpoints.identity import settings_digest


class Place(NamedTuple):
    """One number that the plan wants, and of which training it is."""

    settings: str
    train_steps: int | None
    model: str
    dataset: str
    protocol: str
    metric: str
    num_frames: int
    size: int


def places_of(run: StudyRun, training: Training, *, only_wanted: bool) -> Iterator[Place]:
    """All numbers that the plan has of a training, or those that this sitting wants."""
    settings = settings_digest(training.run), training.num_steps
    model = training.row_model
    listed = wanted_of(run, training) if only_wanted else measurements(run, training.condition)
    for one in listed:
        for suite in one.suites or run.suites:
            for protocol in one.protocols:
                name = protocol_name(protocol, one.patch_from, one.patch_resize)
                for metric in protocol.metrics:
                    for cell in one.cells:
                        yield Place(*settings, model, PREFIX + suite, name, metric, *cell)
    if only_wanted and not run.wants("transfer", training.shown):
        return
    for suite in run.suites:
        options = {"weights": "-", "data": "-", "cache": "-"}
        for protocol, one in transfers(run, suite, training, **options):
            for cell in run.cross:
                place = model, PREFIX + suite, protocol, "top1", *cell
                yield Place(settings_digest(one), training.num_steps, *place)


def is_measured(
    run: StudyRun, training: Training, rows: Sequence[Row], *, source: str | None = None
) -> bool:
    """Whether the rows hold all that this sitting wants of a training; `source` is the key of the training videos."""
    held = {_place(row) for row in rows if row.status != "oom" and _is_of(run, row, source)}
    return all(place in held for place in places_of(run, training, only_wanted=True))


def rows_of(
    run: StudyRun, planned: Sequence[Training], rows: Sequence[Row], *, source: str
) -> list[Row]:
    """The rows of the planned trainings in their order, on the videos that the study has now.

    Where a training was done twice and its weights differ, those with the most rows speak for it.
    """
    by_place: dict[Place, list[Row]] = {}
    for row in rows:
        if _is_of(run, row, source):
            by_place.setdefault(_place(row), []).append(row)
    kept = []
    for training in planned:
        own = [
            row
            for place in places_of(run, training, only_wanted=False)
            for row in by_place.get(place, ())
            if row.seed == training.seed
        ]
        # of one model by one protocol, all rows have the weights that most of them have
        counts = Counter((_measured_by(row), row.weights) for row in own)
        most = {
            one: max((n, weights) for (other, weights), n in counts.items() if other == one)
            for one, _ in counts
        }
        kept += [row for row in own if row.weights == most[_measured_by(row)][1]]
    return kept


def _measured_by(row: Row) -> tuple[str, str]:
    """The protocol; and the suite, where each has a model of its own, tuned on it."""
    return row.protocol, row.dataset if row.protocol in HEADS else ""


def _place(row: Row) -> Place:
    settings = row.run_id.split("-")[0]
    return Place(
        settings, row.train_steps, row.model, row.dataset, row.protocol, row.metric,
        row.num_frames, row.size,
    )  # fmt: skip


def _is_of(run: StudyRun, row: Row, source: str | None) -> bool:
    """Whether the row is of models trained on these videos, and measured on as many as the study has."""
    if source is not None and row.train_data != source:
        return False
    gallery, queries = run.gallery_clips, run.query_clips
    if row.dataset == PREFIX + SOURCE:
        gallery, queries = run.source_clips, run.source_test_clips
    expected = gallery if row.metric == "gallery_top1" else queries
    return (row.num_gallery, row.num_expected) == (gallery, expected)
