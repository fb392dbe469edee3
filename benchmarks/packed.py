"""Clips of different shapes packed into one pass: against one by one, against one scale a step, and in memory.

    OMP_WAIT_POLICY=passive python benchmarks/packed.py [--rounds 5] [--out benchmarks/results/packed.json]

Gate: packed features and gradients in fp64 are those of each clip alone within 1e-10, before anything is timed.
Features: 64 clips of 16 shapes, one by one, shape by shape (a batch of each) and packed.
Steps: four scales, 4 groups a step, packed and group by group,
against the same clips as four steps of one scale each: the same clips and tokens, so the ratio is the cost of mixing.
Memory: what a packed step adds to the process's peak, against what steps of one scale predict for its tokens.

All by processor time on one thread, in turns; a ratio is the median of those of the rounds. Threads and caches are
shared with whatever else runs: the load is written beside the numbers.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from stretchysnake import Scale, VideoMamba, VideoMambaConfig, keep_freed_memory
from stretchysnake.data.clips.loader import Batch, MixedBatch
from stretchysnake.flexibility import sets_around
from stretchysnake.ranks import SINGLE
from stretchysnake.results.rows import environment
from stretchysnake.train import step as training_step
from stretchysnake.train.checkpoints.state import new_state
from stretchysnake.train.run import TrainRun

GROUPS = 4
SHAPES = {  # frames, sizes, patch: clips of 37 to 577 tokens of nano, 19 to 393 of tiny
    "nano": ((4, 8, 12, 16), (24, 32, 40, 48), 8),
    "tiny": ((2, 4, 6, 8), (48, 64, 96, 112), 16),
}
SCALES = {
    "nano": [Scale(8, 24, 8), Scale(12, 32, 8), Scale(4, 40, 8), Scale(4, 48, 8)],
    "tiny": [Scale(4, 48, 16), Scale(6, 64, 16), Scale(2, 80, 16), Scale(2, 96, 16)],
}
CLIPS = {"nano": 32, "tiny": 16}


def gate() -> float:
    """The largest difference between packed and alone, features and gradients, in fp64."""
    torch.manual_seed(0)
    model = VideoMamba(VideoMambaConfig.named("nano", num_classes=5)).double().train()
    shapes = [(4, 24, 24, 8), (3, 25, 40, 5), (1, 48, 16, 16), (4, 24, 24, 8)]
    clips = [torch.randn(3, *shape[:3], dtype=torch.float64) for shape in shapes]
    patches = [patch for *_, patch in shapes]
    outcomes = []
    for compute in (
        lambda: model.forward_packed(clips, patches),
        lambda: torch.cat([model(c[None], p) for c, p in zip(clips, patches, strict=True)]),
    ):
        model.zero_grad()
        logits = compute()
        logits.square().sum().backward()
        outcomes.append([logits.detach(), *(p.grad.clone() for p in model.parameters())])
    error = max((a - b).abs().max().item() for a, b in zip(*outcomes, strict=True))
    assert error < 1e-10, error
    return error


def in_turns(works: dict, rounds: int, against: str) -> dict:
    """Processor seconds of each, and the ratio of each to `against` in the same round; the first round warms up."""
    times = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = time.process_time()
            work()
            if number:
                times[name].append(time.process_time() - started)
    found = {}
    for name, own in times.items():
        ratios = [a / b for a, b in zip(own, times[against], strict=True)]
        found[name] = {
            "cpu_seconds_median": round(statistics.median(own), 4),
            "cpu_seconds_min_max": [round(min(own), 4), round(max(own), 4)],
            f"ratio_to_{against}": round(statistics.median(ratios), 3),
            "ratio_min_max": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    return found


@torch.inference_mode()
def features(name: str, rounds: int) -> dict:
    torch.manual_seed(0)
    frames, sizes, patch = SHAPES[name]
    model = VideoMamba(VideoMambaConfig.named(name, num_classes=0)).eval()
    shapes = [(t, s, s) for t in frames for s in sizes]
    clips = [torch.randn(3, *shapes[i % 16]) for i in range(64)]
    by_shape = [torch.stack(clips[i::16]) for i in range(16)]
    works = {
        "one_by_one": lambda: torch.cat([model.features(clip[None]) for clip in clips]),
        "shape_by_shape": lambda: [model.features(batch) for batch in by_shape],
        "packed": lambda: model.features_packed(clips),
    }
    tokens = sum(1 + t * (s // patch) ** 2 for t, s, _ in shapes) * 4
    return {"clips": 64, "shapes": 16, "tokens": tokens, **in_turns(works, rounds, "one_by_one")}


def run_of(name: str) -> TrainRun:
    config = VideoMambaConfig.named(name, num_classes=10)
    sets = sets_around(config.native)
    return TrainRun(data="-", out="-", variant="vanilla", model=config, sets=sets, steps=10_000)


def groups_of_steps(name: str, clips: int) -> list[Batch]:
    """A batch of each scale."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for scale in SCALES[name]:
        shape = (clips, 3, scale.num_frames, scale.size, scale.size)
        video = torch.randn(shape, generator=generator)
        found.append(Batch(0, scale, video, torch.arange(clips) % 10, clips, list(range(clips))))
    return found


