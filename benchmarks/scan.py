"""Selective scan on the CPU: every backend against fp64, then its time beside the others'.

    OMP_WAIT_POLICY=passive python benchmarks/scan.py [--threads 2] [--out benchmarks/results/scan.json]

Shapes: one direction of a VideoMamba-Ti layer at 8×224² (B1 L1569 D384 N16) and of the nano model's
training batch (B32 L129 D128 N16). Floor: 9·B·L·D·N operations (mamba issue 110) and each tensor read or written once.
The machine may be shared: read the ratios of one run, not the milliseconds of two.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from stretchysnake.ops.selective_scan import selective_scan, selective_scan_flops
from stretchysnake.results import environment

SHAPES = {"tiny layer": (1, 1569, 384, 16), "nano batch": (32, 129, 128, 16)}
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def problem(batch: int, length: int, channels: int, state: int, dtype=torch.float32) -> dict:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "u": normal(batch, length, channels),
        "delta": 0.5 * normal(batch, length, channels),
        "A": -torch.arange(1, state + 1, dtype=dtype).repeat(channels, 1),
        "B": normal(batch, length, state),
        "C": normal(batch, length, state),
        "D": normal(channels),
        "z": normal(batch, length, channels),
        "delta_bias": normal(channels) - 4,
    }


def run(tensors: dict, backend: str, *, backward: bool) -> list[torch.Tensor]:
    """[y] or [y, gradients of all inputs]."""
    if not backward:
        with torch.no_grad():
            return [selective_scan(**tensors, delta_softplus=True, backend=backend)]
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    y = selective_scan(**leaves, delta_softplus=True, backend=backend)
    return [y.detach(), *torch.autograd.grad(y.sum(), [leaves[name] for name in NAMES])]


def worst_error(backend: str) -> float:
    """Largest error against fp64 of output and gradients, relative to each tensor's largest value."""
    shape = (2, 193, 33, 16)
    exact = run(problem(*shape, dtype=torch.float64), "reference", backward=True)
    found = run(problem(*shape), backend, backward=True)
    return max(
        ((f - e).abs().max() / e.abs().max()).item() for f, e in zip(found, exact, strict=True)
    )


def milliseconds(tensors: dict, backend: str, *, backward: bool, repeats: int) -> list[float]:
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run(tensors, backend, backward=backward)
        times.append(1e3 * (time.perf_counter() - started))
    return sorted(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scan.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for backend in ("torch", "cpu"):  # the gate: nothing is timed before it is right
        error = worst_error(backend)
        print(f"{backend}: worst error of output and gradients against fp64 {error:.1e}")
        assert error < 5e-5, f"{backend} is wrong ({error})"
    for name, shape in SHAPES.items():
        tensors = problem(*shape)
        traffic = 4 * (sum(t.numel() for t in tensors.values()) + tensors["u"].numel())
        print(f"{name} B{shape[0]} L{shape[1]} D{shape[2]} N{shape[3]}: "
              f"{selective_scan_flops(*shape) / 1e6:.0f} MFLOP, {traffic / 1e6:.1f} MB forward")  # fmt: skip
        for backend in ("reference", "torch", "cpu"):
            for backward in (False, True):
                repeats = options.repeats if backend != "reference" else 2
                times = milliseconds(tensors, backend, backward=backward, repeats=repeats)
                row = {
                    "shape": shape,
                    "backend": backend,
                    "pass": "forward+backward" if backward else "forward",
                    "median_ms": statistics.median(times),
                    "min_ms": times[0],
                    "max_ms": times[-1],
                    "gflops_per_second": selective_scan_flops(*shape)
                    / statistics.median(times)
                    / 1e6,
                }
                rows.append(row)
                print(f"  {backend:9s} {row['pass']:16s} {row['median_ms']:9.2f} ms "
                      f"({row['min_ms']:.2f} to {row['max_ms']:.2f})")  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    written = {"environment": environment(), "threads": options.threads, "rows": rows}
    options.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
