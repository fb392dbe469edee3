"""The GPU kernels: checked against fp64 first, then timed against what the chip allows, in one call.

    python benchmarks/gpu.py [--out benchmarks/results/gpu.json] [--mamba_source mamba_ssm-2.x.tar.gz]
    python benchmarks/gpu.py --interpret      # no GPU: the check alone, at tiny shapes, by Triton's interpreter

Floors of the scan's forward: its bytes over the bandwidth of a large copy, and its B L D N exponentials over the rate
of a loop of exp2; both rates are measured in the same run. Beside it: our chunked PyTorch scan, and mamba-ssm's CUDA
scan (with flipped copies for the second direction) where it is installed or builds from --mamba_source with nvcc.
Exit code 3: no CUDA device; 1: a kernel is wrong, and nothing is timed.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from gpu_check import TOKENS, gate, problem

LAYER = (8, 3137, 1152, 16)  # VideoMamba-M, 16 x 224, batch 8
FORWARD_TILES = [(2, 64, 1), (2, 32, 1), (4, 32, 1), (8, 32, 1), (4, 16, 1), (4, 64, 2)]
BACKWARD_TILES = [(4, 16, 1), (2, 32, 1), (4, 32, 1), (2, 16, 1), (2, 64, 2), (1, 64, 1)]


def milliseconds(work) -> float:
    from triton.testing import do_bench

    return do_bench(work, warmup=50, rep=300, return_mode="median")


def exp_rate() -> float:
    """Exponentials a second of a loop that does little else."""
    from exp2_loop import exp2_loop

    programs, rounds = 132 * 64, 2048
    out = torch.empty(programs * 1024, device="cuda")
    taken = milliseconds(lambda: exp2_loop[(programs,)](out, rounds))
    return programs * 1024 * rounds / (taken / 1e3)


def bandwidth() -> float:
    """Bytes a second of a copy of 2 GB, reads and writes counted."""
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / (milliseconds(lambda: target.copy_(source)) / 1e3)


def mamba(source: str | None):
    """mamba-ssm's selective_scan_fn on channels-last tensors, or None and the reason.

    It computes channels first, so each call copies its inputs: `channels_first_ms` is the forward without that.
    """
    if source:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-build-isolation",
            "--no-deps",
            source,
        ]
        done = subprocess.run(
            command, env=os.environ | {"MAMBA_FORCE_BUILD": "TRUE"}, capture_output=True, text=True
        )
        if done.returncode:
            return (
                None,
                f"{source} does not build: {(done.stderr.splitlines() or ['no output'])[-1]}",
            )
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except Exception as error:
        return None, f"mamba_ssm does not import: {error!r}"

    def scan(
        u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, reverse=False,
        return_final_state=False, **_,
    ):  # fmt: skip
        rows = [t.flip(1) if reverse else t for t in (u, delta, B, C, z)]
        u, delta, B, C, z = (t.transpose(1, 2) for t in rows)
        y = selective_scan_fn(
            u, delta, A, B.contiguous(), C.contiguous(), D, z, delta_bias, delta_softplus
        )
        y = y.transpose(1, 2)
        y = y.flip(1) if reverse else y
        return (y, None) if return_final_state else y

    return scan, None


def scan_work(scan, tensors: dict, *, backward: bool):
    """Both directions with their gradients, or one direction forward."""
    given = {n: t for n, t in tensors.items() if n != "initial_state"}
    if not backward:
        return torch.no_grad()(lambda: scan(**given, delta_softplus=True))
    leaves = {n: t.detach().requires_grad_() for n, t in given.items()}
    weights = torch.randn_like(given["u"])

    def work():
        for reverse in (False, True):
            y = scan(**leaves, delta_softplus=True, reverse=reverse)
            torch.autograd.grad(y, list(leaves.values()), weights)

    return work


def channels_first_work(tensors: dict):
    """mamba-ssm's forward on tensors that lie as it wants them."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, B, C, z = (tensors[n].transpose(1, 2).contiguous() for n in TOKENS)
    A, D, bias = tensors["A"], tensors["D"], tensors["delta_bias"]
    return torch.no_grad()(lambda: selective_scan_fn(u, delta, A, B, C, D, z, bias, True))


