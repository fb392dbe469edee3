"""`embed` of many short videos in one pass each and in passes of several: the same bits, and videos per second.

    OMP_WAIT_POLICY=passive python benchmarks/embed_batches.py [--videos 2000] [--rounds 3] [--out FILE]

Videos: a square that moves over noise, 64 px, 24 frames, h264; 50 different ones, linked under as many names. Models
of random weights: nano at T = 4, S = 32 and tiny at T = 4, S = 48. Equality first: random clips in passes of several
sizes against one a pass, and every call's features against the first one's, bit for bit; else no time is told. One and
several a pass take turns within a round, by processor time of this process and its decoders and by wall clock; read the
ratios, above all of processor time, where a machine is shared. `forward` is the model alone on frames in memory, so
that what decoding costs can be told apart.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from stretchysnake import Scale, create_model, embed, save_model
from stretchysnake.data.decoding.video import write_video
from stretchysnake.eval.features.passes import clips_a_pass, features_of
from stretchysnake.eval.features.placement import ON_CPU
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.results.rows import environment
from stretchysnake.search.decoding import rows_at_once
from stretchysnake.whole_file import write_whole

DIFFERENT = 50
CELLS = {"videomamba-nano": (4, 32), "videomamba-tiny": (4, 48)}


def written(folder: Path, count: int) -> list[str]:
    folder.mkdir()
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        path = folder / f"{number:06d}.mp4"
        if number < DIFFERENT:
            frames = rng.integers(0, 60, (24, 64, 64, 3), dtype=np.uint8)
            for t in range(24):
                frames[t, 2 * t : 2 * t + 16, number % 40 : number % 40 + 20] = 60 + 3 * number
            write_video(path, frames)
        else:
            os.link(folder / f"{number % DIFFERENT:06d}.mp4", path)
        paths.append(str(path))
    return paths


def processor_seconds() -> float:
    """Of this process and of its decoders that have ended."""
    own, ended = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return sum(one.ru_utime + one.ru_stime for one in (own, ended))


def timed(act) -> tuple[object, float, float]:
    wall, processor = time.perf_counter(), processor_seconds()
    found = act()
    return found, time.perf_counter() - wall, processor_seconds() - processor


def differing(model, scale: Scale) -> dict[str, int]:
    """Passes of so many clips -> how many of 33 random clips have other features there than alone."""
    shape = (33, scale.num_frames, scale.size, scale.size, 3)
    frames = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    alone = features_of(model, scale, frames, batch_size=1)
    return {
        str(batch): int((features_of(model, scale, frames, batch_size=batch) != alone).any(1).sum())
        for batch in (2, 3, 7, 16, 32)
    }


def measured(name: str, paths: list[str], folder: Path, rounds: int) -> dict:
    num_frames, size = CELLS[name]
    weights = folder / f"{name}.safetensors"
    torch.manual_seed(0)
    save_model(weights, create_model(name, num_classes=0))
    options = {"weights": weights, "num_frames": num_frames, "size": size, "placement": ON_CPU}
    model, variant, _ = read_subject(weights, ON_CPU)
    scale = Scale(num_frames, size, variant.sets.native.patch_size)
    chosen = clips_a_pass(model, scale, num_clips=len(paths), most=rows_at_once(scale))
    told = {
        "T": num_frames,
        "S": size,
        "P": scale.patch_size,
        "videos": len(paths),
        "clips_a_pass": chosen,
        "random_clips_that_differ": differing(model, scale),
    }
    taken: dict[str, list] = {"one a pass": [], "default": []}
    alone = None
    for _ in range(rounds):
        for way, batch in (("one a pass", 1), ("default", None)):
            found, wall, processor = timed(
                lambda batch=batch: embed(paths, batch_size=batch, **options)
            )
            alone = found.features if alone is None else alone
            if not torch.equal(alone, found.features):
                raise SystemExit(
                    f"{name}: {way} gave other features than the first call; no time is told"
                )
            taken[way].append((wall, processor))
    for way, pairs in taken.items():
        walls, processors = zip(*pairs, strict=True)
        told[way] = {
            "videos_per_second": [round(len(paths) / wall, 2) for wall in walls],
            "processor_ms_a_video": [round(1e3 * cpu / len(paths), 2) for cpu in processors],
        }
    first, second = (np.array(taken[way]) for way in ("one a pass", "default"))
    ratios = np.median(first / second, axis=0)
    told["times_faster"] = {
        "wall": round(float(ratios[0]), 2),
        "processor": round(float(ratios[1]), 2),
    }
    frames = np.random.default_rng(0).integers(
        0, 256, (64, num_frames, size, size, 3), dtype=np.uint8
    )
    forward = {}
    for batch in sorted({1, 2, 4, 8, 16, chosen}):
        costs = [
            timed(lambda b=batch: features_of(model, scale, frames, batch_size=b))[2]
            for _ in range(3)
        ]
        forward[str(batch)] = round(1e3 * statistics.median(costs) / len(frames), 2)
    told["forward_processor_ms_a_clip"] = forward
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=None)
    run = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = written(Path(folder) / "videos", run.videos)
        cells = {name: measured(name, paths, Path(folder), run.rounds) for name in CELLS}
    told = {
        "environment": environment(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "cells": cells,
    }
    print(json.dumps(told, indent=1))
    if run.out:
        write_whole(run.out, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