def mixed(batches: list[Batch], part: int) -> MixedBatch:
    """The part-th quarter of every batch, as groups of one step."""
    size = len(batches[0].labels) // GROUPS
    rows = slice(part * size, (part + 1) * size)
    groups = [
        b._replace(video=b.video[rows], labels=b.labels[rows], asked=size, places=list(range(size)))
        for b in batches
    ]
    return MixedBatch(0, tuple(groups), GROUPS * size)


def steps(name: str, rounds: int) -> dict:
    torch.manual_seed(0)
    run = run_of(name)
    state = new_state(VideoMamba(run.model).train(), run)
    batches = groups_of_steps(name, CLIPS[name])

    def take(each):
        for batch in each:
            training_step.take_step(state, state.model, batch, run, lr=1e-6, runtime=SINGLE)

    packs = training_step.packs_groups

    def group_by_group():
        training_step.packs_groups = lambda *_: False
        take(mixed(batches, part) for part in range(GROUPS))
        training_step.packs_groups = packs

    works = {
        "one_scale_a_step": lambda: take(batches),
        "four_scales_group_by_group": group_by_group,
        "four_scales_packed": lambda: take(mixed(batches, part) for part in range(GROUPS)),
    }
    tokens = sum(len(b.labels) * (1 + b.scale.num_tokens) for b in batches)
    return {
        "clips_a_step": CLIPS[name],
        "tokens_of_four_steps": tokens,
        **in_turns(works, rounds, "one_scale_a_step"),
    }


def peak_bytes(scales: str, clips: int) -> int:
    """What one training step of nano adds to the peak memory of a process that has taken a small one."""
    run = run_of("nano")
    state = new_state(VideoMamba(run.model).train(), run)
    batches = groups_of_steps("nano", clips)
    small = groups_of_steps("nano", GROUPS)
    take = training_step.take_step
    take(state, state.model, mixed(small, 0), run, lr=1e-6, runtime=SINGLE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batch = mixed(batches, 0) if scales == "packed" else batches[int(scales)]
    take(state, state.model, batch, run, lr=1e-6, runtime=SINGLE)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def memory() -> dict:
    """A packed step of 4 x 64 clips against 256 clips of one scale, each in a process of its own."""
    clips, found = 256, {}
    for scales in ("0", "1", "2", "3", "packed"):
        command = [sys.executable, __file__, "--peak", scales, str(clips)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[scales] = int(done.stdout)
    tokens = [1 + scale.num_tokens for scale in SCALES["nano"]]
    per_token = [found[str(i)] / (clips * tokens[i]) for i in range(GROUPS)]
    predicted = statistics.mean(per_token) * sum(tokens) * clips / GROUPS
    return {
        "clips": clips,
        "tokens": sum(tokens) * clips // GROUPS,
        "bytes_a_token_of_one_scale": [round(value) for value in per_token],
        "predicted_mib": round(predicted / 2**20, 1),
        "measured_mib": round(found["packed"] / 2**20, 1),
        "ratio": round(found["packed"] / predicted, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=["nano", "tiny"], choices=["nano", "tiny"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/packed.json"))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        print(peak_bytes(options.peak[0], int(options.peak[1])))
        return
    keep_freed_memory()
    error = gate()
    for name in options.only:
        parts = {"features": features, "steps": steps}
        if name == "nano":
            parts["memory"] = lambda *_: memory()
        for part, measure in parts.items():
            before = os.getloadavg()[0]
            found = measure(name, options.rounds)
            found |= {"rounds": options.rounds, "load": [before, os.getloadavg()[0]]}
            print(part, name, json.dumps(found), flush=True)
            # the parts measured before stay: a loaded machine may need several calls
            results = json.loads(options.out.read_text()) if options.out.is_file() else {}
            results["environment"] = environment() | {"threads": "1"}
            results["largest_difference_fp64"] = error
            results[f"{part}_{name}"] = found
            options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
