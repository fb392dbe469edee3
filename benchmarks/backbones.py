"""Every backbone beside the others on the CPU: time and memory of `features`, and how both grow with T and S.

    OMP_WAIT_POLICY=passive python benchmarks/backbones.py [--minutes 30] [--out benchmarks/results/backbones.json]

The gate, for each model before it is timed: features in fp32 equal those of the same weights in fp64 within 1e-4
relative. Floor: the operations counted on the model over the rate of one large matrix product, timed in every round, so
each row says how many times its products it takes. Wall and processor time, in rounds over all cells (no cell is timed
twice in a row); on a shared machine processor time is the one to read. Memory: what tensors hold at once, the clip
included, the weights beside it. A cell whose counted operations or memory exceed a limit is named and left out.
Weights are random; patch sizes are the models' own. bf16: autocast against fp32 in turns, once, on a small clip.
"""

import argparse
import json
import math
import os
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from stretchysnake import keep_freed_memory
from stretchysnake.eval.sweeps.cost import count_flops, estimate_memory, measure_peak_bytes
from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import config_named, create_model, model_names
from stretchysnake.results.rows import environment

NAMES = (
    "videomamba-tiny", "videomamba-middle", "timesformer-base", "uniformer-small", "uniformer-base", "mvit-base",
    "hiera-base", "hiera-large", "video-swin-tiny", "video-swin-base", "omnivore-base", "uniformer-v2-base",
    "aim-base", "evl-base", "cast-base", "fluxvit-small", "fluxvit-base",
)  # fmt: skip
GROWN = (
    "videomamba-tiny", "videomamba-middle", "timesformer-base", "uniformer-small", "mvit-base", "hiera-base",
    "video-swin-tiny", "fluxvit-small",
)  # fmt: skip
NANO = ("videomamba-nano", "timesformer-nano", "uniformer-nano", "mvit-nano")
STARTED = time.monotonic()
FRAMES, SIZES = (8, 16, 32, 64), (224, 336, 448)
PRODUCT = (1568, 768, 3072)
"""Rows, columns summed over, columns of the product that stands for the machine's rate: an MLP's on 8 x 14 x 14."""


@dataclass
class Cell:
    """One model on one clip; times in seconds."""

    model: str
    num_frames: int
    size: int
    patch_size: int
    tokens_of_16: int
    """T (S / 16)², the same for every model, whatever its stem."""
    gmacs: float
    """Counted, a multiplication with an addition as one; the scan by its formula."""
    counted_mib: float
    left_out: str = ""
    """Why it was not timed."""
    measured_mib: float | None = None
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    @property
    def scale(self) -> Scale:
        return Scale(self.num_frames, self.size, self.patch_size)


def cells_of(options) -> list[Cell]:
    """The two clips of all models first, then the growing ones of some."""
    small, frames, sizes = (32, (4, 8), (48,)) if options.quick else (224, FRAMES, SIZES[1:])
    most = options.gmacs
    places = [(name, t, small, most) for t in frames[:2] for name in options.names]
    grown = [name for name in options.names if name in GROWN + NANO]
    most = options.grown_gmacs or most
    places += [(name, t, small, most) for t in frames[2:] for name in grown]
    places += [(name, frames[0], size, most) for size in sizes for name in grown]
    cells = []
    for name, num_frames, size, most in places:
        config = config_named(name)
        scale = Scale(num_frames, size, config.native.patch_size)
        gmacs = count_flops(config, scale) / 2e9
        mib = estimate_memory(config, scale, batch_size=1) / 2**20
        why = ""
        if num_frames % config.frame_multiple:
            why = f"T must be a multiple of {config.frame_multiple}"
        elif gmacs > most:
            why = f"counted: more than {most:g} GMACs"
        elif mib > options.mib:
            why = f"counted: more than {options.mib:g} MiB"
        tokens = num_frames * size**2 // 256
        cells.append(
            Cell(
                name,
                num_frames,
                size,
                scale.patch_size,
                tokens,
                round(gmacs, 3),
                round(mib, 1),
                why,
            )
        )
    return cells


