"""`study --dry-run`: how many trainings and cells, and how long, from steps and cells timed on this machine."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from stretchysnake.flexibility import NANO, Scale, eval_scale
from stretchysnake.models.architectures import create_model
from stretchysnake.models.backbone import Backbone
from stretchysnake.recipes.motion_digits import MODEL
from stretchysnake.recipes.study.conditions import Training, is_finished, is_tuned, trainings
from stretchysnake.recipes.study.design import PARTS, StudyRun
from stretchysnake.recipes.study.kept_rows import is_measured
from stretchysnake.recipes.study.measuring import Measurement, parts_of, wanted_of
from stretchysnake.recipes.study.stored_rows import rows_in
from stretchysnake.train.run import TrainRun

SECONDS_PER_CLIP = 0.017
"""Making and decoding a video, from the quickstart's 64 s for 3,800 on two cores."""
SECONDS_PER_CELL = 0.7
"""Protocols, cost and writing of one cell beside its features; the probe takes most of it."""
LOADING = 1.25
"""What clips, log and checkpoints add to a bare step: the quickstart's vanilla step of 210 ms beside 165 bare."""
RECORDED = 1.75e-3 / 32
"""Seconds of a training step for each token of each clip on two idle cores, loading included: the quickstart's 210 ms
for vanilla's 128 tokens and 287 ms for static tokens' 155; features take a third."""
TIMED = (Scale(4, 32, 8), Scale(16, 32, 8), Scale(16, 48, 8))
"""Scales at which a step and a batch of features of the study's own model are timed: 64, 256 and 576 tokens."""


class BatchCost(NamedTuple):
    """Seconds of one batch of a model, each from the tokens of a clip."""

    step: Callable[[int], float]
    """A training step of batch_size clips, loading apart."""
    features: Callable[[int], float]
    """The features of 32 clips."""


def study_cost(run: StudyRun) -> list[str]:
    """The lines to print: trainings and cells of this sitting, and minutes by condition, as timed now and as recorded
    on two idle cores; what is finished costs nothing more."""
    listed = list(trainings(run, data="-", cache="-"))
    asked = [t for t in listed if any(run.wants(p, t.shown) for p in parts_of(run, t.condition))]
    rows = rows_in(run)
    wanted = [training for training in asked if not is_measured(run, training, rows)]
    peers = dict.fromkeys(t.peer for t in wanted if t.peer)  # what is not asked for is not timed
    here = {name: _timed(name, run.batch_size) for name in (MODEL, *peers)}
    idle = {name: _recorded(here[name], here[MODEL], run.batch_size) for name in peers}
    idle[MODEL] = BatchCost(
        lambda tokens: RECORDED * tokens * run.batch_size / LOADING,
        lambda tokens: RECORDED * tokens * 32 / 3,
    )
    cells = sum(_num_cells(run, training) for training in wanted)
    made = SECONDS_PER_CLIP * (
        run.source_clips + run.source_test_clips + 3 * (run.gallery_clips + run.query_clips)
    )
    begun = f"a vanilla of {run.start_steps}" if run.start_steps else "scratch"
    lines = [
        f"{len(wanted)} trainings of {run.steps} steps, from {begun}, seeds "
        f"{', '.join(map(str, run.seeds))}; {cells} cells of {run.gallery_clips + run.query_clips} clips",
        f"{len(asked) - len(wanted)} more are finished and measured; trained of the whole study: "
        f"{sum(t.is_finished for t in listed)} of {len(listed)}",
        "parts, for --only: " + ", ".join(PARTS),
        "",
        "  minutes                                        here, now   two idle cores",
    ]
    stages = {"make the videos": [made, made]}
    started = set()
    for training in wanted:
        start = training.start
        if start is not None and not is_finished(start) and start.out not in started:
            started.add(start.out)
            stage = stages.setdefault("train what they go on from", [0.0, 0.0])
            for place, model in enumerate((here, idle)):
                stage[place] += _steps(start, model[training.peer or MODEL])
        for name, costs in (("train", _training), ("measure", _measuring)):
            if name == "train" and training.is_finished:
                continue
            stage = stages.setdefault(f"{name} {training.shown}", [0.0, 0.0])
            for place, model in enumerate((here, idle)):
                stage[place] += costs(run, training, model[training.peer or MODEL])
    stages["in all"] = [sum(pair[place] for pair in stages.values()) for place in (0, 1)]
    for stage, (now, recorded) in stages.items():
        lines.append(f"  {stage:<46} {now / 60:9.1f} {recorded / 60:16.1f}")
    return lines


