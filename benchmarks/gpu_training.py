"""Training, `embed` and `evaluate` of VideoMamba-M on a GPU, decoding included: clips a second, share of waiting.

    python benchmarks/gpu_training.py [--videos 64] [--steps 24] [--workers 14] [--folder FOLDER]
        [--out benchmarks/results/gpu_training.json]

Videos of 10 s, 340 x 256, h264, are made first (benchmarks/loader.py's). `synthetic`: the training step alone, on clips
that lie on the device. `decoded`: `train` itself, with the recipe's precision bf16, from the videos; the first third of
the steps, which start processes and compile kernels, is left out of both numbers. Correctness first: losses are finite,
and features of `embed` agree with the CPU's in fp32 (cosine). Exit code 3: no CUDA device.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from loader import SIZES, write

from stretchysnake import Placement, create_model, embed, save_model
from stretchysnake.eval.features.passes import features_of
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.flexibility import PAPER, Scale
from stretchysnake.models.architectures import build_model, config_named
from stretchysnake.results.rows import environment
from stretchysnake.train.loop import train
from stretchysnake.train.run import TrainRun

SCALES = {"16 x 224": (Scale(16, 224, 16), 16), "64 x 378": (Scale(64, 378, 27), 4)}
"""Name -> the scale and the clips of a step."""
MODEL = "videomamba-middle"


def config_at(scale: Scale):
    """VideoMamba-M that is native at the scale, so that `vanilla` draws it alone."""
    sizes = {"image_size": scale.size, "patch_size": scale.patch_size}
    return replace(config_named(MODEL, num_classes=8), num_frames=scale.num_frames, **sizes)


def make_videos(folder: Path, count: int, cores: int) -> tuple[Path, list[str]]:
    """A list of `count` names for a few different videos; encoding takes seconds for each."""
    folder.mkdir(parents=True, exist_ok=True)
    different = [folder / f"made{number}.mp4" for number in range(min(8, count))]
    missing = [str(path) for path in different if not path.exists()]
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(write, missing, *zip(*[SIZES["340x256"]] * len(missing), strict=True)))
    paths, listed = [], folder / "list.csv"
    for number in range(count):
        path = folder / f"{number:04d}.mp4"
        if not path.exists():
            os.link(different[number % len(different)], path)
        paths.append(str(path))
    lines = [f"{path},{number % 8}" for number, path in enumerate(paths)]
    listed.write_text("path,label\n" + "\n".join(lines) + "\n")
    return listed, paths


def synthetic(scale: Scale, clips: int, steps: int) -> dict:
    model = build_model(config_at(scale)).cuda()
    video = torch.randn(clips, 3, scale.num_frames, scale.size, scale.size, device="cuda")
    labels = torch.arange(clips, device="cuda") % 8
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    taken = []
    torch.cuda.reset_peak_memory_stats()
    for step in range(steps):
        torch.cuda.synchronize()
        started = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(model(video).float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()
        if step >= steps // 3:
            taken.append(time.perf_counter() - started)
    assert torch.isfinite(loss)
    return {
        "clips_per_s": clips / median(taken),
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
    }


def decoded(listed: Path, out: Path, scale: Scale, clips: int, steps: int, workers: int) -> dict:
    """Speed and waiting after the first third of the steps, from the run's own log."""
    run = TrainRun(
        data=str(listed),
        out=str(out),
        variant="vanilla",
        model=config_at(scale),
        sets=replace(PAPER, native=scale),
        steps=steps,
        batch_size=clips,
        precision="bf16",
        device="cuda",
        num_workers=workers,
    )
    result = train(run)
    assert all(loss < float("inf") for _, loss in result.losses)
    told = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    told = [line for line in told if line["event"] == "step"]
    spent = [clips * (line["step"] + 1) / line["clips_per_second"] for line in told]
    waited = [line["data_wait"] * seconds for line, seconds in zip(told, spent, strict=True)]
    first = next(n for n, line in enumerate(told) if line["step"] >= steps // 3 - 1)
    seconds = spent[-1] - spent[first]
    return {
        "clips_per_s": clips * (told[-1]["step"] - told[first]["step"]) / seconds,
        "share_of_waiting": (waited[-1] - waited[first]) / seconds,
    }


def embedded(paths: list[str], weights: Path, scale: Scale, precision: str, workers: int) -> dict:
    options = {"weights": weights, "num_frames": scale.num_frames, "size": scale.size}
    placement = Placement(device="cuda", precision=precision)
    started = time.perf_counter()
    found = embed(paths, placement=placement, num_workers=workers, **options)
    seconds = time.perf_counter() - started
    if precision == "fp32":
        model, _, _ = read_subject(weights, Placement(device="cpu", precision="fp32"))
        model_gpu, _, _ = read_subject(weights, placement)
        frames = torch.randint(0, 256, (1, 8, 112, 112, 3), dtype=torch.uint8).numpy()
        small = Scale(8, 112, 16)
        both = [features_of(one, small, frames, batch_size=1) for one in (model, model_gpu)]
        cosine = F.cosine_similarity(*(torch.as_tensor(one).float().cpu() for one in both)).item()
        assert cosine > 0.9999, cosine
    assert torch.isfinite(torch.as_tensor(found.features)).all()
    return {"videos_per_s": len(paths) / seconds}


def evaluated(listed: Path, weights: Path, folder: Path, scale: Scale, workers: int) -> dict:
    """Retrieval of the list in itself, bf16: every video's features once for the gallery and once as a query."""
    run = EvaluateRun(
        weights=str(weights), gallery=str(listed), queries=str(listed), allow_self=True, device="cuda",
        out=str(folder / f"rows-{scale.num_frames}.jsonl"), frames=[scale.num_frames],
        sizes=[scale.size], precision="bf16", num_workers=workers,
    )  # fmt: skip
    started = time.perf_counter()
    rows = evaluate(run)
    return {"seconds": time.perf_counter() - started, "videos": rows[0].num_expected}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=64)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--folder", type=Path, help="to keep the videos in, or to find them")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu_training.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing is measured")
        sys.exit(3)
    kept = tempfile.TemporaryDirectory()
    folder = options.folder or Path(kept.name)
    listed, paths = make_videos(folder / "videos", options.videos, options.workers)
    torch.manual_seed(0)
    weights = folder / "weights.safetensors"
    save_model(weights, create_model(MODEL, num_classes=0))
    found = {"device": torch.cuda.get_device_name(), "environment": environment(), "rows": {}}
    found |= {"videos": "340 x 256, 10 s, h264", "workers": options.workers}

    def told(name: str, measured: dict) -> None:
        print(name, measured, flush=True)
        found["rows"][name] = measured
        options.out.write_text(json.dumps(found, indent=1) + "\n")

    for name, (scale, clips) in SCALES.items():
        told(f"training step, {name}, {clips} clips, synthetic", synthetic(scale, clips, 6))
        out = Path(kept.name) / f"run-{scale.size}"
        row = decoded(listed, out, scale, clips, options.steps, options.workers)
        told(f"train, {name}, {clips} clips a step, decoded", row)
    scale = SCALES["16 x 224"][0]
    for precision in ("fp32", "bf16"):
        row = embedded(paths, weights, scale, precision, options.workers)
        told(f"embed, 16 x 224, {precision}", row)
    told(
        "evaluate, 16 x 224, bf16",
        evaluated(listed, weights, Path(kept.name), scale, options.workers),
    )


if __name__ == "__main__":
    main()