def checked_model(name: str) -> tuple[torch.nn.Module, dict]:
    """The model, no value of it zero, and what the gate found: errors of fp32 against fp64, bf16 against fp32."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    config = model.config
    patch = config.native.patch_size
    size = patch * (16 if patch < 8 else 4)
    video = torch.randn(1, 3, 2 * config.frame_multiple, size, size)
    with torch.inference_mode():
        found = model.features(video)
        exact = model.double().features(video.double())
        model.float()
        error = float((found - exact).abs().max() / exact.abs().max())
        assert error < 1e-4, f"{name}: features differ from fp64 by {error:.1e}"
        seconds = {False: [], True: []}
        for low in (False, True, False, True):
            started = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                rounded = model.features(video)
            seconds[low].append(time.process_time() - started)
    return model, {
        "parameters": sum(p.numel() for p in model.parameters()),
        "error_against_fp64": error,
        "bf16_clip": [*video.shape[2:]],
        "bf16_error": float((rounded - found).abs().max() / found.abs().max()),
        "bf16_processor_time_over_fp32": min(seconds[True]) / min(seconds[False]),
    }


def timed(work) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def time_cell(cell: Cell, model) -> None:
    """One pass; the gate has warmed the model up, on a small clip."""
    video = torch.randn(1, 3, cell.num_frames, cell.size, cell.size)
    with torch.inference_mode():
        wall, processor = timed(lambda: model.features(video, cell.patch_size, grid="floor"))
    cell.wall.append(wall)
    cell.processor.append(processor)


def run_rounds(cells: list[Cell], gates: dict, options, load: list) -> list[tuple[float, float]]:
    """Times of the product that stands for the machine, one beside each pass; the last round counts what is held.

    A model is made, and goes through its gate, when its first cell comes. The cheapest cells come first, so that the
    time of the run ends at the dearest.
    """
    rows, inner, columns = PRODUCT
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    models, products = {}, []
    for round_ in range(options.repeats + 1):
        for cell in sorted(cells, key=lambda cell: cell.gmacs):
            if cell.left_out or time.monotonic() - STARTED > 60 * options.minutes:
                continue
            if cell.model not in models:
                models[cell.model], gates[cell.model] = checked_model(cell.model)
                error = gates[cell.model]["error_against_fp64"]
                print(f"{cell.model}: against fp64 {error:.1e}", flush=True)
            if round_ == options.repeats:
                held = measure_peak_bytes(models[cell.model], cell.scale)
                cell.measured_mib = round(held / 2**20, 1)
            else:
                products.append(timed(lambda: torch.mm(left, right)))
                time_cell(cell, models[cell.model])
        load.append(os.getloadavg())
        print(f"round {round_} after {time.monotonic() - STARTED:.0f} s", flush=True)
    return products


def shown(cell: Cell, rate: dict[str, float]) -> str:
    start = f"{cell.model:20s} {cell.num_frames:3d} {cell.size:4d} {cell.gmacs:9.2f} "
    if not cell.processor:
        return start + (cell.left_out or "the time of the run was over")
    wall, processor = statistics.median(cell.wall), statistics.median(cell.processor)
    times = processor * rate["processor"] / (2 * cell.gmacs)
    spread = f"{min(cell.processor):.2f}-{max(cell.processor):.2f}"
    held = cell.measured_mib or cell.counted_mib
    return start + (
        f"{1e3 * wall:9.0f} {1e3 * processor:9.0f} {spread:>13s} {times:6.2f} {held:8.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", nargs="+", help="models instead of those of every architecture")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0, help="no pass starts after them")
    parser.add_argument(
        "--gmacs", type=float, default=1000.0, help="the most that a cell may count"
    )
    parser.add_argument("--grown-gmacs", type=float, help="the same where T or S grows")
    parser.add_argument("--mib", type=float, default=4096.0, help="the most that a cell may hold")
    parser.add_argument("--quick", action="store_true", help="nano models on clips of 32 pixels")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/backbones.json"))
    options = parser.parse_args()
    known = model_names()
    options.names = options.names or [n for n in (NANO if options.quick else NAMES) if n in known]
    found_here, load = environment(), [os.getloadavg()]
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as the command line does
    cells = cells_of(options)
    print(f"{len(cells)} cells counted after {time.monotonic() - STARTED:.0f} s", flush=True)
    gates = {}
    products = run_rounds(cells, gates, options, load)
    if not products:
        parser.error(
            f"--minutes ({options.minutes:g}) were over before the first pass, or every cell is beyond a limit; "
            "raise --minutes or --gmacs, or take fewer --names"
        )
    gflop = 2e-9 * math.prod(PRODUCT)
    rate = {
        kind: gflop / statistics.median(times)
        for kind, times in zip(("wall", "processor"), zip(*products, strict=True), strict=True)
    }
    print(
        f"\nmatrix product: {rate['wall']:.1f} GFLOP/s, {rate['processor']:.1f} a processor second"
    )
    print(
        "model                  T    S     GMACs   wall ms   proc ms      spread s     × its      MiB"
    )
    for cell in cells:
        print(shown(cell, rate))
    written = {
        "environment": found_here,
        "threads": options.threads,
        "load_average": load,
        "gflop_per_second": rate,
        "limits": {
            "gmacs": options.gmacs,
            "grown_gmacs": options.grown_gmacs,
            "mib": options.mib,
            "minutes": options.minutes,
        },
        "models": gates,
        "cells": [asdict(cell) for cell in cells],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
