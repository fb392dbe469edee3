"""What is measured of each model of the study: the list, as data, and its rows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stretchysnake.data.motion_digits import NUM_FRAMES
from stretchysnake.eval.features.placement import Placement
from stretchysnake.eval.protocols.protocol import Protocol
from stretchysnake.eval.sweeps.cost import count_flops
from stretchysnake.eval.sweeps.model_under_test import ModelUnderTest, model_under_test
from stretchysnake.eval.sweeps.resumed_sweep import resumed_sweep
from stretchysnake.flexibility import NANO, eval_scale, variant_named
from stretchysnake.models.architectures import config_named
from stretchysnake.recipes.motion_digits import MODEL, PREFIX, Suites
from stretchysnake.recipes.study.conditions import Condition, Training, is_tuned, transfers
from stretchysnake.recipes.study.design import (
    ABLATED,
    COMPARED,
    STATIC_PATCHES,
    StudyRun,
)
from stretchysnake.recipes.study.stored_rows import check_weights
from stretchysnake.results.rows import Row
from stretchysnake.train.checkpoints.outputs import TrainResult

SOURCE = "source"
"""The suite of (f)."""


class Measurement(NamedTuple):
    """Some protocols in some cells of some suites."""

    part: str
    cells: tuple[tuple[int, int], ...]
    protocols: tuple[Protocol, ...] = (Protocol(),)
    suites: tuple[str, ...] = ()
    """() for all but the source's."""
    patch_from: str | None = None
    patch_resize: str | None = None
    from_files: bool = False
    """Decoded from the files, where the frame cache holds too few frames or pixels."""


def measurements(run: StudyRun, condition: Condition) -> list[Measurement]:
    """All that is measured of the models of a condition, fine-tuning apart."""
    grid, part = tuple(run.cells), condition.part
    if part == "lengths":
        grid = tuple((condition.num_frames, size) for size in run.sizes)
    if not condition.is_main:
        # where a model may be the best flexible one at vanilla's own scale, gallery_top1 chooses it
        metrics = ("top1", "gallery_top1") if part in ("groups", "scratch") else ("top1",)
        found = [Measurement(part, grid, (Protocol(metrics=metrics),))]
        if part == "reasons":
            found.append(Measurement(part, grid, patch_from=_other_patches(condition)))
        return found
    # No image of a digit is on both sides, so the group-safe number differs inside the gallery alone.
    safe = Protocol(metrics=("top1", "gallery_top1"), group_safe=True)
    retrieval = Protocol(metrics=("top1", "recall@5", "gallery_top1"))
    found = [Measurement(part, grid, (retrieval, safe, Protocol(kind="probe")))]
    if condition.method in ABLATED:
        found.append(Measurement(part, grid, patch_from=STATIC_PATCHES))
    elif condition.method != "vanilla":
        found.append(Measurement("reasons", grid, patch_from=_other_patches(condition)))
    if run.source_test_clips:
        head = Protocol(kind="head")
        found.append(Measurement("source", grid, (head,), suites=(SOURCE,)))
    if condition.method in COMPARED:
        far = Protocol(apart="far")
        found.append(Measurement("far", tuple(run.far_cells), (far,), from_files=True))
    if condition.method == "vanilla":
        for resize in (None, "area", "pi"):
            options = {"patch_from": STATIC_PATCHES, "patch_resize": resize}
            found.append(Measurement("kernels", grid, **options))
        for views, cells in sorted(equal_views(run).items()):
            protocol = Protocol(num_views=views)
            found.append(Measurement("views", tuple(cells), (protocol,), from_files=True))
    return found


def parts_of(run: StudyRun, condition: Condition) -> set[str]:
    """The parts that need the models of a condition."""
    parts = {wanted.part for wanted in measurements(run, condition)}
    return parts | ({"transfer"} if is_tuned(run, condition) else set())


def wanted_of(run: StudyRun, training: Training) -> list[Measurement]:
    """Those measurements of its models that this sitting does."""
    return [
        one for one in measurements(run, training.condition) if run.wants(one.part, training.shown)
    ]


def _other_patches(condition: Condition) -> str:
    """Static tokens is also tested with the native patch, the others with the patches of static tokens."""
    return "vanilla" if condition.method == "static_tokens" else STATIC_PATCHES


