"""`study --dry-run`: how many trainings and cells, and how long, from steps and cells timed on this machine."""

import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from stretchysnake.flexibility import NANO, Scale, eval_scale, scale_at
from stretchysnake.models.architectures import create_model
from stretchysnake.models.backbone import Backbone
from stretchysnake.recipes.motion_digits import MODEL
from stretchysnake.recipes.study.design import (
    ABLATED,
    STATIC_PATCHES,
    TRANSFERRED,
    StudyRun,
    Training,
    trainings,
)

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
    """The lines to print: trainings, cells, and minutes by stage, as timed now and as recorded on two idle cores."""
    here = {name: _timed(name, run.batch_size) for name in (MODEL, *run.peers)}
    idle = {name: _recorded(here[name], here[MODEL], run.batch_size) for name in run.peers}
    idle[MODEL] = BatchCost(
        lambda tokens: RECORDED * tokens * run.batch_size / LOADING,
        lambda tokens: RECORDED * tokens * 32 / 3,
    )
    timed, recorded = _stages(run, here), _stages(run, idle)
    planned = list(trainings(run, data="-", cache="-"))
    cells = sum(len(_tested(run, training)) for training in planned) * len(run.suites)
    lines = [
        f"{len(planned)} trainings of {run.steps} steps, seeds {', '.join(map(str, run.seeds))}; "
        f"{cells} cells of {run.gallery_clips + run.query_clips} clips",
        "",
        "  minutes                               here, now   two idle cores",
    ]
    for stage in timed:
        lines.append(f"  {stage:<37} {timed[stage] / 60:9.1f} {recorded[stage] / 60:16.1f}")
    total = [sum(stages.values()) / 60 for stages in (timed, recorded)]
    lines.append(f"  {'in all':<37} {total[0]:9.1f} {total[1]:16.1f}")
    return lines


def _stages(run: StudyRun, costs: dict[str, BatchCost]) -> dict[str, float]:
    """Seconds of each stage, by the cost of each model."""
    suites, clips = len(run.suites), run.gallery_clips + run.query_clips
    seconds = {"make the videos": SECONDS_PER_CLIP * (run.source_clips + 3 * clips)}
    measure = transfer = 0.0
    for training in trainings(run, data="-", cache="-"):
        variant = training.run.bound_variant
        step, forward = costs[training.peer or MODEL]
        drawn = Counter(scale_at(variant, seed=training.seed, step=s) for s in range(run.steps))
        cost = LOADING * sum(count * step(scale.num_tokens) for scale, count in drawn.items())
        name = f"train {training.shown}"
        seconds[name] = seconds.get(name, 0.0) + cost
        for scale in _tested(run, training):
            cost = clips / 32 * forward(scale.num_tokens) + SECONDS_PER_CELL
            measure += suites * cost
        if run.finetune_steps and training.is_main and training.method in TRANSFERRED:
            times = suites * (2 if run.sgd_probe else 1)
            transfer += times * LOADING * run.finetune_steps * step(NANO.native.num_tokens)
            for t, s in run.cross:
                tokens = eval_scale(variant, num_frames=t, size=s).num_tokens
                transfer += times * run.num_views * run.query_clips / 32 * forward(tokens)
    return seconds | {"measure": measure, "fine-tune and test": transfer}


def _tested(run: StudyRun, training: Training) -> list[Scale]:
    """The scales of one suite that the training's model is measured at, Table A2's twice."""
    variant = training.run.bound_variant
    rules = [None, STATIC_PATCHES] if training.method in ABLATED else [None]
    return [
        eval_scale(variant, num_frames=t, size=s, patch_from=rule)
        for rule in rules
        for t, s in run.cells_of(training)
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
