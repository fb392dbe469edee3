"""What the training engine costs beside a bare loop, and what a token budget does to memory (nano, CPU).

    python benchmarks/engine.py [OUT.json]

Overhead: both take the same steps on the same prepared batches, in turns, one by one: forward,
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
import torch._dynamo  # the optimiser imports it at its first step: 40 MiB that are no step's
import torch.nn.functional as F

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.data.clips.loader import Batch, batch_size_at
from stretchysnake.eval.sweeps.live_storages import LiveStorages
from stretchysnake.flexibility import NANO, scale_at, variant_named
from stretchysnake.ranks import SINGLE
from stretchysnake.results.rows import environment
from stretchysnake.train.checkpoints.outputs import RunLog
from stretchysnake.train.checkpoints.saving import Saver
from stretchysnake.train.checkpoints.state import new_state
from stretchysnake.train.loop import fit
from stretchysnake.train.optim import build_optimizer, lr_at
from stretchysnake.train.run import TrainRun
from stretchysnake.train.step import take_step

PASSES, STEPS, WARM_UP, BATCH = 3, 52, 4, 16
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


def bare_steps(batches: list[Batch]):
    """Takes the next step each time it is asked to; yields the processor time of it."""
    torch.manual_seed(0)
    model = VideoMamba(RUN.model).train()
    optimizer = build_optimizer(model, RUN.optim)
    for batch in batches:
        started = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = lr_at(RUN.optim, step=batch.step, steps=STEPS)
        loss = F.cross_entropy(model(batch.video, batch.scale.patch_size), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), RUN.optim.clip_norm)
        optimizer.step()
        loss.item()
        yield time.process_time() - started


def overhead() -> dict:
    batches = prepared()
    bare, bare_times, engine_times = bare_steps(batches), [], []

    def taken_in_turns(start: int):
        for batch in batches[start:]:
            bare_times.append(next(bare))
            started = time.process_time()
            yield batch  # here the engine takes its step, tells and saves
            engine_times.append(time.process_time() - started)

    torch.manual_seed(0)
    state = new_state(VideoMamba(RUN.model), RUN)
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(Path(folder) / "log.jsonl")
        saver = Saver(Path(folder) / "checkpoints", RUN, metadata={}, key="benchmark", log=log)
        fit(state, taken_in_turns, RUN, saver=saver, progress=lambda text: None)
        saver.save(state, runtime=SINGLE)
    pairs = list(zip(bare_times, engine_times, strict=True))[WARM_UP:]
    ratios = [engine / bare for bare, engine in pairs]
    quarters = statistics.quantiles(ratios, n=4)
    return {
        "steps": len(pairs),
        "batch_size": BATCH,
        "bare_cpu_seconds": round(sum(a for a, _ in pairs), 3),
        "engine_cpu_seconds": round(sum(b for _, b in pairs), 3),
        "overhead_percent_of_the_sums": round(
            100 * (sum(b for _, b in pairs) / sum(a for a, _ in pairs) - 1), 2
        ),
        "overhead_percent_quartiles_of_steps": [round(100 * (q - 1), 2) for q in quarters],
        "one_checkpoint_seconds": round(saver.last_took, 3),
    }


def scales_of(variant: str) -> list:
    drawn = {scale_at(variant_named(variant).using(NANO), seed=0, step=s) for s in range(2000)}
    return sorted(drawn, key=lambda scale: (scale.num_tokens, scale.size))


def status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}; this part needs Linux")


def step_bytes(scale, clips: int) -> tuple[int, int]:
    """By how much one training step makes a fresh process grow at its peak, weights, moments and clips included; and
    how much of that are tensors, without what the allocator keeps and kernels use inside."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        Path("/proc/self/clear_refs").write_text(
            "5"
        )  # forgets the peak of the process it was forked from
        before = status_bytes("VmRSS")
        state = new_state(VideoMamba(RUN.model), RUN)
        video = torch.rand(clips, 3, scale.num_frames, scale.size, scale.size)
        batch = Batch(0, scale, video, torch.arange(clips) % 10)
        fixed = video.untyped_storage().nbytes() + sum(p.nbytes for p in state.model.parameters())
        with LiveStorages((video, *state.model.parameters())) as live:
            take_step(state, state.model, batch, RUN, lr=1e-3, runtime=SINGLE)
        os.write(write, f"{status_bytes('VmHWM') - before} {live.peak + fixed}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        resident, tensors = pipe.read().split()
    return int(resident), int(tensors)


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
            peaks[key] = [round(peak / 2**20, 1) for peak in step_bytes(scale, clips)]
        spreads = [
            max(peak[kind] for peak in peaks.values()) / min(peak[kind] for peak in peaks.values())
            for kind in (0, 1)
        ]
        found[name] = {
            "spread_of_the_process": round(spreads[0], 2),
            "spread_of_its_tensors": round(spreads[1], 2),
            "peak_mib_of_process_and_tensors": peaks,
        }
    return found


def main() -> None:
    torch.set_num_threads(1)
    # first: a process forked from one that has worked would grow less, into memory already there
    spreads = {variant: memory_spread(variant) for variant in MEMORY_VARIANTS}
    passes = [overhead() for _ in range(PASSES)]
    found = {
        "overhead_percent": statistics.median(p["overhead_percent_of_the_sums"] for p in passes),
        "overhead_passes": passes,
        "memory": {"token_budget": TOKEN_BUDGET, "batch_size": FEW_CLIPS, **spreads},
        "threads": torch.get_num_threads(),
        "environment": environment(),
    }
    print(json.dumps(found, indent=1))
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
