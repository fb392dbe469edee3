"""What square, keep and crop do to videos that are no squares: retrieval of MotionDigits drawn at 16:9 and 9:16.

    python benchmarks/aspect.py --folder runs/aspect [--seeds 0 1 2] [--steps 1000] \\
        [--out benchmarks/results/aspect.json]
    python benchmarks/aspect.py --folder runs/aspect --weights runs/quickstart/static_tokens-seed*/weights.safetensors

A nano model of static tokens is trained on square digits, as the quickstart trains it (or was: `--weights`), where the
three fits are one. The short suite's gallery and queries (which digit acts?) are drawn at 1:1, 16:9 and 9:16: the same
digits of the same size, more background. Queries of each aspect are retrieved from the gallery of their own aspect and
from the square one, both with one fit. A folder with videos, frames or weights of an earlier call is gone on with.
"""

import argparse
import json
import statistics
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

from stretchysnake.data.clips.open_clips import open_clips
from stretchysnake.data.decoding.fit import FITS, fitted_size
from stretchysnake.data.decoding.video import write_video
from stretchysnake.data.motion_digits import frame_size, info, render_clip
from stretchysnake.data.processes.workers import map_in_processes
from stretchysnake.data.records import VideoRecord, write_records
from stretchysnake.eval.features.extraction import FeatureSet, extract
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.protocols.retrieval import retrieve
from stretchysnake.flexibility import eval_scale
from stretchysnake.recipes.motion_digits import nano_run
from stretchysnake.results.comparison import mcnemar_p
from stretchysnake.results.intervals import wilson_interval
from stretchysnake.results.rows import environment
from stretchysnake.train.loop import train
from stretchysnake.train.run import OptimConfig
from stretchysnake.whole_file import unfinished_file

ASPECTS = ("1:1", "16:9", "9:16")


def drawn(folder: Path, suite: str, split: str, aspect: str, count: int) -> list[VideoRecord]:
    """The first clips of a suite at this aspect; those that are there are not drawn again."""
    classes = info(suite)["classes"]
    place = folder / f"{suite}-{split}-{aspect.replace(':', 'x')}"
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"{index:05d}.mp4" for index in range(count)]
    missing = [index for index, path in enumerate(paths) if not path.exists()]
    chunks = [missing[first : first + 16] for first in range(0, len(missing), 16)]
    list(map_in_processes(partial(draw, place, suite, split, aspect), chunks, num_workers=2))
    labels = [index % len(classes) for index in range(count)]
    return [VideoRecord(str(p), n, classes[n]) for p, n in zip(paths, labels, strict=True)]


def draw(place: Path, suite: str, split: str, aspect: str, indices: list[int]) -> None:
    for index in indices:
        with unfinished_file(place / f"{index:05d}.mp4") as part:
            frames = render_clip(suite, split, index, aspect=aspect)
            write_video(part, frames, options={"preset": "ultrafast", "crf": "26"})


def measured(gallery: FeatureSet, queries: FeatureSet) -> list[bool]:
    return retrieve(gallery, queries)["top1"].tolist()


def trained(asked: argparse.Namespace, cache: Path, seed: int) -> str:
    """The weights of a training on square digits."""
    listed = asked.folder / "source.csv"
    write_records(listed, drawn(asked.folder, "source", "train", "1:1", asked.source))
    run = nano_run(
        "static_tokens",
        seed,
        out=asked.folder / f"seed{seed}-{asked.steps}",
        data=listed,
        cache=str(cache),
        steps=asked.steps,
        batch_size=32,
        optim=OptimConfig(lr=4e-3),
    )
    return train(run, progress=print).weights


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", help="instead of trainings with --seeds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--source", type=int, default=2000)
    parser.add_argument("--gallery", type=int, default=200)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    cache = asked.folder / "frame-cache"
    clips = {
        (split, aspect, fit): open_clips(
            drawn(asked.folder, "short", split, aspect, count), cache=cache, fit=fit
        )
        for split, count in (("train", asked.gallery), ("test", asked.queries))
        for aspect, fit in product(ASPECTS, FITS)
        if aspect != "1:1" or fit == "square"  # of squares the three fits are one (a test holds it)
    }
    answers: dict[tuple, list[bool]] = {}
    weights = asked.weights or [trained(asked, cache, seed) for seed in asked.seeds]
    trainings = []
    for path in weights:
        model, variant, metadata = read_subject(path)
        trainings.append({name: metadata.get(name) for name in ("variant", "seed", "digest")})
        for size in asked.sizes:
            scale = eval_scale(variant, num_frames=asked.frames, size=size)
            features = {key: extract(model, source, scale) for key, source in clips.items()}
            for split, fit in product(("train", "test"), FITS):
                features[split, "1:1", fit] = replace(features[split, "1:1", "square"], fit=fit)
            for aspect, fit in product(ASPECTS, FITS):
                for of in dict.fromkeys((aspect, "1:1")):
                    hits = measured(features["train", of, fit], features["test", aspect, fit])
                    answers.setdefault((size, aspect, of, fit), []).append(hits)
    rows = []
    print(
        "   S  queries  gallery  fit      H x W     top-1 (seeds)            all     against square"
    )
    for (size, aspect, of, fit), seeds in answers.items():
        scale = eval_scale(variant, num_frames=asked.frames, size=size)
        shape = fitted_size(*frame_size(aspect), scale=scale, fit=fit)
        flags = [flag for hits in seeds for flag in hits]
        square = [flag for hits in answers[size, aspect, of, "square"] for flag in hits]
        pairs = list(zip(flags, square, strict=True))
        better, worse = pairs.count((True, False)), pairs.count((False, True))
        # queries of several seeds are not independent: p is of each seed's own, the least of them
        p_values = [
            mcnemar_p(sum(a > b for a, b in one), sum(a < b for a, b in one))
            for one in (
                list(zip(hits, other, strict=True))
                for hits, other in zip(seeds, answers[size, aspect, of, "square"], strict=True)
            )
        ]
        low, high = wilson_interval(sum(flags), len(flags))
        row = {
            "size": size, "queries": aspect, "gallery": of, "fit": fit, "shape": shape,
            "top1_by_seed": [statistics.fmean(hits) for hits in seeds],
            "top1": statistics.fmean(flags), "interval": [low, high],
            "only_this": better, "only_square": worse, "mcnemar_p_by_seed": p_values,
        }  # fmt: skip
        rows.append(row)
        by_seed = " ".join(f"{100 * value:5.1f}" for value in row["top1_by_seed"])
        print(
            f"{size:4d}  {aspect:7s}  {of:7s}  {fit:7s}  {shape[0]:3d} x {shape[1]:<3d}  {by_seed:22s}  "
            f"{100 * row['top1']:5.1f}   +{better} -{worse}"
        )
    if asked.out:
        settings = {"gallery": asked.gallery, "queries": asked.queries, "frames": asked.frames}
        found = {"settings": settings, "trainings": trainings, "rows": rows}
        found["environment"] = environment()
        asked.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