def time_scans(peer) -> dict:
    from stretchysnake.ops import selective_scan
    from stretchysnake.ops.selective_scan import triton_tiles

    tensors = problem(LAYER, torch.bfloat16, "cuda")
    batch, length, channels, state = LAYER
    copied, exps = bandwidth(), exp_rate()
    moved = sum(tensors[n].nbytes for n in TOKENS) + tensors["u"].nbytes
    floors = {
        "bytes_ms": 1e3 * moved / copied,
        "exp_ms": 1e3 * batch * length * channels * state / exps,
    }
    found = {"bandwidth": copied, "exp_rate": exps, "floors": floors, "tiles": {}}
    print(f"bandwidth {copied / 1e12:.2f} TB/s, exp2 {exps / 1e12:.2f} T/s; floors of one forward scan: "
          f"bytes {floors['bytes_ms']:.3f} ms, exponentials {floors['exp_ms']:.3f} ms")  # fmt: skip
    started = time.perf_counter()
    scan_work(selective_scan, tensors, backward=True)()
    torch.cuda.synchronize()
    found["first_call_s"] = time.perf_counter() - started
    print(f"first call, compiling forward and backward: {found['first_call_s']:.1f} s")
    for name, candidates, backward in (
        ("forward_tiles", FORWARD_TILES, False),
        ("backward_tiles", BACKWARD_TILES, True),
    ):
        usual = getattr(triton_tiles, name)
        for tiles in candidates:
            setattr(triton_tiles, name, lambda *_, tiles=tiles: triton_tiles.Tiles(*tiles))
            try:
                taken = milliseconds(scan_work(selective_scan, tensors, backward=backward))
            except Exception as error:
                taken = None
                print(f"  {name} {tiles}: {error!r}"[:200])
            found["tiles"][f"{name} {tiles}"] = taken
            print(f"  {name} {tiles}: {taken} ms")
        setattr(triton_tiles, name, usual)
    scans = {"ours": selective_scan, "torch": lambda **t: selective_scan(**t, backend="torch")}
    if peer:
        scans["mamba-ssm"] = peer
    for name, scan in scans.items():
        found[name] = {
            "forward_ms": milliseconds(scan_work(scan, tensors, backward=False)),
            "both_directions_forward_backward_ms": milliseconds(
                scan_work(scan, tensors, backward=True)
            ),
        }
        print(f"{name}: {found[name]}")
    if peer:
        found["mamba-ssm"]["channels_first_ms"] = milliseconds(channels_first_work(tensors))
    found["share_of_floor"] = max(floors.values()) / found["ours"]["forward_ms"]
    print(f"forward: {100 * found['share_of_floor']:.0f} % of the higher floor (aim 70 %)")
    return found


def time_model(peer) -> dict:
    from stretchysnake.models.config import VideoMambaConfig
    from stretchysnake.models.videomamba import VideoMamba

    model = VideoMamba(VideoMambaConfig.named("middle", num_classes=400)).cuda()
    video = torch.randn(8, 3, 16, 224, 224, device="cuda")
    labels = torch.zeros(8, dtype=torch.long, device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def forward():
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            model(video)

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(model(video).float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    try:  # where the mixer's scan is called from
        home = importlib.import_module("stretchysnake.ops.bidirectional_scan.scan")
    except ModuleNotFoundError:
        home = importlib.import_module("stretchysnake.models.mixer")
    found, usual = {}, home.selective_scan
    for name, scan in {"ours": usual, "mamba-ssm scan": peer}.items():
        if scan is None:
            continue
        home.selective_scan = scan
        for title, work in (("forward", forward), ("training step", step)):
            work()
            torch.cuda.reset_peak_memory_stats()
            taken = milliseconds(work)
            row = {
                "ms": taken,
                "clips_per_s": 8e3 / taken,
                "peak_bytes": torch.cuda.max_memory_allocated(),
            }
            found[f"{name}, {title}"] = row
            print(f"VideoMamba-M 16x224 bf16, batch 8, {name}, {title}: {row}")
    home.selective_scan = usual
    return found


def growth() -> dict:
    """One long video: time and memory by L, batch 1, D 384, bf16, forward."""
    from stretchysnake.ops import selective_scan

    rows = {}
    for length in (1000, 10_000, 100_000, 1_000_000):
        tensors = problem((1, length, 384, 16), torch.bfloat16, "cuda")
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        taken = milliseconds(scan_work(selective_scan, tensors, backward=False))
        grown = torch.cuda.max_memory_allocated() - held
        rows[length] = {
            "ms": taken,
            "ns_a_token": 1e6 * taken / length,
            "bytes_above_inputs": grown,
        }
        print(f"L {length}: {rows[length]}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    parser.add_argument(
        "--interpret", action="store_true", help="check the kernels on the CPU, slowly"
    )
    parser.add_argument("--mamba_source", help="mamba-ssm's source package, to be built with nvcc")
    options = parser.parse_args()
    if options.interpret and os.environ.get("TRITON_INTERPRET") != "1":
        os.execve(
            sys.executable, [sys.executable, *sys.argv], os.environ | {"TRITON_INTERPRET": "1"}
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the check runs deterministically
    from stretchysnake.ops.triton import runtime as triton_runtime

    missing = triton_runtime.unavailable_reason()
    if missing or not (options.interpret or torch.cuda.is_available()):
        print(
            f"no GPU kernels to measure: {missing or 'no CUDA device'} --interpret checks them without a GPU."
        )
        sys.exit(3)
    if options.interpret:
        gate("cpu", tiny=True)
        print("the kernels are right by the interpreter; nothing is timed without a GPU.")
        return
    from stretchysnake.results.rows import environment

    found = {
        "device": torch.cuda.get_device_name(),
        "environment": environment(),
        "gate": gate("cuda", tiny=False),
    }
    peer, reason = mamba(options.mamba_source)
    if reason:
        print(f"mamba-ssm is not compared: {reason}")
    found |= {
        "mamba-ssm": reason or "compared",
        "scan": time_scans(peer),
        "model": time_model(peer),
        "growth": growth(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
