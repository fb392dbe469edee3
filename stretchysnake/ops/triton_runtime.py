"""Whether the Triton kernels can run here, and how many programs fill the chip they run on."""

import contextlib
import functools
import importlib.util

import torch
from torch import Tensor

_HOW_TO_INSTALL = "run `pip install triton` (Linux; torch for CUDA brings it along)"


@functools.cache
def _found() -> tuple[bool, str | None]:
    """(is it Triton's interpreter?, why the kernels cannot be used)."""
    if importlib.util.find_spec("triton") is None:
        return False, f"triton not found: {_HOW_TO_INSTALL}."
    try:
        from triton.runtime.interpreter import InterpretedFunction

        from stretchysnake.ops.triton_arithmetic import softplus
    except (ImportError, AttributeError, OSError) as error:
        return False, f"triton does not load ({error}): {_HOW_TO_INSTALL}."
    if isinstance(softplus, InterpretedFunction):
        return True, None
    if not torch.cuda.is_available():
        return False, (
            "no CUDA device: run it where `nvidia-smi` lists one, or set TRITON_INTERPRET=1 "
            "to check the kernels slowly on the CPU."
        )
    return False, None


def unavailable_reason() -> str | None:
    """Why the Triton kernels cannot be used, or None where they can."""
    return _found()[1]


@torch.compiler.assume_constant_result
def is_available() -> bool:
    """Whether the Triton kernels can be used."""
    return _found()[1] is None


@torch.compiler.assume_constant_result
def is_interpreted() -> bool:
    """Whether TRITON_INTERPRET=1 runs the kernels on the CPU, program after program."""
    return _found()[0]


def check_device(name: str, tensor: Tensor) -> None:
    """RuntimeError where the kernels cannot run, ValueError where this tensor is not on a CUDA device."""
    if not is_available():
        raise RuntimeError(f"backend 'triton' is not available: {unavailable_reason()}")
    if not (tensor.is_cuda or is_interpreted()):
        raise ValueError(
            f"{name} (device {tensor.device}) must be on a CUDA device for backend='triton'; "
            "move it with .to('cuda') or use backend='auto'."
        )


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager:
    """A context in which kernels start on the tensor's device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


@functools.cache
def num_processors(device: torch.device) -> int:
    """Streaming multiprocessors of a CUDA device; 1 for the interpreter."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
