"""What the training engine costs beside a bare loop, and what a token budget does to memory (nano, CPU).

    python benchmarks/engine.py [OUT.json]

Overhead: both take the same steps on the same prepared batches, in turns, several times: forward,
backward, clipping, AdamW, schedule. The engine adds its checks, log, counts and, by time, checkpoints. Processor time
of one thread, so that others on the machine count little.
Memory: the peak of one step in a fresh process at each scale of a variant, with token_budget and with a batch_size.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.data.loader import Batch, batch_size_at
from stretchysnake.flexibility import NANO, scale_at, variant_named
from stretchysnake.results import environment
from stretchysnake.train.loop import fit
from stretchysnake.train.optim import build_optimizer, lr_at
from stretchysnake.train.outputs import RunLog
from stretchysnake.train.run import TrainRun
from stretchysnake.train.runtime import SINGLE
from stretchysnake.train.saving import Saver
from stretchysnake.train.state import new_state
from stretchysnake.train.step import take_step

STEPS, REPEATS, BATCH = 16, 5, 16
TOKEN_BUDGET, FEW_CLIPS = 8192, 4
MEMORY_VARIANTS = ("static_patch", "static_tokens")
RUN = TrainRun(
    data="-",
    out="-",
    variant="static_tokens",
    model=VideoMambaConfig.named("nano", num_classes=10),
    steps=STEPS,
    batch_size=BATCH,
)


def prepared() -> list[Batch]:
    variant = variant_named(RUN.variant).using(NANO)
    batches = []
    for step in range(STEPS):
        scale = scale_at(variant, seed=0, step=step)
        video = torch.rand(BATCH, 3, scale.num_frames, scale.size, scale.size)
        batches.append(Batch(step, scale, video, torch.arange(BATCH) % 10))
    return batches


def bare(batches: list[Batch], folder: Path | None = None) -> float:
    torch.manual_seed(0)
    model = VideoMamba(RUN.model).train()
    optimizer = build_optimizer(model, RUN.optim)
    started = time.process_time()
    for batch in batches:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(RUN.optim, step=batch.step, steps=STEPS)
        loss = F.cross_entropy(model(batch.video, batch.scale.patch_size), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), RUN.optim.clip_norm)
        optimizer.step()
        loss.item()
    return time.process_time() - started


def engine(batches: list[Batch], folder: Path) -> float:
    torch.manual_seed(0)
    state = new_state(VideoMamba(RUN.model), RUN)
    log = RunLog(folder / "log.jsonl")
    saver = Saver(folder / "checkpoints", RUN, metadata={}, key="benchmark", log=log)
    started = time.process_time()
    fit(state, lambda start: batches[start:], RUN, saver=saver, progress=lambda text: None)
    return time.process_time() - started


def scales_of(variant: str) -> list:
    drawn = {scale_at(variant_named(variant).using(NANO), seed=0, step=s) for s in range(2000)}
    return sorted(drawn, key=lambda scale: (scale.num_tokens, scale.size))


def status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}; this part needs Linux")


def step_bytes(scale, clips: int) -> int:
    """By how much one training step makes a fresh process grow at its peak: weights, moments and clips included."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        before = status_bytes("VmRSS")
        state = new_state(VideoMamba(RUN.model), RUN)
        video = torch.rand(clips, 3, scale.num_frames, scale.size, scale.size)
        batch = Batch(0, scale, video, torch.arange(clips) % 10)
        take_step(state, state.model, batch, RUN, lr=1e-3, runtime=SINGLE)
        os.write(write, str(status_bytes("VmHWM") - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        return int(pipe.read())


def memory_spread(variant: str) -> dict:
    """Largest over smallest peak of a step among a variant's scales: with as many tokens a batch, or as many clips."""
    found = {}
    for name, options in (
        ("token_budget", {"batch_size": 1, "token_budget": TOKEN_BUDGET}),
        ("batch_size", {"batch_size": FEW_CLIPS}),
    ):
        peaks = {}
        for scale in scales_of(variant):
            clips = batch_size_at(scale, **options)
            key = f"T{scale.num_frames} S{scale.size} P{scale.patch_size} x {clips}"
            peaks[key] = round(step_bytes(scale, clips) / 2**20, 1)
        spread = max(peaks.values()) / min(peaks.values())
        found[name] = {"spread": round(spread, 2), "peak_mib": peaks}
    return found


def overhead() -> dict:
    batches = prepared()
    bare(batches[:5])
    with tempfile.TemporaryDirectory() as folder:
        pairs = []
        for repeat in range(REPEATS):  # who goes first alternates
            first, second = (bare, engine) if repeat % 2 else (engine, bare)
            times = {run: run(batches, Path(folder)) for run in (first, second)}
            pairs.append((times[bare], times[engine]))
        torch.manual_seed(0)
        state = new_state(VideoMamba(RUN.model), RUN)
        saver = Saver(Path(folder) / "one", RUN, metadata={}, key="-", log=RunLog(None))
        fit(state, lambda start: batches[start:2], RUN, steps=2, saver=saver)
        saver.save(state, runtime=SINGLE)
    ratios = [engine_seconds / bare_seconds for bare_seconds, engine_seconds in pairs]
    return {
        "steps": STEPS,
        "batch_size": BATCH,
        "bare_cpu_seconds": [round(a, 3) for a, _ in pairs],
        "engine_cpu_seconds": [round(b, 3) for _, b in pairs],
        "overhead_percent_median": round(100 * (statistics.median(ratios) - 1), 2),
        "overhead_percent_all": [round(100 * (ratio - 1), 2) for ratio in ratios],
        "one_checkpoint_seconds": round(saver.last_took, 3),
    }


def main() -> None:
    torch.set_num_threads(1)
    found = {
        "overhead": overhead(),
        "memory": {
            "token_budget": TOKEN_BUDGET,
            "batch_size": FEW_CLIPS,
            **{variant: memory_spread(variant) for variant in MEMORY_VARIANTS},
        },
        "threads": torch.get_num_threads(),
        "environment": environment(),
    }
    print(json.dumps(found, indent=1))
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
