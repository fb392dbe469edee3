"""`study --dry-run`: how many trainings and cells, and how long, from steps and cells timed on this machine."""

import time
from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F

from stretchysnake.flexibility import NANO, Scale, eval_scale, scale_at, variant_named
from stretchysnake.models.config import VideoMambaConfig
from stretchysnake.models.videomamba import VideoMamba
from stretchysnake.recipes.study_plan import ABLATED, TRANSFERRED, StudyRun, trainings

SECONDS_PER_CLIP = 0.017
"""Making and decoding a video, from the quickstart's 64 s for 3,800 on two cores."""
SECONDS_PER_CELL = 0.7
"""Protocols, cost and writing of one cell beside its features; the probe takes most of it."""
LOADING = 1.25
"""Share that clips, log and checkpoints add to a bare step: the quickstart's vanilla step of 210 ms beside 165 bare."""
TIMED = (Scale(4, 32, 8), Scale(16, 32, 8), Scale(16, 48, 8))
"""Scales at which a step and a batch of features are timed: 64, 256 and 576 tokens."""


def study_cost(run: StudyRun) -> list[str]:
    """The lines to print: trainings, cells, and minutes by stage."""
    model = VideoMamba(VideoMambaConfig.named("nano", num_classes=40))
    step = _fitted(lambda video: _step(model.train(), video), run.batch_size)
    forward = _fitted(lambda video: _features(model.eval(), video), 32)
    planned = list(trainings(run, data="-", cache="-"))
    seconds = {
        "make the videos": SECONDS_PER_CLIP
        * (run.source_clips + 3 * (run.gallery_clips + run.query_clips)),
    }
    lines, train, measure, cells, transfer = [], 0.0, 0.0, 0, 0.0
    clips = run.gallery_clips + run.query_clips
    for training in planned:
        variant = training.run.bound_variant
        drawn = Counter(scale_at(variant, seed=training.seed, step=s) for s in range(run.steps))
        here = LOADING * sum(count * step(scale.num_tokens) for scale, count in drawn.items())
        train += here
        if training.seed == run.seeds[0]:
            name = (
                training.method
                if training.is_main
                else f"{training.method} at T={training.num_frames}"
            )
            tokens = sum(s.num_tokens * n for s, n in drawn.items()) / run.steps
            lines.append(f"  {name:<18} {tokens:7.0f} {here / 60:9.1f}")
        asked = run.cells if training.is_main else [(training.num_frames, s) for s in run.sizes]
        rules = [None, "static_tokens"] if training.method in ABLATED else [None]
        for rule in rules:
            for t, s in asked:
                tokens = eval_scale(variant, num_frames=t, size=s, patch_from=rule).num_tokens
                measure += len(run.suites) * (clips / 32 * forward(tokens) + SECONDS_PER_CELL)
                cells += len(run.suites)
        if run.finetune_steps and training.is_main and training.method in TRANSFERRED:
            times = len(run.suites) * (2 if run.sgd_probe else 1)
            transfer += times * LOADING * run.finetune_steps * step(NANO.native.num_tokens)
            for t, s in run.cross:
                rule = variant_named(training.method).using(NANO)
                tokens = eval_scale(rule, num_frames=t, size=s).num_tokens
                transfer += times * run.num_views * run.query_clips / 32 * forward(tokens)
    seconds |= {"train": train, "measure": measure, "fine-tune and test": transfer}
    total = sum(seconds.values())
    return [
        f"{len(planned)} trainings of {run.steps} steps, seeds {', '.join(map(str, run.seeds))}; "
        f"{cells} cells of {clips} clips",
        "",
        "  of one seed         tokens   minutes",
        *lines,
        "",
        *(f"  {stage:<20} {value / 60:6.1f} min" for stage, value in seconds.items()),
        f"  {'in all':<20} {total / 60:6.1f} min   ({total / 3600:.1f} h), from steps and batches timed here and now",
    ]


def _fitted(act: Callable[[torch.Tensor], None], clips: int) -> Callable[[int], float]:
    """Seconds of `act` on a batch as a line in its tokens per clip, through timings at TIMED."""
    tokens, times = [], []
    for scale in TIMED:
        video = torch.rand(clips, 3, scale.num_frames, scale.size, scale.size)
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            act(video)
            taken.append(time.perf_counter() - started)
        tokens.append([1.0, float(scale.num_tokens)])
        times.append([min(taken)])
    line = torch.linalg.lstsq(torch.tensor(tokens), torch.tensor(times)).solution.flatten().tolist()
    lowest = min(times)[0] / 4
    return lambda count: max(lowest, line[0] + line[1] * count)


def _step(model: VideoMamba, video: torch.Tensor) -> None:
    labels = torch.arange(len(video)) % 40
    F.cross_entropy(model(video, NANO.native.patch_size), labels).backward()
    model.zero_grad(set_to_none=True)


def _features(model: VideoMamba, video: torch.Tensor) -> None:
    with torch.inference_mode():
        model.features(video, NANO.native.patch_size)
