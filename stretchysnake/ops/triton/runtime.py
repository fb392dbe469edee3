"""Whether the Triton kernels can run here, and how many programs fill the chip they run on."""

import contextlib
import functools
import importlib.util

import torch
from torch import Tensor

from stretchysnake.ops.operation import constant_when_compiled

_HOW_TO_INSTALL = "run `pip install triton` (Linux; torch for CUDA brings it along)"


@functools.cache
def _found() -> tuple[bool, str | None]:
    """(is it Triton's interpreter?, why the kernels cannot be used)."""
    if importlib.util.find_spec("triton") is None:
        return False, f"triton not found: {_HOW_TO_INSTALL}."
    try:
        from triton.runtime.interpreter import InterpretedFunction

        from stretchysnake.ops.triton.arithmetic import softplus
    except (ImportError, AttributeError, OSError) as error:
        return False, f"triton does not load ({error}): {_HOW_TO_INSTALL}."
    if isinstance(softplus, InterpretedFunction):
        return True, _interpreter_fault()
    if not torch.cuda.is_available():
        return False, (
            "no CUDA device: run it where `nvidia-smi` lists one, or set TRITON_INTERPRET=1 "
            "to check the kernels slowly on the CPU."
        )
    return False, None


def _interpreter_fault() -> str | None:
    """Triton 3.6's interpreter takes int() of arrays of one element, which NumPy 2.4 refuses."""
    import numpy
    import triton

    if tuple(int(n) for n in triton.__version__.split(".")[:2]) >= (3, 7):
        return None
    if tuple(int(n) for n in numpy.__version__.split(".")[:2]) < (2, 4):
        return None
    return (
        f"the interpreter of triton {triton.__version__} does not work with numpy {numpy.__version__}: "
        "run `pip install 'numpy<2.4'` or `pip install 'triton>=3.7'`."
    )


@constant_when_compiled
def unavailable_reason() -> str | None:
    """Why the Triton kernels cannot be used, or None where they can."""
    return _found()[1]


@constant_when_compiled
def is_available() -> bool:
    """Whether the Triton kernels can be used."""
    return _found()[1] is None


@constant_when_compiled
def is_interpreted() -> bool:
    """Whether TRITON_INTERPRET=1 runs the kernels on the CPU, program after program."""
    return _found()[0]


def check_device(name: str, tensor: Tensor) -> None:
    """RuntimeError where the kernels cannot run, ValueError where this tensor (any shape) is not on a CUDA device."""
    if not is_available():
        raise RuntimeError(f"backend 'triton' is not available: {unavailable_reason()}")
    if not (tensor.is_cuda or is_interpreted()):
        raise ValueError(
            f"{name} (device {tensor.device}) must be on a CUDA device for backend='triton'; "
            "move it with .to('cuda') or use backend='auto'."
        )


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager:
    """A context in which kernels start on the device of a tensor of any shape."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


@functools.cache
def num_processors(device: torch.device) -> int:
    """Streaming multiprocessors of a CUDA device; 1 for the interpreter."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
