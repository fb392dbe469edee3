"""How the gradient of a training step depends on its scales: cosines between scales, variance for k scales a step.

    OMP_WAIT_POLICY=passive python benchmarks/gradient_of_a_step.py --videos runs/quickstart/motion-digits
        [--weights trained=runs/quickstart/vanilla-seed0-1000/weights.safetensors] [--pools 16] [--out FILE]

Nano on MotionDigits as the quickstart trains it, at initialisation and at the weights named. The clips are cut into
pools of four; the gradient of every pool is computed at every scale of a variant, so that all scales see the same
clips. A step of 32 clips with k scales is then the mean of 32 / 4 of these gradients, and since a variance asks for
inner products alone, thousands of steps are drawn from their table: scales by `scales_at` as in training, pools at
random. The variance is that of the whole gradient, E|g - Eg|^2, over that of one scale a step, at equal clips.

Gate: in fp64 the gradient that `take_step` leaves for a step of four scales is the mean of its groups' within 1e-10.
The cosine of a scale with itself is that between two halves of the pools: what the noise of so many clips allows.
"""

import argparse
import json
import random
from dataclasses import asdict
from pathlib import Path

import torch

from stretchysnake import Scale, VideoMamba, VideoMambaConfig, keep_freed_memory
from stretchysnake.data.clips.loader import Batch, MixedBatch, evaluation_batches, open_clips
from stretchysnake.data.records import read_records
from stretchysnake.flexibility import scales_at, sets_around
from stretchysnake.models.weights.loading import start_from
from stretchysnake.ranks import SINGLE
from stretchysnake.results.rows import environment
from stretchysnake.train.checkpoints.state import new_state
from stretchysnake.train.run import OptimConfig, TrainRun
from stretchysnake.train.step import compute_logits, loss_of, take_step

VARIANTS = ("static_tokens", "static_patch", "flex_all")
CLIPS, POOL = 32, 4
GROUPS = (1, 2, 4, 8)
STEPS = 4000


def run_of(variant: str, num_classes: int, precision: str = "fp32") -> TrainRun:
    config = VideoMambaConfig.named("nano", num_classes=num_classes)
    return TrainRun(data="-", out="-", variant=variant, model=config, sets=sets_around(config.native),
                    optim=OptimConfig(clip_norm=0.0), steps=STEPS, precision=precision)  # fmt: skip


def gradient(model: VideoMamba, batch: Batch, run: TrainRun) -> torch.Tensor:
    """The gradient of a batch's mean loss, as one vector."""
    model.zero_grad()
    logits = compute_logits(model, batch.video, batch.scale, run)
    loss_of(logits, batch, slice(None), run).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def gate() -> float:
    """Largest difference, relative to the largest value, between a step of four scales and the mean of its groups."""
    run = run_of("static_tokens", 10, "fp64")
    torch.manual_seed(0)
    model = VideoMamba(run.model).double().train()
    groups = []
    for place, scale in enumerate(
        (Scale(4, 16, 8), Scale(2, 24, 8), Scale(3, 32, 8), Scale(2, 40, 4))
    ):
        video = torch.randn(2, 3, scale.num_frames, scale.size, scale.size, dtype=torch.float64)
        groups.append(
            Batch(0, scale, video, torch.tensor([place, 7]), 2, [2 * place, 2 * place + 1])
        )
    wanted = torch.stack([gradient(model, group, run) for group in groups]).mean(0)
    state = new_state(model, run)
    take_step(state, model, MixedBatch(0, tuple(groups), 8), run, lr=0.0, runtime=SINGLE)
    found = torch.cat([p.grad.flatten() for p in model.parameters()])
    error = ((found - wanted).abs().max() / wanted.abs().max()).item()
    assert error < 1e-10, error
    return error


def pools_at(clips, scale: Scale, indices: list[int]) -> list[Batch]:
    """The clips of these indices at a scale, POOL a batch."""
    found = []
    for own, video in evaluation_batches(clips, scale, POOL, indices=indices, prefetch=0):
        found.append(Batch(0, scale, video, clips.labels[own], len(own), list(range(len(own)))))
    return found


