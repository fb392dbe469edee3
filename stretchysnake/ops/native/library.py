"""The compiled library of native CPU kernels: finding it, loading it, saying why it is absent."""

import ctypes
import functools
import os
import sys
from pathlib import Path

import torch
from torch import Tensor

from stretchysnake.ops.operation import constant_when_compiled

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
LIBRARY_PATH = Path(__file__).parent / f"libstretchysnake{_SUFFIX}"
ABI_VERSION = 8
_HOW_TO_BUILD = "run `pip install .` with a C++ compiler (g++ or clang++) on the path"


@functools.cache
def _open() -> tuple[ctypes.CDLL | None, str | None]:
    """The library and None, or None and the reason it cannot be used."""
    if not LIBRARY_PATH.exists():
        return None, f"native library {LIBRARY_PATH} not found: {_HOW_TO_BUILD}."
    try:
        library = ctypes.CDLL(str(LIBRARY_PATH))
        version = library.stretchysnake_abi_version()
    except (OSError, AttributeError) as error:
        return None, f"native library {LIBRARY_PATH} does not load ({error}): {_HOW_TO_BUILD}."
    if version != ABI_VERSION:
        return None, (
            f"native library {LIBRARY_PATH} has ABI version {version}, this package needs "
            f"{ABI_VERSION}: {_HOW_TO_BUILD}."
        )
    library.stretchysnake_instruction_set.restype = ctypes.c_char_p
    library.stretchysnake_use_gomp(ctypes.c_void_p(_gomp_parallel()))
    return library, None


def _gomp_parallel() -> int:
    """Address of GOMP_parallel in the libgomp that torch runs on, or 0 where torch brings another OpenMP.

    The kernels then share torch's threads: one pool, and waking it takes a tenth of a thread's start.
    """
    try:
        with open("/proc/self/maps") as maps:
            loaded = {line.split()[-1] for line in maps if "libgomp" in line}
        paths = [path for path in loaded if "/torch" in path] or list(loaded)
        if len(paths) != 1:
            return 0
        libgomp = ctypes.CDLL(paths[0], mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        return ctypes.cast(libgomp.GOMP_parallel, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0


def load() -> ctypes.CDLL:
    """The loaded library; RuntimeError naming the command to run where there is none."""
    library, reason = _open()
    if library is None:
        raise RuntimeError(f"backend 'cpu' is not available: {reason}")
    return library


def check_device(name: str, tensor: Tensor) -> None:
    """RuntimeError where the kernels cannot run, ValueError where this tensor (any shape) is not on the CPU."""
    if not is_available():
        load()  # says what is missing
    if not tensor.is_cpu:
        raise ValueError(
            f"{name} (device {tensor.device}) must be on the CPU for backend='cpu'; use backend='torch'."
        )


def check(status: int) -> None:
    """Turn a kernel's status into an exception."""
    if status:
        raise MemoryError("the native kernel could not allocate its workspace.")


def refuse_double_backward(name: str, backend: str = "cpu") -> None:
    """Called in a backward: RuntimeError where torch wants to differentiate the gradient again."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{name} with backend={backend!r} has no second derivative (create_graph=True asks for one); "
            "use backend='torch'."
        )


@constant_when_compiled
def unavailable_reason() -> str | None:
    """Why the native kernels cannot be used, or None where they can."""
    return _open()[1]


@constant_when_compiled
def is_available() -> bool:
    """Whether the native kernels can be used."""
    return _open()[0] is not None


def checkpoint_tokens() -> int:
    """Tokens between the states kept for the backward."""
    return load().stretchysnake_checkpoint_tokens() if is_available() else 32


def vector_bytes() -> int:
    """Bytes of this machine's vectors, to a multiple of which the kernels fill up channels."""
    return load().stretchysnake_vector_bytes() if is_available() else 64


def instruction_set() -> str:
    """The instruction set chosen for this machine, e.g. "avx2"."""
    return load().stretchysnake_instruction_set().decode()
