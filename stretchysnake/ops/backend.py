"""Which implementation of an operation runs, when the caller leaves the choice to us."""

import logging
from typing import Literal

import torch
from torch import Tensor

from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.operation import is_exporting
from stretchysnake.ops.triton import runtime as triton_runtime

logger = logging.getLogger(__name__)

Backend = Literal["auto", "reference", "torch", "cpu", "triton", "exported"]
_announced: set[tuple[str, str]] = set()


def choose_backend(operation: str, tensor: Tensor) -> Backend:
    """The backend that "auto" takes for tensors like this one; said once in the log for each operation.

    The native kernel ("cpu") for CPU tensors where it is built, "triton" for CUDA tensors where Triton is
    installed, "exported" while torch.export traces, else "torch".
    """
    if is_exporting():
        return "exported"  # plain operations: the program runs where this package is not installed
    if tensor.is_cuda:
        missing, fast, why = triton_runtime.unavailable_reason(), "triton", "Triton kernels"
    elif tensor.is_cpu:
        missing, fast, why = native_library.unavailable_reason(), "cpu", "native kernel loaded"
    else:
        missing, fast, why = f"no native kernel for {tensor.device.type} tensors", "torch", ""
    choice = "torch" if missing else fast
    if not torch.compiler.is_compiling() and (operation, choice) not in _announced:
        _announced.add((operation, choice))
        logger.info("%s uses backend %r: %s", operation, choice, missing or why)
    return choice
