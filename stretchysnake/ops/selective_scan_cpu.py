"""The selective scan on the native CPU kernels of ``native/``, forward and backward, via ctypes.

Symbols: B batch, L tokens, D inner channels, N state size.

Results are bitwise equal from call to call for a given thread count; sums over channels and batch
(gradients of A, B, C, D, delta_bias) are divided among threads in a fixed way and added in thread
order, so another thread count changes them by rounding only.
"""

import ctypes

import torch
from torch import Tensor

from stretchysnake.ops import native_library
from stretchysnake.ops.native_library import is_available, unavailable_reason

__all__ = ["is_available", "selective_scan_cpu", "unavailable_reason"]

_SEQUENCES = ("u", "delta", "B", "C", "z")
_FIELDS = (
    *("batch", "length", "channels", "state", "delta_softplus", "reverse"),
    *("is_double", "num_threads"),
    *(name + part for name in _SEQUENCES for part in ("", "_batch_stride", "_row_stride")),
    *("A", "D", "delta_bias", "initial_state", "y", "final_state", "checkpoints"),
    *("grad_y", "grad_y_batch_stride", "grad_y_row_stride", "grad_final_state"),
    *("grad_u", "grad_delta", "grad_A", "grad_B", "grad_C", "grad_D", "grad_z"),
    *("grad_delta_bias", "grad_initial_state"),
)


class _ScanProblem(ctypes.Structure):
    """``ScanProblem`` of native/kernels.h: every field is 8 bytes, an absent pointer is 0."""

    _fields_ = [(name, ctypes.c_int64) for name in _FIELDS]


def selective_scan_cpu(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``(y, final_state)``; shapes and dtype rule as in ``selective_scan_reference``.

    Half-precision inputs are converted to fp32 first. Runs on ``torch.get_num_threads()`` threads,
    fewer where the problem is small. Decays below 1e-38 count as 0.
    """
    native_library.load()
    if not u.is_cpu:
        raise ValueError(
            f"u (device {u.device}) must be on the CPU for backend='cpu'; use backend='torch'."
        )
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    given = [t for t in tensors if t is not None]
    dtype = torch.float64 if torch.float64 in {t.dtype for t in given} else torch.float32
    tensors = tuple(t if t is None or t.dtype == dtype else t.to(dtype) for t in tensors)
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        y, final_state = _SelectiveScan.apply(*tensors, delta_softplus, reverse)
    else:
        y, final_state, _, _ = _forward(tensors, delta_softplus, reverse, keep_states=False)
    return (y if y.dtype == u.dtype else y.to(u.dtype)), final_state


def _rows_in_place(tensor: Tensor | None) -> Tensor | None:
    """The tensor itself where its last dimension is dense, whatever its row strides, else a copy."""
    if tensor is None or tensor.stride(-1) == 1 or tensor.shape[-1] == 1:
        return tensor
    return tensor.contiguous()


def _rows(tensor: Tensor | None) -> tuple[int, int, int]:
    if tensor is None:
        return 0, 0, 0
    batch_stride, row_stride, _ = tensor.stride()
    return tensor.data_ptr(), batch_stride, row_stride


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _forward(
    tensors: tuple[Tensor | None, ...], delta_softplus: bool, reverse: bool, keep_states: bool
) -> tuple[Tensor, Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """y, the final state, the states kept for the backward, and the tensors as the kernel read them.

    Kept are the states before every 32nd token: as much memory as N / 32 sequences (B, L, D).
    """
    u, delta, A, B, C, D, z, delta_bias, initial_state = tensors
    u, delta, B, C, z = (_rows_in_place(t) for t in (u, delta, B, C, z))
    A, D, delta_bias, initial_state = (
        None if t is None else t.contiguous() for t in (A, D, delta_bias, initial_state)
    )
    num_batch, length, channels = u.shape
    num_state = A.shape[1]
    is_double = u.dtype == torch.float64
    library = native_library.load()
    y = u.new_empty(num_batch, length, channels)
    final_state = u.new_empty(num_batch, channels, num_state)
    checkpoints = None
    if keep_states:
        size = library.stretchysnake_scan_checkpoint_size(
            *(ctypes.c_int64(n) for n in (num_batch, length, channels, num_state, is_double))
        )
        checkpoints = u.new_empty(size)
    problem = _ScanProblem(
        *(num_batch, length, channels, num_state, delta_softplus, reverse),
        *(is_double, torch.get_num_threads()),
        *(*_rows(u), *_rows(delta), *_rows(B), *_rows(C), *_rows(z)),
        *(_pointer(t) for t in (A, D, delta_bias, initial_state, y, final_state, checkpoints)),
    )
    if num_batch and channels:
        native_library.check(library.stretchysnake_scan_forward(ctypes.byref(problem)))
    return y, final_state, checkpoints, (u, delta, A, B, C, D, z, delta_bias, initial_state)


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        *tensors, ctx.delta_softplus, ctx.reverse = inputs
        y, final_state, checkpoints, read = _forward(
            tuple(tensors), ctx.delta_softplus, ctx.reverse, keep_states=True
        )
        ctx.save_for_backward(*read, checkpoints)
        ctx.set_materialize_grads(False)
        return y, final_state

    @staticmethod
    def backward(ctx, grad_y, grad_final_state):
        native_library.refuse_double_backward("selective_scan")
        u, delta, A, B, C, D, z, delta_bias, initial_state, checkpoints = ctx.saved_tensors
        num_batch, length, channels = u.shape
        num_state = A.shape[1]
        grad_y = u.new_zeros(u.shape) if grad_y is None else _rows_in_place(grad_y)
        if grad_final_state is not None:
            grad_final_state = grad_final_state.contiguous()
        grad_A = A.new_zeros(A.shape)
        grad_u, grad_delta = u.new_empty(u.shape), u.new_empty(u.shape)
        grad_B, grad_C = u.new_empty(B.shape), u.new_empty(C.shape)
        grad_z = None if z is None else u.new_empty(u.shape)
        grad_D, grad_delta_bias, grad_initial_state = (
            None if t is None else t.new_zeros(t.shape) for t in (D, delta_bias, initial_state)
        )
        problem = _ScanProblem(
            *(num_batch, length, channels, num_state, ctx.delta_softplus, ctx.reverse),
            *(u.dtype == torch.float64, torch.get_num_threads()),
            *(*_rows(u), *_rows(delta), *_rows(B), *_rows(C), *_rows(z)),
            *(_pointer(t) for t in (A, D, delta_bias, initial_state, None, None, checkpoints)),
            *(*_rows(grad_y), _pointer(grad_final_state)),
            *(_pointer(t) for t in (grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z)),
            *(_pointer(grad_delta_bias), _pointer(grad_initial_state)),
        )
        if num_batch and channels:
            library = native_library.load()
            native_library.check(library.stretchysnake_scan_backward(ctypes.byref(problem)))
        gradients = (grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z)
        return (*gradients, grad_delta_bias, grad_initial_state, None, None)
