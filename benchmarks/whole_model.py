"""The whole VideoMamba on the CPU against the matrix products it cannot do without.

    OMP_WAIT_POLICY=passive python benchmarks/whole_model.py [--threads 2] [--out benchmarks/results/whole_model.json]

Floor: the model's own matrix products alone (in_proj, x_proj, dt_proj, out_proj of both directions and the patch
convolution), on inputs of the same shapes, in the same run. A training step is held against three times the forward
products. The gate: features equal those of the plain fp64 loop within 1e-4 relative before anything is timed.
Flexing: a training step whose patch kernel and embeddings are resized against one of the same shape that is native.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from stretchysnake import VideoMamba, VideoMambaConfig, keep_freed_memory
from stretchysnake.results.rows import environment
from stretchysnake.train.optim import build_optimizer
from stretchysnake.train.run import OptimConfig

FORWARD = {"tiny 8x224": ("tiny", 1, 8, 224), "middle 16x224": ("middle", 1, 16, 224)}
TRAINING = {"tiny 8x224": ("tiny", 1, 8, 224), "nano 8x32": ("nano", 32, 8, 32)}


def timed(work) -> float:
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)


def rounds(works: dict, repeats: int) -> dict[str, dict]:
    times = {name: [] for name in works}
    for round_ in range(repeats + 1):
        for name, work in works.items():
            found = timed(work)
            if round_:
                times[name].append(found)
    return {
        name: {"median_ms": statistics.median(t), "min_ms": min(t), "max_ms": max(t)}
        for name, t in times.items()
    }


def products(model: VideoMamba, batch: int, frames: int, size: int):
    """A callable that does the model's matrix products and nothing else."""
    config = model.config
    patch = config.patch_size
    tokens = 1 + frames // config.tubelet_size * (size // patch) ** 2
    inner = config.expand * config.embed_dim
    video = torch.randn(batch, 3, frames, size, size)
    x, u = torch.randn(batch, tokens, config.embed_dim), torch.randn(batch, tokens, inner)
    dt = torch.randn(batch, tokens, config.rank_of_delta)
    kernel = model.patch_embed.proj

    def work():
        F.conv3d(video, kernel.weight, kernel.bias, stride=kernel.stride)
        for layer in model.layers:
            mixer = layer.mixer
            F.linear(x, mixer.in_proj.weight)
            for x_proj, dt_proj in (
                (mixer.x_proj, mixer.dt_proj),
                (mixer.x_proj_b, mixer.dt_proj_b),
            ):
                F.linear(u, x_proj.weight)
                F.linear(dt, dt_proj.weight)
            F.linear(u, mixer.out_proj.weight)

    return torch.no_grad()(work)


def gate() -> float:
    """Largest relative error of the nano features against the same weights in fp64."""
    torch.manual_seed(0)
    model = VideoMamba(VideoMambaConfig.named("nano")).eval()
    video = torch.randn(2, 3, 4, 48, 48)
    with torch.no_grad():
        found = model.features(video, 12)
        exact = model.double().features(video.double(), 12)
    return float((found - exact).abs().max() / exact.abs().max())


def training_step(model: VideoMamba, video: torch.Tensor, patch: int):
    optimizer = build_optimizer(model, OptimConfig())
    labels = torch.zeros(len(video), dtype=torch.long)

    def work():
        loss = F.cross_entropy(model(video, patch), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return work


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/whole_model.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as the command line does
    error = gate()
    print(f"features against fp64: largest relative error {error:.1e}")
    assert error < 1e-4
    found = {"error": error, "forward": {}, "training": {}}
    for title, (name, batch, frames, size) in FORWARD.items():
        model = VideoMamba(VideoMambaConfig.named(name, num_classes=400)).eval()
        video = torch.randn(batch, 3, frames, size, size)
        works = {
            "whole": torch.inference_mode()(lambda m=model, v=video: m(v)),
            "products": products(model, batch, frames, size),
        }
        found["forward"][title] = report(f"{title} forward", rounds(works, options.repeats), 1)
    for title, (name, batch, frames, size) in TRAINING.items():
        torch.manual_seed(0)
        config = VideoMambaConfig.named(name, num_classes=400)
        video = torch.randn(batch, 3, frames, size, size)
        flexed_config = replace(
            config, image_size=size // 2, num_frames=frames // 2, patch_size=config.patch_size // 2
        )
        model = VideoMamba(config).train()
        works = {
            "whole": training_step(model, video, config.patch_size),
            "flexed": training_step(VideoMamba(flexed_config).train(), video, config.patch_size),
            "products": products(model, batch, frames, size),
        }
        row = report(f"{title} training step", rounds(works, options.repeats), 3)
        row["flexed_over_fixed"] = row["flexed"]["median_ms"] / row["whole"]["median_ms"]
        print(f"  flexed / fixed: {row['flexed_over_fixed']:.3f}")
        found["training"][title] = row
    written = {"environment": environment(), "threads": options.threads, **found}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(written, indent=1) + "\n")


def report(title: str, times: dict, factor: int) -> dict:
    ratio = times["whole"]["median_ms"] / (factor * times["products"]["median_ms"])
    print(f"{title}: {times['whole']['median_ms']:.1f} ms, products {times['products']['median_ms']:.1f} ms, "
          f"ratio to {factor} x products {ratio:.2f}")  # fmt: skip
    return {**times, "ratio": ratio}


if __name__ == "__main__":
    main()
