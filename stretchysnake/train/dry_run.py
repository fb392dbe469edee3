"""`train --dry-run`: what a run would read, compute, need and write, without decoding a frame or writing a byte."""

import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from stretchysnake.data.clips.training_order import group_sizes
from stretchysnake.eval.sweeps.cost import count_flops, estimate_training_memory
from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import build_model
from stretchysnake.models.backbone import BackboneConfig
from stretchysnake.models.sequences.packed import packs_clips
from stretchysnake.models.weights.from_file import fill
from stretchysnake.models.weights.published.named import file_here, is_here
from stretchysnake.models.weights.published.reference import is_by_name
from stretchysnake.ops.native import library as native_library
from stretchysnake.ranks import SINGLE, Runtime
from stretchysnake.train.checkpoints.checkpoint import checkpoints_in
from stretchysnake.train.labels import labelled_records
from stretchysnake.train.run import TrainRun
from stretchysnake.train.schedule import check_drawn_scales, total_steps
from stretchysnake.train.step import most_clips, parts_of

DRAWS = 4000
"""Steps whose scales are drawn to estimate the shares; a shorter run is taken whole."""


@dataclass(frozen=True, kw_only=True)
class ScaleCost:
    """A scale of a run: how often it is drawn, and what one step, or group of a step, at it costs."""

    scale: Scale
    share: float
    """Of the steps; of several scales a step, how many groups of it a step has on average."""
    clips: int
    passes: int
    """Forward passes of one rank in one step."""
    tokens: int
    gflops: float
    """Of one step over all ranks: forward, backward (twice the forward), and again forward where recomputed."""
    memory: int
    """Bytes of one rank."""


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """What a whole run costs."""

    steps: int
    parameters: int
    scales: list[ScaleCost]
    packed_memory: int = 0
    """Bytes of one rank in the largest step whose scales share one pass, if it has the largest share of each; 0 where
    they do not."""

    @property
    def gflops_per_step(self) -> float:
        return sum(cost.share * cost.gflops for cost in self.scales)

    @property
    def exaflops(self) -> float:
        """Floating-point operations of the run, in 10^18."""
        return self.gflops_per_step * self.steps / 1e9

    @property
    def memory(self) -> int:
        """Bytes of one rank at the largest scale, or in the largest packed step."""
        return max(self.packed_memory, *(cost.memory for cost in self.scales))


def run_cost(run: TrainRun, *, num_clips: int, runtime: Runtime = SINGLE) -> RunCost:
    """Cost of a run on `num_clips` videos, from its scales and eval/sweeps/cost.py's operation counts."""
    steps = total_steps(run, num_clips)
    drawn: Counter[tuple[Scale, int]] = Counter()
    steps_drawn = set()
    for step in range(min(steps, DRAWS)):
        step_scales = run.scales_of(step)
        sizes = group_sizes(step_scales, **run.clips_of_a_step)
        groups = list(zip(step_scales, sizes, strict=True))
        drawn.update(groups)
        steps_drawn.add(tuple(groups))
    with torch.device("meta"):
        model = build_model(run.model)
    parameters = sum(p.numel() for p in model.parameters())
    scales = []
    for (scale, clips), count in sorted(drawn.items(), key=lambda item: item[0][0].num_tokens):
        parts = parts_of(range(most_clips(clips, run, runtime)), scale, run)
        passes = 1.0 if run.trainable == "head" else 4.0 if run.activation_checkpointing else 3.0
        scales.append(
            ScaleCost(
                scale=scale,
                share=count / min(steps, DRAWS),
                clips=clips,
                passes=len(parts),
                tokens=clips * scale.num_tokens,
                gflops=passes * clips * count_flops(run.model, scale) / 1e9,
                memory=training_memory(
                    run,
                    scale,
                    clips=max(map(len, parts)),
                    # of sliced weights, gradients and moments a rank holds its part
                    parameters=parameters // (runtime.world_size if run.parallel == "fsdp" else 1),
                ),
            )
        )
    return RunCost(
        steps=steps,
        parameters=parameters,
        scales=scales,
        packed_memory=_packed_memory(run, steps_drawn, scales, parameters, packs_clips(model)),
    )


def _packed_memory(
    run: TrainRun, steps_drawn: set, scales: list[ScaleCost], parameters: int, packs: bool
) -> int:
    """Of the largest step whose groups make one pass. tokens_per_pass bounds a pass to what one scale's has."""
    alone = run.compile or run.parallel == "fsdp" or run.accumulate > 1 or run.tokens_per_pass
    if not packs or run.scales_per_step == 1 or alone:
        return 0
    states = training_memory(run, scales[0].scale, clips=0, parameters=parameters)
    own = {(cost.scale, cost.clips): cost.memory - states for cost in scales}
    return states + max(sum(own[group] for group in groups) for groups in steps_drawn)


