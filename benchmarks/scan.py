"""Selective scan on the CPU: every contender against fp64, then its time beside the others' in the same rounds.

    OMP_WAIT_POLICY=passive python benchmarks/scan.py [--threads 2] [--out benchmarks/results/scan.json]

With softplus, bias, skip D and gate, fp32, N = 16. Contenders: our backends, each instruction set of the native one
that this machine has, and, where installed, `pip install mambapy transformers`: mambapy's parallel scan and the plain
PyTorch scan of transformers' Mamba; `pip install onnx onnxscript onnxruntime`: ONNX's `Scan` as `export` writes it,
which has no backward. With one thread times are the processor's, with more the clock's.

Floor of the native kernel, per state update on AVX2: 12 operations on two FMA pipes, 6 cycles a vector of 8 floats,
so 0.75 cycles an update and thread; bytes: every tensor read or written once. The machine may be shared: read the
ratios of one run, not the milliseconds of two.
"""

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from stretchysnake.ops.flops import selective_scan_flops
from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.selective_scan.exported import selective_scan_exported
from stretchysnake.ops.selective_scan.inputs import ScanInputs
from stretchysnake.ops.selective_scan.scan import selective_scan
from stretchysnake.results.rows import environment

SHAPES = {
    "tiny layer, 8x224": (1, 1569, 384, 16),
    "middle layer, 16x224": (1, 3137, 1152, 16),
    "nano batch": (32, 129, 128, 16),
}
ERROR_LENGTHS = (1, 2, 63, 64, 65, 1000, 12544)
GROWTH_LENGTHS = (1569, 6272, 25088, 100352, 200704)
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
LIMIT = 1e-5
FORWARD_ONLY = "onnxruntime Scan"


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


def ours(backend: str, instruction_set: str | None = None):
    def scan(**tensors):
        if instruction_set is not None:
            library = native_library.load()
            assert library.stretchysnake_use_instruction_set(instruction_set.encode()) == 0
        return selective_scan(**tensors, delta_softplus=True, backend=backend)

    return scan


def mambapy_scan(u, delta, A, B, C, D, z, delta_bias):
    from mambapy.mamba import MambaBlock

    step = F.softplus(delta + delta_bias)
    return MambaBlock.selective_scan(None, u, step, A, B, C, D) * F.silu(z)


def transformers_scan(u, delta, A, B, C, D, z, delta_bias):
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    u, delta, B, C, z = (t.transpose(1, 2) for t in (u, delta, B, C, z))
    y = mamba_selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus=True)
    return y.transpose(1, 2)


class _Exported(torch.nn.Module):
    def forward(self, u, delta, A, B, C, D, z, delta_bias):
        inputs = ScanInputs(u, delta, A, B, C, D, z, delta_bias, None, True, False)
        return selective_scan_exported(inputs)[0]


def onnxruntime_scan():
    """The exported scan in onnxruntime, a session for each shape, on as many threads as torch has."""
    import onnxruntime

    sessions = {}

    def session_of(tensors: dict):
        key = tuple(tensors["u"].shape), torch.get_num_threads()
        if key not in sessions:
            with tempfile.TemporaryDirectory() as folder:
                path = f"{folder}/scan.onnx"
                given = tuple(tensors[name].detach() for name in NAMES)
                options = {"input_names": NAMES, "output_names": ["y"], "dynamo": True}
                torch.onnx.export(_Exported(), given, path, verbose=False, **options)
                how = onnxruntime.SessionOptions()
                how.intra_op_num_threads = key[1]
                providers = ["CPUExecutionProvider"]
                sessions[key] = onnxruntime.InferenceSession(path, how, providers=providers)
        return sessions[key]

    def scan(**tensors):
        session = session_of(tensors)
        (y,) = session.run(None, {n: t.detach().numpy() for n, t in tensors.items()})
        return torch.from_numpy(y)

    return scan


def contenders() -> dict:
    found = {"reference": ours("reference"), "torch": ours("torch")}
    best = native_library.instruction_set()
    for name in ("baseline", "avx2", "avx512"):
        if native_library.load().stretchysnake_use_instruction_set(name.encode()) == 0:
            found[f"native {name}"] = ours("cpu", name)
    native_library.load().stretchysnake_use_instruction_set(best.encode())
    if importlib.util.find_spec("mambapy"):
        found["mambapy pscan"] = mambapy_scan
    if importlib.util.find_spec("transformers"):
        found["transformers slow path"] = transformers_scan
    if all(importlib.util.find_spec(n) for n in ("onnx", "onnxscript", "onnxruntime")):
        found[FORWARD_ONLY] = onnxruntime_scan()
    return found


def outcome(scan, tensors: dict) -> list[torch.Tensor]:
    """y and the gradients of all inputs."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    y = scan(**leaves)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y.detach(), *torch.autograd.grad(y, [leaves[name] for name in NAMES], weights)]


def errors(scan, longest: int, *, forward_only: bool = False) -> dict[int, float]:
    """Largest error against fp64 of output and gradients, relative to each tensor's largest value, by L."""
    found = {}
    for length in (length for length in ERROR_LENGTHS if length <= longest):
        shape = (1, length, 24, 16)
        judge = (
            ours("reference") if length <= 1000 else ours("torch")
        )  # the loop needs minutes there
        exact = outcome(judge, problem(*shape, dtype=torch.float64))
        got = [scan(**problem(*shape))] if forward_only else outcome(scan, problem(*shape))
        found[length] = max(
            ((g.double() - e).abs().max() / e.abs().max()).item()
            for g, e in zip(got, exact, strict=not forward_only)
        )
    return found


