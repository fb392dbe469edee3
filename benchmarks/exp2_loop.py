"""A loop of exp2 in Triton, by which benchmarks/gpu.py measures the chip's rate of exponentials."""

import triton
import triton.language as tl


@triton.jit
def exp2_loop(out, rounds):
    """Each program takes 1024 values through so many exponentials, every one fed to the next."""
    at = tl.program_id(0) * 1024 + tl.arange(0, 1024)
    value = at.to(tl.float32) * -1e-9
    for _ in tl.range(rounds):
        value = tl.exp2(-value)
    tl.store(out + at, value)