def _training(run: StudyRun, training: Training, cost: BatchCost) -> float:
    """Seconds of a training, without what it starts from."""
    return _steps(training.run, cost)


def _steps(run: TrainRun, cost: BatchCost) -> float:
    seconds = 0.0
    for step in range(run.steps):
        scales = run.scales_of(step)
        seconds += sum(cost.step(scale.num_tokens) for scale in scales) / len(scales)
    return LOADING * seconds


def _measuring(run: StudyRun, training: Training, cost: BatchCost) -> float:
    """Seconds of all that is measured of a training in this sitting, and of its fine-tuning."""
    clips, seconds = run.gallery_clips + run.query_clips, 0.0
    for wanted in wanted_of(run, training):
        suites = len(wanted.suites or run.suites)
        seen = run.source_test_clips if wanted.part == "source" else clips
        views = max(protocol.num_views for protocol in wanted.protocols)
        for scale in _scales(training, wanted):
            each = views * seen / 32 * cost.features(scale.num_tokens) + SECONDS_PER_CELL
            seconds += suites * (each + (SECONDS_PER_CLIP * seen if wanted.from_files else 0.0))
    if is_tuned(run, training.condition) and run.wants("transfer", training.shown):
        times = len(run.suites) * (2 if run.sgd_probe else 1)
        seconds += times * LOADING * run.finetune_steps * cost.step(NANO.native.num_tokens)
        for t, s in run.cross:
            tokens = eval_scale(training.run.bound_variant, num_frames=t, size=s).num_tokens
            seconds += times * run.num_views * run.query_clips / 32 * cost.features(tokens)
    return seconds


def _num_cells(run: StudyRun, training: Training) -> int:
    return sum(
        len(wanted.cells) * len(wanted.suites or run.suites) for wanted in wanted_of(run, training)
    )


def _scales(training: Training, wanted: Measurement) -> list[Scale]:
    """The scales of one suite that a measurement is made at."""
    return [
        eval_scale(training.run.bound_variant, num_frames=t, size=s, patch_from=wanted.patch_from)
        for t, s in wanted.cells
    ]


def _timed(name: str, batch_size: int) -> BatchCost:
    """The cost of a model on this machine, now."""
    model = create_model(name, num_classes=40)
    fitted = _fitted if name == MODEL else _in_proportion
    return BatchCost(fitted(model.train(), _step, batch_size), fitted(model.eval(), _features, 32))


def _recorded(peer: BatchCost, own: BatchCost, batch_size: int) -> BatchCost:
    """What a peer takes beside the study's own model here, it takes on two idle cores, where only that was recorded."""
    native = NANO.native.num_tokens
    step = RECORDED * native * batch_size / LOADING / own.step(native)
    features = RECORDED * native * 32 / 3 / own.features(native)
    return BatchCost(
        lambda tokens: step * peer.step(tokens), lambda tokens: features * peer.features(tokens)
    )


def _fitted(
    model: Backbone, act: Callable[[Backbone, torch.Tensor], None], clips: int
) -> Callable[[int], float]:
    """Seconds of `act` on a batch as a line in its tokens per clip, through timings at TIMED."""
    tokens, times = [], []
    for scale in TIMED:
        tokens.append([1.0, float(scale.num_tokens)])
        times.append([_seconds(model, act, clips, scale)])
    line = torch.linalg.lstsq(torch.tensor(tokens), torch.tensor(times)).solution.flatten().tolist()
    lowest = min(times)[0] / 4
    return lambda count: max(lowest, line[0] + line[1] * count)


def _in_proportion(
    model: Backbone, act: Callable[[Backbone, torch.Tensor], None], clips: int
) -> Callable[[int], float]:
    """As `_fitted`, in proportion to the time at the native scale: a dry run must not train for minutes."""
    native = model.config.native
    taken = _seconds(model, act, clips, native) / native.num_tokens
    return lambda count: taken * count


def _seconds(
    model: Backbone, act: Callable[[Backbone, torch.Tensor], None], clips: int, scale: Scale
) -> float:
    video = torch.rand(clips, 3, scale.num_frames, scale.size, scale.size)
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        act(model, video)
        taken.append(time.perf_counter() - started)
    return min(taken)


def _step(model: Backbone, video: torch.Tensor) -> None:
    labels = torch.arange(len(video)) % 40
    F.cross_entropy(model(video), labels).backward()
    model.zero_grad(set_to_none=True)


def _features(model: Backbone, video: torch.Tensor) -> None:
    with torch.inference_mode():
        model.features(video)