def timed(work) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    work()
    return 1e3 * (clock() - started)


def compare(shape: tuple, scans: dict, repeats: int, *, backward: bool) -> dict[str, dict]:
    """Times in rounds that hold each contender once; slow ones sit out most rounds."""
    tensors = problem(*shape)
    works = {}
    for name, scan in scans.items():
        if backward:
            works[name] = lambda scan=scan: outcome(scan, tensors)
        else:
            works[name] = torch.no_grad()(lambda scan=scan: scan(**tensors))
    times: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(repeats + 1):
        for name, work in works.items():
            slow = times[name] and times[name][0] > 400
            if round_ and slow and len(times[name]) >= 3:
                continue
            times[name].append(timed(work))
    return {
        name: {
            "median_ms": statistics.median(found[1:] or found),
            "min_ms": min(found),
            "max_ms": max(found[1:] or found),
            "repeats": len(found) - 1,
        }
        for name, found in times.items()
    }


def growth(repeats: int) -> dict:
    """Time by L at D = 192, the exponent of a fit through all, and peak memory of a process at each end."""
    rows = {}
    with torch.no_grad():
        for length in GROWTH_LENGTHS:
            tensors = problem(1, length, 192, 16)
            ours("cpu")(**tensors)
            rows[length] = statistics.median(
                timed(lambda t=tensors: ours("cpu")(**t)) for _ in range(repeats)
            )
    logs = torch.tensor([list(rows), list(rows.values())]).log()
    x, y = logs - logs.mean(1, keepdim=True)
    memory = {}
    for length in (GROWTH_LENGTHS[0], GROWTH_LENGTHS[-1]):
        command = [sys.executable, __file__, "--memory_of", str(length)]
        line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        memory[length] = json.loads(line.splitlines()[-1])
    return {"median_ms": rows, "exponent": float((x * y).sum() / (x * x).sum()), "memory": memory}


def memory_of(length: int) -> dict:
    """Bytes the process grows by in one inference scan, against its inputs and outputs."""
    tensors = problem(1, length, 192, 16)
    with torch.no_grad():
        ours("cpu")(**problem(1, 64, 192, 16))
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        held = _status("VmRSS")
        y = ours("cpu")(**tensors)
    grown = _status("VmHWM") - held
    inputs = sum(4 * t.numel() for t in tensors.values())
    return {"grown": grown, "inputs": inputs, "output": 4 * y.numel()}


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def steadiness() -> dict:
    """Bitwise equality of two runs, and the largest relative difference between one thread and two."""
    tensors = problem(3, 515, 200, 16)
    found = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        found.append(outcome(ours("cpu"), tensors))
    one, two, again = found
    return {
        "run to run bitwise": all(torch.equal(a, b) for a, b in zip(two, again, strict=True)),
        "one thread against two": max(
            float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, two, strict=True)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--memory_of", type=int)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scan.json"))
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(memory_of(options.memory_of)))
        return
    scans = contenders()
    found = {"errors": {}, "steadiness": steadiness(), "times": {}}
    assert found["steadiness"]["run to run bitwise"]
    torch.set_num_threads(options.threads)
    for name, scan in scans.items():  # the gate: nothing is timed before it is right
        # the backward of transformers' slices takes minutes on long sequences
        longest = 1000 if name.startswith("transformers") else 10**9
        found["errors"][name] = errors(scan, longest, forward_only=name == FORWARD_ONLY)
        worst = max(found["errors"][name].values())
        print(f"{name:26s} largest error of output and gradients against fp64 {worst:.1e}")
        assert worst < LIMIT, f"{name} is wrong ({worst})"
    print(f"threads: {found['steadiness']}")
    for title, shape in SHAPES.items():
        tensors = problem(*shape)
        traffic = 4 * (sum(t.numel() for t in tensors.values()) + tensors["u"].numel())
        updates = shape[0] * shape[1] * shape[2] * shape[3]
        print(f"\n{title} (B L D N = {shape}): {selective_scan_flops(*shape) / 1e6:.0f} MFLOP, "
              f"{updates / 1e6:.1f} M updates, {traffic / 1e6:.1f} MB forward")  # fmt: skip
        for backward in (False, True):
            unbearable = {FORWARD_ONLY} if backward else set()  # minutes a call, or none
            if backward and shape[1] > 1000:
                unbearable.add("transformers slow path")
            if backward and updates > 2e7:
                unbearable.add("reference")
            chosen = {name: scan for name, scan in scans.items() if name not in unbearable}
            times = compare(shape, chosen, options.repeats, backward=backward)
            way = "forward+backward" if backward else "forward"
            found["times"][f"{title}, {way}"] = times
            native = [name for name in times if name.startswith("native")]
            fastest = min(native, key=lambda name: times[name]["median_ms"])
            base = times[fastest]["median_ms"]
            print(f"  {way}")
            for name, row in times.items():
                print(f"    {name:26s} {row['median_ms']:10.2f} ms  ({row['min_ms']:.2f} to {row['max_ms']:.2f}, "
                      f"{row['repeats']} runs)  {row['median_ms'] / base:8.1f} x {fastest}")  # fmt: skip
            print(f"    {fastest}: {1e6 * base / updates:.3f} ns an update")
    found["growth"] = growth(5)
    print(f"\ngrowth, D = 192: {found['growth']}")
    written = {"environment": environment(), "threads": options.threads, **found}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
