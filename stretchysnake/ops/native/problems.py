"""The arguments of the native kernels, as ``native/kernels.h`` lays them out, made from tensors.

A call takes one problem or several of one shape, which a thread does one after the other. Symbols: B batch, L tokens,
D inner channels, K kernel width, N state size, C width, S sequences packed into one row (cu_seqlens).
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from stretchysnake.ops.native import library as native_library

_NARROW = {"u", "delta", "z", "x", "y"}
"""What is bf16 where the sequence is; all else is then fp32. Forward alone."""
_ROWS = {"u", "delta", "B", "C", "z", "dt", "x", "projected"}
_ROWS |= {"grad_y", "grad_z", "grad_B", "grad_C", "grad_dt", "grad_x"}


def _fields(*names: str) -> list[tuple[str, type]]:
    """Every field is 8 bytes; rows of a sequence are a pointer and two strides, in elements."""
    parts = (
        (name, f"{name}_batch_stride", f"{name}_row_stride") if name in _ROWS else (name,)
        for name in names
    )
    return [(field, ctypes.c_int64) for group in parts for field in group]


class ScanProblem(ctypes.Structure):
    """``ScanProblem`` of native/kernels.h; an absent pointer is 0."""

    _fields_ = _fields(
        *("batch", "length", "channels", "state", "rank", "delta_softplus", "A_is_log", "reverse"),
        *("adds", "is_double", "is_bf16", "num_threads", "sequences", "cu_seqlens"),
        *("u", "delta", "B", "C", "z", "dt"),
        *("A", "D", "delta_bias", "initial_state", "dt_weight", "y", "final_state", "checkpoints"),
        *("grad_y", "grad_final_state", "grad_u", "grad_delta", "grad_A", "grad_D"),
        *("grad_B", "grad_C", "grad_dt", "grad_z"),
        *("grad_delta_bias", "grad_dt_weight", "grad_initial_state"),
    )


class ConvProblem(ctypes.Structure):
    """``ConvProblem`` of native/kernels.h; an absent pointer is 0."""

    _fields_ = _fields(
        *("batch", "length", "channels", "width", "reverse", "adds", "is_double", "is_bf16"),
        *("num_threads", "sequences", "cu_seqlens", "x", "weight", "bias", "y", "outputs"),
        *("projection", "projected", "grad_y", "grad_x", "grad_weight", "grad_bias"),
        "grad_projection",
    )


class NormProblem(ctypes.Structure):
    """``NormProblem`` of native/kernels.h; an absent pointer is 0."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "width", "is_double", "is_bf16")),
        ("num_threads", ctypes.c_int64),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("x", "residual", "weight", "y", "sum", "inverse")),
        *((name, ctypes.c_int64) for name in ("grad_y", "grad_sum", "grad_x", "grad_weight")),
    )


_PLACES = {
    kind: {name: place for place, (name, _) in enumerate(kind._fields_)}
    for kind in (ScanProblem, ConvProblem, NormProblem)
}


def scan_problem(u: Tensor, A: Tensor, **values: Tensor | int | None) -> ScanProblem:
    """A scan of u (B, L, D) by A (D, N); tensors by name, absent ones None, flags as numbers; cu_seqlens as `seams`."""
    return _filled(ScanProblem, u, u=u, A=A, state=A.shape[1], **values)


def conv_problem(x: Tensor, weight: Tensor, **values: Tensor | int | None) -> ConvProblem:
    """A convolution of x (B, L, D) with weight (D, K); tensors by name, flags as numbers; cu_seqlens as `seams`."""
    return _filled(ConvProblem, x, x=x, weight=weight, width=weight.shape[1], **values)


def norm_problem(x: Tensor, *, eps: float = 0.0, **tensors: Tensor | None) -> NormProblem:
    """A norm over the last axis of x (..., C); dense tensors by name, absent ones None."""
    return _filled(NormProblem, x[None].flatten(0, -2), x=x, eps=eps, **tensors)


def seams(cu_seqlens: Tensor | None) -> Tensor | None:
    """cu_seqlens (S + 1,) as the kernels read it; its values were checked where the operation was called."""
    return None if cu_seqlens is None else cu_seqlens.to(torch.int64).contiguous()


def _filled(kind: type, sequence: Tensor, **values: Tensor | float | None):
    """The problem whose first fields are the sequence's extent; sequences by row, other tensors dense."""
    places = _PLACES[kind]
    numbers = [0] * len(kind._fields_)
    numbers[: sequence.dim()] = sequence.shape
    numbers[places["is_double"]] = sequence.dtype == torch.float64
    narrow = numbers[places["is_bf16"]] = sequence.dtype == torch.bfloat16
    of_others = torch.float32 if narrow else sequence.dtype
    numbers[places["num_threads"]] = torch.get_num_threads()
    for name, value in values.items():
        if value is None:
            continue
        place = places[name]
        if not isinstance(value, Tensor):
            numbers[place] = value
            continue
        wanted = sequence.dtype if name in _NARROW else of_others
        wanted = torch.int64 if name == "cu_seqlens" else wanted
        assert value.dtype == wanted, (name, value.dtype, wanted)
        numbers[place] = value.data_ptr()
        if name == "cu_seqlens":
            numbers[places["sequences"]] = len(value) - 1
        if f"{name}_row_stride" in places:
            numbers[place + 1], numbers[place + 2], last = value.stride()
            assert last == 1 or value.shape[-1] == 1, name
        else:
            assert value.is_contiguous(), name
    problem = kind(*numbers)
    problem.tensors = values  # the pointers hold as long as the problem lives
    return problem


def run(function: str, problems: Sequence[ctypes.Structure]) -> None:
    """Call ``stretchysnake_<function>`` on the problems; nothing to do where they hold no element."""
    first = problems[0]
    extent = (
        ("rows", "width") if isinstance(first, NormProblem) else ("batch", "length", "channels")
    )
    if all(getattr(first, name) for name in extent):
        array = (type(first) * len(problems))(*problems)
        library = native_library.load()
        native_library.check(getattr(library, f"stretchysnake_{function}")(array, len(problems)))


def rows_in_place(tensor: Tensor | None) -> Tensor | None:
    """The tensor (any shape) itself where its last dimension is dense, whatever its row strides, else a copy."""
    if tensor is None or tensor.stride(-1) == 1 or tensor.shape[-1] == 1:
        return tensor
    return tensor.contiguous()


def dense(tensor: Tensor | None) -> Tensor | None:
    """The tensor without gaps, of any shape."""
    return None if tensor is None else tensor.contiguous()


def new_checkpoints(
    u: Tensor, num_state: int, keep: bool, cu_seqlens: Tensor | None = None
) -> Tensor:
    """Room for the states before every 32nd token of each sequence, which the backward starts from; empty if not kept.

    As much memory as N / 32 sequences (B, L, D). Of packed sequences a bound that needs no look at where they end.
    """
    tokens, vector_bytes = native_library.checkpoint_tokens(), native_library.vector_bytes()
    lanes = vector_bytes // u.itemsize
    chunks = (u.shape[1] + tokens - 1) // tokens if keep else 0
    if keep and cu_seqlens is not None:
        chunks = u.shape[1] // tokens + cu_seqlens.shape[0] - 1
    blocks = (u.shape[2] + lanes - 1) // lanes
    return u.new_empty(u.shape[0], chunks, blocks * lanes * num_state)