def drawn_weights(variant, k: int, draw: str, scales: list[Scale], pools: int) -> torch.Tensor:
    """(steps, scales * pools): what each gradient weighs in each drawn step."""
    places, choose = {scale: i for i, scale in enumerate(scales)}, random.Random(k)
    weights = torch.zeros(STEPS, len(scales), pools, dtype=torch.float64)
    for step in range(STEPS):
        chosen = choose.sample(range(pools), CLIPS // POOL)
        drawn = scales_at(variant, seed=0, step=step, groups=k, draw=draw)
        of_group = len(chosen) // k
        for group, scale in enumerate(drawn):
            own = chosen[group * of_group : (group + 1) * of_group]
            weights[step, places[scale], own] += POOL / CLIPS
    return weights.flatten(1)


def variances(variant, table: torch.Tensor, scales: list[Scale], pools: int) -> dict:
    """Of the step's gradient for every k and way to draw: the squared noise and its share of the mean's square."""
    found = {}
    for k in GROUPS:
        for draw in ("dealt", "independent")[: 1 if k == 1 else 2]:
            weights = drawn_weights(variant, k, draw, scales, pools)
            mean = weights.mean(0)
            away = weights - mean
            noise = ((away @ table) * away).sum(1).mean().item()
            found[f"k={k}" if k == 1 else f"k={k} {draw}"] = {
                "variance": noise,
                "over_mean_squared": round(noise / (mean @ table @ mean).item(), 3),
            }
    for entry in found.values():
        entry["to_one_scale"] = round(entry["variance"] / found["k=1"]["variance"], 3)
    return found


def cosines(table: torch.Tensor, scales: list[Scale], pools: int) -> dict:
    """Between the mean gradients of each two scales over all pools, and of each scale between halves of the pools."""
    by = table.view(len(scales), pools, len(scales), pools)
    means = by.mean((1, 3))
    norms = means.diagonal().sqrt()
    matrix = means / norms[:, None] / norms[None]
    half = pools // 2
    itself = []
    for i in range(len(scales)):
        own = by[i, :, i]
        first, second = own[:half, :half].mean(), own[half:, half:].mean()
        itself.append((own[:half, half:].mean() / (first * second).sqrt()).item())
    others = matrix[~torch.eye(len(scales), dtype=torch.bool)]
    return {
        "matrix": [[round(value, 3) for value in row] for row in matrix.tolist()],
        "between_scales_mean_min_max": [round(v.item(), 3) for v in (others.mean(), others.min(), others.max())],
        "of_a_scale_between_halves": [round(value, 3) for value in itself],
        "norms": [round(value, 3) for value in norms.tolist()],
    }  # fmt: skip


def measure(variant_name: str, weights: str | None, clips, num_classes: int, pools: int) -> dict:
    run = run_of(variant_name, num_classes)
    variant = run.bound_variant
    torch.manual_seed(0)
    model = VideoMamba(run.model).train()
    notes = [] if weights is None else list(start_from(weights, model))
    steps = [scales_at(variant, seed=0, step=s, groups=k, draw=d)
             for s in range(STEPS) for k, d in ((1, "dealt"), (8, "dealt"), (8, "independent"))]  # fmt: skip
    scales = sorted(
        {scale for drawn in steps for scale in drawn}, key=lambda s: tuple(asdict(s).values())
    )
    indices = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0))[
        : pools * POOL
    ].tolist()
    vectors = torch.stack(
        [
            gradient(model, batch, run)
            for scale in scales
            for batch in pools_at(clips, scale, indices)
        ]
    )
    table = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for columns in vectors.split(20_000, dim=1):  # in fp64 a piece at a time
        table += columns.double() @ columns.double().T
    return {
        "notes": notes,
        "scales": [f"T={s.num_frames} S={s.size} P={s.patch_size}" for s in scales],
        "cosines": cosines(table, scales, pools),
        "variance": variances(variant, table, scales, pools),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, required=True, help="a folder of MotionDigits")
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument("--variants", nargs="*", default=VARIANTS)
    parser.add_argument("--pools", type=int, default=16, help=f"pools of {POOL} clips")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/gradient_of_a_step.json")
    )
    options = parser.parse_args()
    if options.pools < 2 * CLIPS // POOL:
        parser.error(
            f"--pools ({options.pools}) must be at least {2 * CLIPS // POOL}: a step takes {CLIPS // POOL}"
        )
    torch.set_num_threads(1)
    keep_freed_memory()
    error = gate()
    print(f"gate: largest relative difference {error:.1e}")
    records = read_records(options.videos / "source-train.csv")
    clips = open_clips(records, cache=str(options.videos / "frame-cache"))
    num_classes = int(clips.labels.max()) + 1
    checkpoints = {"initialisation": None, **dict(pair.split("=", 1) for pair in options.weights)}
    found = {}
    for title, weights in checkpoints.items():
        for variant in options.variants:
            row = measure(variant, weights, clips, num_classes, options.pools)
            found[f"{variant}, {title}"] = row
            print(f"{variant}, {title}: cosine between scales {row['cosines']['between_scales_mean_min_max']}, "
                  f"of one {row['cosines']['of_a_scale_between_halves']}", flush=True)  # fmt: skip
            for name, entry in row["variance"].items():
                print(f"  {name:16s} {entry['to_one_scale']:.3f} of one scale's variance, "
                      f"{entry['over_mean_squared']:.2f} of the mean's square", flush=True)  # fmt: skip
            written = {"environment": environment() | {"threads": "1"}, "gate": error,
                       "clips": options.pools * POOL, "drawn_steps": STEPS, "found": found}  # fmt: skip
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