def training_memory(run: TrainRun, scale: Scale, *, clips: int, parameters: int) -> int:
    """Bytes that a step holds at its peak: weights, gradients, moments, average, and what backward needs.

    By the config's own formula where it has one (a table of 64 scales is instantaneous, measured in tests within a
    factor 1.3), else counted on the model, a third of a second for a scale.
    """
    config = run.model
    states = 4 if run.trainable == "head" else 16
    states += 4 if run.ema_decay else 0
    wide = (
        1.25 if run.precision == "bf16" else 2 if run.precision == "fp64" else 1
    )  # bf16 keeps casts
    recompute = run.activation_checkpointing
    if not hasattr(config, "kept_floats"):
        clips_bytes = estimate_training_memory(config, scale, clips=clips, recompute=recompute)
        return int(parameters * states + wide * clips_bytes)
    on_cpu = run.device == "cpu" or (run.device == "auto" and not torch.cuda.is_available())
    joined = on_cpu and run.precision != "bf16" and native_library.is_available()
    inside = 4 * wide * config.kept_floats(joined=joined)
    if run.trainable == "head":
        bytes_per_token = inside
    elif recompute:  # the ends of every block and all of one
        bytes_per_token = config.depth * 8 * config.feature_dim + inside
    else:
        bytes_per_token = config.depth * inside
    tokens = clips * (1 + scale.num_tokens // config.frame_multiple)
    pixels = clips * 3 * scale.num_frames * scale.size**2
    return int(parameters * states + tokens * bytes_per_token + 8 * pixels)


def seconds_per_gflop(run: TrainRun, cost: RunCost, *, device: torch.device) -> float:
    """Time of one GFLOP: forward and backward of one clip at the cheapest scale through one block on this device."""
    cheapest = min(cost.scales, key=lambda item: item.scale.num_tokens).scale
    one_block = {"depth": 1} if getattr(run.model, "equal_blocks", False) else {}
    config = replace(run.model, drop_path=0.0, **one_block)
    model = build_model(config).to(device).train()
    shape = (1, 3, cheapest.num_frames, cheapest.size, cheapest.size)
    video, label = (
        torch.rand(shape, device=device),
        torch.zeros(1, dtype=torch.int64, device=device),
    )
    started = time.perf_counter()
    for repeat in range(4):
        with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16"):
            logits = model(video, cheapest.patch_size, grid="floor")
        F.cross_entropy(logits.float(), label).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed, started = time.perf_counter() - started, time.perf_counter()
        if elapsed > 2 or repeat == 3:  # slow enough that a warm-up makes no difference
            break
    return elapsed / (3 * count_flops(config, cheapest) / 1e9)


def dry_run(run: TrainRun, *, runtime: Runtime = SINGLE) -> list[str]:
    """The lines to print; ValueError for what would stop the run at its start."""
    labelled = labelled_records(run)
    records, classes = labelled.records, len(labelled.names)
    check_drawn_scales(run, total_steps(run, len(records)))
    missing = [record for record in records if not Path(record.path).is_file()]
    if run.model.num_classes == 0:
        run = replace(run, model=replace(run.model, num_classes=classes))
    if run.weights is not None and (file := file_here(run.weights)) is not None:
        fill(file, build_model(run.model))  # as the training does: refuses what does not fit
    device = runtime.device(run.device)
    cost = run_cost(run, num_clips=len(records), runtime=runtime)
    speed = seconds_per_gflop(run, cost, device=device)
    seconds = speed * cost.gflops_per_step * cost.steps / runtime.world_size
    out = Path(run.out)
    lines = [
        f"data      {run.data}: {len(records)} videos, {classes} classes",
        f"model     {_size_name(run.model)}, {cost.parameters / 1e6:.1f} M parameters, "
        f"{run.precision} on {runtime.world_size} x {device}",
        f"start     {_start(run, out)}",
        f"steps     {cost.steps} of {run.batch_size} clips"
        + (f" ({run.epochs:g} epochs)" if run.epochs else ""),
        *([] if run.fit == "square" else [_fitted(run.fit)]),
        "",
        "  T    S   P   share  clips  passes     tokens  GFLOP/step  memory GiB",
    ]
    if missing:
        lines.insert(1, f"          {len(missing)} of them are not there, first {missing[0].path}")
    for item in cost.scales:
        s = item.scale
        lines.append(
            f"{s.num_frames:3d} {s.size:4d} {s.patch_size:3d}  {item.share:5.1%} {item.clips:6d} "
            f"{item.passes:7d} {item.tokens:10d} {item.gflops:11.1f} {item.memory / 2**30:11.2f}"
        )
    weights = 4 * cost.parameters
    checkpoint = weights * (4 if run.ema_decay else 3)
    lines += [
        "",
        f"compute   {cost.exaflops:.4g} EFLOP in all; {cost.exaflops * 1e18 / 1e14 / 3600:.3g} GPU-hours "
        "at 100 TFLOP/s sustained (an assumption, not a measurement)",
        f"memory    {cost.memory / 2**30:.2f} GiB a rank "
        + ("in the largest step" if cost.packed_memory else "at the largest scale"),
        f"time      {_duration(seconds)} at the speed of this machine ({1 / speed:.1f} GFLOP/s, measured on one clip; "
        "without reading videos)",
        f"writes    {out / 'weights.safetensors'} {_bytes(weights)}, {out / 'checkpoints'} up to "
        f"{run.keep_checkpoints + 1} x {_bytes(checkpoint)}, run.json, loss.jsonl, log.jsonl",
    ]
    if run.cache:
        pixels = len(records) * run.cache_frames * run.cache_size**2 * 3
        lines.append(f"          frame cache {run.cache} {_bytes(pixels)}")
    return lines


def _fitted(fit: str) -> str:
    most = (
        ": every video in its shape, costs and tokens below are the most" if fit == "keep" else ""
    )
    return f"fit       {fit}{most}"


def _start(run: TrainRun, out: Path) -> str:
    if (out / "run.json").is_file():
        return f"{out} already holds a finished run"
    checkpoints = checkpoints_in(out / "checkpoints")
    if checkpoints:
        return f"goes on from {checkpoints[-1]}, if the run is the same"
    if run.weights is None:
        return "from scratch"
    if is_by_name(run.weights):
        return f"{run.weights}" + ("" if is_here(run.weights) else " (to be fetched)")
    return f"{run.weights}" + ("" if Path(run.weights).exists() else " (not there yet)")


def _size_name(config: BackboneConfig) -> str:
    depth = f", {config.depth} deep" if isinstance(getattr(config, "depth", None), int) else ""
    return f"{type(config).__name__.removesuffix('Config')} {config.feature_dim} wide{depth}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