def equal_views(run: StudyRun) -> dict[int, list[tuple[int, int]]]:
    """Number of views -> cells in which vanilla, averaging so many, costs the GFLOPs that static tokens costs in a
    cell of the grid: in that cell, where vanilla is the cheaper one, and at its own scale. One view is plain retrieval;
    more than the shortest clip has frames for would repeat others, and are left out.
    """
    shortest = min(NUM_FRAMES[suite] for suite in run.suites)
    config, native = config_named(MODEL, num_classes=0), NANO.native

    def flops(variant: str, t: int, s: int) -> float:
        bound = variant_named(variant).using(NANO)
        return count_flops(config, eval_scale(bound, num_frames=t, size=s))

    found: dict[int, list[tuple[int, int]]] = {}
    for t, s in run.cells:
        wanted = flops("static_tokens", t, s)
        for cell in dict.fromkeys([(t, s), (native.num_frames, native.size)]):
            views = round(wanted / flops("vanilla", *cell))
            if 1 < views <= shortest // cell[0] and cell not in found.setdefault(views, []):
                found[views].append(cell)
    return found


def measured(
    run: StudyRun,
    suites: Suites,
    training: Training,
    results: list[TrainResult],
    *,
    progress: Callable[[str], None] | None,
) -> None:
    """Measure all of a trained model that this sitting wants; the rows are kept in run.out/rows.jsonl."""
    told = told_of(suites, results)
    listed, weights = wanted_of(run, training), results[-1].weights
    if listed:
        own = model_of(training, weights).weights
        check_weights(run, training, own, source=suites.source_key)
    for wanted in listed:
        tested = model_of(training, weights, patch_resize=wanted.patch_resize)
        _rows(run, suites, tested, wanted, told, progress=progress)


def transferred(
    run: StudyRun,
    suites: Suites,
    training: Training,
    results: list[TrainResult],
    *,
    progress: Callable[[str], None] | None,
) -> None:
    """Fine-tuning on each suite's gallery, tested with several views on its queries."""
    from stretchysnake.train.loop import train

    weights, told = str(Path(training.run.out) / "weights.safetensors"), told_of(suites, results)
    for suite in suites.clips:
        place = {"data": str(suites.lists[suite][0]), "cache": suites.cache, "weights": weights}
        for protocol, wanted in transfers(run, suite, training, **place):
            result = train(wanted, progress=progress)
            tested = model_of(training, result.weights, suffix=f"-views{run.num_views}")
            protocols = (Protocol(kind=protocol, num_views=run.num_views),)
            what = Measurement("transfer", tuple(run.cross), protocols, suites=(suite,))
            _rows(run, suites, tested, what, told, progress=progress)


def model_of(training: Training, weights: str, **options) -> ModelUnderTest:
    """The model under test. A fine-tuned one keeps the rule of patches that it was pre-trained with."""
    return model_under_test(
        weights,
        variant=training.run.bound_variant,
        name=None if training.row_model == training.method else training.row_model,
        placement=Placement(device=training.run.device),
        **options,
    )


def told_of(suites: Suites, results: list[TrainResult]) -> dict[str, int | str]:
    """The fields of a Row that say what its pre-training saw: of a run from trained weights, with what made these."""
    return {
        "train_data": suites.source_key,
        "train_steps": sum(len(result.losses) for result in results),
        "train_clips": sum(result.clips for result in results),
        "train_tokens": sum(result.tokens for result in results),
    }


def _rows(
    run: StudyRun,
    suites: Suites,
    tested: ModelUnderTest,
    wanted: Measurement,
    told: dict[str, int | str],
    *,
    progress: Callable[[str], None] | None,
) -> None:
    def finish(row: Row) -> Row:
        return replace(row, **told)

    for suite in wanted.suites or suites.clips:
        resumed_sweep(
            Path(run.out) / "rows.jsonl",
            tested,
            PREFIX + suite,
            lambda suite=suite: suites.open(suite, from_files=wanted.from_files),
            wanted.cells,
            protocols=wanted.protocols,
            patch_from=wanted.patch_from,
            belongs=suites.hold,
            finish=finish,
            # what one architecture cannot take stands in the tables as that, and the others are measured
            refused_as_rows=bool(tested.name),
            feature_cache=str(Path(run.out) / "features"),
            progress=progress,
        )
