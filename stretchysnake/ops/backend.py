"""Which implementation of an operation runs, when the caller leaves the choice to us. B sequences of L tokens."""

import logging
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.operation import is_exporting
from stretchysnake.ops.triton import runtime as triton_runtime

logger = logging.getLogger(__name__)

Backend = Literal["auto", "reference", "torch", "cpu", "triton", "exported"]
_announced: set[tuple[str, str]] = set()


def choose_backend(
    operation: str,
    tensor: Tensor,
    backend: Backend = "auto",
    *,
    name: str | None = None,
    among: Sequence[str] = get_args(Backend),
) -> str:
    """The backend asked for or, for "auto", that of tensors like this one, of any shape; logged once an operation.

    "auto" takes the native kernel ("cpu") for CPU tensors where it is built, "triton" for CUDA tensors where
    Triton is installed, "exported" while torch.export traces, else "torch". It is "meta" for meta tensors, of which
    nothing is computed: the native operation, built or not, tells their shapes and FLOPs. ValueError for a backend
    that is not `among` those of the operation and, where the tensor's `name` is given, for a tensor that the one
    asked for does not take; RuntimeError where that one is not there.
    """
    if backend not in among:
        raise ValueError(f"backend ({backend!r}) must be one of {', '.join(map(repr, among))}.")
    if name is not None and backend == "cpu":
        native_library.check_device(name, tensor)
    if name is not None and backend == "triton":
        triton_runtime.check_device(name, tensor)
    if backend != "auto":
        return backend
    if is_exporting():
        return "exported"  # plain operations: the program runs where this package is not installed
    if tensor.is_cuda:
        missing, fast, why = triton_runtime.unavailable_reason(), "triton", "Triton kernels"
    elif tensor.is_cpu:
        missing, fast, why = native_library.unavailable_reason(), "cpu", "native kernel loaded"
    elif tensor.device.type == "meta":
        return "meta"
    else:
        missing, fast, why = f"no native kernel for {tensor.device.type} tensors", "torch", ""
    choice = "torch" if missing else fast
    if not torch.compiler.is_compiling() and (operation, choice) not in _announced:
        _announced.add((operation, choice))
        logger.info("%s uses backend %r: %s", operation, choice, missing or why)
    return choice


def is_narrow_fit(x: Tensor, *parameters: Tensor) -> bool:
    """Whether native forwards take x (B, L, ...) as it is: bf16 on the CPU, parameters of fp32 or bf16, no gradient.

    They have no backward for it: with gradients, bf16 takes torch's operations.
    """
    given = (x, *parameters)
    return (
        x.dtype == torch.bfloat16
        and all(t.dtype in (torch.bfloat16, torch.float32) for t in parameters)
        and all(t.is_cpu or t.is_meta for t in given)
        and not (torch.is_grad_enabled() and any(t.requires_grad for t in given))
        and not is_exporting()
    )


def is_native_fit(*tensors: Tensor) -> bool:
    """Whether the native operations that convert nothing take these tensors: all fp32, or all fp64, on the CPU."""
    first = tensors[0]
    return (
        first.dtype in (torch.float32, torch.float64)
        and all(t.dtype == first.dtype and (t.is_cpu or t.is_meta) for t in tensors)
        and not is_exporting()
    )
