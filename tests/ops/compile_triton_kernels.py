"""Compiles the Triton kernels to machine code of sm_90 on a machine without a GPU, for test_selective_scan_triton.py.

The interpreter runs kernels as Python and misses what Triton's compiler refuses: types that change in a loop, shapes
that do not fit, calls it does not know. Nothing is launched. Prints the name of each kernel compiled.
"""

import contextlib
from types import SimpleNamespace

import torch
import triton
from triton.backends.compiler import GPUTarget

from stretchysnake.ops import causal_conv_silu, selective_scan
from stretchysnake.ops.triton import runtime as triton_runtime

HOPPER = SimpleNamespace(
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    get_current_device=lambda: 0,
    get_current_stream=lambda device=0: 0,
)


class CompiledOnly:
    """Stands for a kernel; a launch of it compiles and goes no further."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            made = self.kernel.warmup(*arguments, grid=grid, **options)
            assert made.asm["cubin"]
            print(self.kernel.fn.__name__, flush=True)

        return launch


def stand_in() -> None:
    """Pretend that a Hopper chip with 132 processors holds the CPU's tensors."""
    from stretchysnake.ops.causal_conv import triton_kernels as causal_conv_triton_kernels
    from stretchysnake.ops.selective_scan import triton_backward as selective_scan_triton_backward
    from stretchysnake.ops.selective_scan import triton_forward as selective_scan_triton_forward

    triton.runtime.driver.set_active(HOPPER)
    triton_runtime.check_device = lambda name, tensor: None
    triton_runtime.num_processors = lambda device: 132
    triton_runtime.on_device = lambda tensor: contextlib.nullcontext()
    for module in (
        selective_scan_triton_forward,
        selective_scan_triton_backward,
        causal_conv_triton_kernels,
    ):
        for name, value in vars(module).items():
            if isinstance(value, triton.runtime.JITFunction) and value.do_not_specialize:
                setattr(module, name, CompiledOnly(value))


def compile_scan(shape: tuple, dtype: torch.dtype, *, optional: bool, packed: bool, reverse: bool):
    batch, length, channels, state = shape
    wide = torch.promote_types(dtype, torch.float32)
    u, delta, z = (torch.zeros(batch, length, channels, dtype=dtype) for _ in range(3))
    B, C = (torch.zeros(batch, length, state, dtype=dtype) for _ in range(2))
    given = {"A": torch.zeros(channels, state, dtype=wide), "B": B, "C": C, "delta": delta}
    if optional:
        D, delta_bias = (torch.zeros(channels, dtype=wide) for _ in range(2))
        initial_state = torch.zeros(batch, channels, state, dtype=wide)
        given |= {"D": D, "delta_bias": delta_bias, "initial_state": initial_state, "z": z}
    given = {name: t.requires_grad_() for name, t in given.items()}
    ends = torch.tensor([0, length], dtype=torch.int32) if packed else None
    options = {"reverse": reverse, "cu_seqlens": ends, "delta_softplus": optional}
    y = selective_scan(u, **given, **options, backend="triton")
    torch.autograd.grad(y.sum(), list(given.values()), allow_unused=True)


def compile_convolution(dtype: torch.dtype, *, packed: bool, reverse: bool):
    x = torch.zeros(1, 50, 70, dtype=dtype)
    weight = torch.zeros(70, 4, dtype=torch.promote_types(dtype, torch.float32)).requires_grad_()
    bias = weight[:, 0] if packed else None
    ends = torch.tensor([0, 50]) if packed else None
    y = causal_conv_silu(x, weight, bias, reverse, "triton", ends)
    torch.autograd.grad(y.sum(), weight)


if __name__ == "__main__":
    stand_in()
    layer, bf16 = (1, 3137, 384, 16), torch.bfloat16
    compile_scan(layer, bf16, optional=True, packed=False, reverse=True)
    compile_scan(layer, torch.float32, optional=False, packed=True, reverse=False)
    compile_scan((2, 9, 5, 3), torch.float64, optional=True, packed=False, reverse=False)
    compile_scan((1, 1, 1, 1), torch.float16, optional=True, packed=False, reverse=True)
    compile_convolution(bf16, packed=True, reverse=False)
    compile_convolution(torch.float64, packed=False, reverse=True)
