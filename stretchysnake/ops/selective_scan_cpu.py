"""The selective scan on the native CPU kernels of ``native/``, forward and backward, via ctypes.

Symbols: B batch, L tokens, D inner channels, N state size.

Results are bitwise equal from call to call for a given thread count; sums over channels and batch
(gradients of A, B, C, D, delta_bias) are divided among threads in a fixed way and added in thread
order, so another thread count changes them by rounding only.
"""

import ctypes

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from stretchysnake.ops import native_library
from stretchysnake.ops.native_library import is_available, unavailable_reason
from stretchysnake.ops.operation import operation
from stretchysnake.ops.selective_scan import selective_scan_backward_flops, selective_scan_flops

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
    fewer where the problem is small. Decays below 1e-38 count as 0. Torch sees one operation,
    ``torch.ops.stretchysnake.selective_scan``, which torch.compile and torch.export keep as it is.
    """
    if not is_available():
        native_library.load()  # says what is missing
    if not u.is_cpu:
        raise ValueError(
            f"u (device {u.device}) must be on the CPU for backend='cpu'; use backend='torch'."
        )
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    given = [t for t in tensors if t is not None]
    dtype = torch.float64 if torch.float64 in {t.dtype for t in given} else torch.float32
    tensors = tuple(t if t is None or t.dtype == dtype else t.to(dtype) for t in tensors)
    keep_states = torch.is_grad_enabled() and any(t.requires_grad for t in given)
    y, final_state, _ = _scan(*tensors, delta_softplus, reverse, keep_states)
    return (y if y.dtype == u.dtype else y.to(u.dtype)), final_state


def _rows_in_place(tensor: Tensor | None) -> Tensor | None:
    """The tensor itself where its last dimension is dense, whatever its row strides, else a copy."""
    if tensor is None or tensor.stride(-1) == 1 or tensor.shape[-1] == 1:
        return tensor
    return tensor.contiguous()


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _rows(tensor: Tensor | None) -> tuple[int, int, int]:
    if tensor is None:
        return 0, 0, 0
    batch_stride, row_stride, _ = tensor.stride()
    return tensor.data_ptr(), batch_stride, row_stride


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _new_outputs(u: Tensor, A: Tensor, keep_states: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state, and room for the states the backward starts from.

    Kept are the states before every 32nd token: as much memory as N / 32 sequences (B, L, D).
    """
    num_batch, length, channels = u.shape
    num_state = A.shape[1]
    library = native_library.load()
    tokens = library.stretchysnake_checkpoint_tokens()
    lanes = library.stretchysnake_vector_bytes() // u.itemsize
    chunks = (length + tokens - 1) // tokens if keep_states else 0
    blocks = (channels + lanes - 1) // lanes
    return (
        u.new_empty(num_batch, length, channels),
        u.new_empty(num_batch, channels, num_state),
        u.new_empty(num_batch, chunks, blocks * lanes * num_state),
    )


@operation("selective_scan")
def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    y, final_state, checkpoints = _new_outputs(u, A, keep_states)
    u, delta, B, C, z = (_rows_in_place(t) for t in (u, delta, B, C, z))
    A, D, delta_bias, initial_state = (_dense(t) for t in (A, D, delta_bias, initial_state))
    problem = _ScanProblem(
        *(*u.shape, A.shape[1], delta_softplus, reverse),
        *(u.dtype == torch.float64, torch.get_num_threads()),
        *(*_rows(u), *_rows(delta), *_rows(B), *_rows(C), *_rows(z)),
        *(_pointer(t) for t in (A, D, delta_bias, initial_state, y, final_state)),
        _pointer(checkpoints if keep_states else None),
    )
    if u.numel():
        library = native_library.load()
        native_library.check(library.stretchysnake_scan_forward(ctypes.byref(problem)))
    return y, final_state, checkpoints


@torch.library.register_fake("stretchysnake::selective_scan")
def _(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, reverse, keep_states):
    return _new_outputs(u, A, keep_states)


@operation("selective_scan_backward")
def _scan_backward(
    grad_y: Tensor | None,
    grad_final_state: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    checkpoints: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """Gradients of the nine inputs; an empty tensor stands for that of an absent one."""
    u, delta, B, C, z = (_rows_in_place(t) for t in (u, delta, B, C, z))
    A, D, delta_bias, initial_state = (_dense(t) for t in (A, D, delta_bias, initial_state))
    grad_y = u.new_zeros(u.shape) if grad_y is None else _rows_in_place(grad_y)
    grad_final_state = _dense(grad_final_state)
    gradients = _new_gradients(u, delta, A, B, C, D, z, delta_bias, initial_state)
    grad_u, grad_delta, grad_A, grad_B, grad_C, *optional = gradients
    grad_D, grad_z, grad_delta_bias, grad_initial_state = (
        gradient if given is not None else None
        for gradient, given in zip(optional, (D, z, delta_bias, initial_state), strict=True)
    )
    problem = _ScanProblem(
        *(*u.shape, A.shape[1], delta_softplus, reverse),
        *(u.dtype == torch.float64, torch.get_num_threads()),
        *(*_rows(u), *_rows(delta), *_rows(B), *_rows(C), *_rows(z)),
        *(_pointer(t) for t in (A, D, delta_bias, initial_state, None, None, checkpoints)),
        *(*_rows(grad_y), _pointer(grad_final_state)),
        *(_pointer(t) for t in (grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z)),
        *(_pointer(grad_delta_bias), _pointer(grad_initial_state)),
    )
    if u.numel():
        library = native_library.load()
        native_library.check(library.stretchysnake_scan_backward(ctypes.byref(problem)))
    else:
        for gradient in gradients:
            gradient.zero_()
    return gradients


def _new_gradients(*tensors: Tensor | None) -> list[Tensor]:
    u = tensors[0]
    return [u.new_empty(0) if t is None else u.new_empty(t.shape) for t in tensors]


@torch.library.register_fake("stretchysnake::selective_scan_backward")
def _(grad_y, grad_final_state, *rest):
    return _new_gradients(*rest[:9])


def _setup_context(ctx, inputs, output):
    *tensors, ctx.delta_softplus, ctx.reverse, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_y, grad_final_state, _):
    native_library.refuse_double_backward("selective_scan")
    *tensors, checkpoints = ctx.saved_tensors
    found = _scan_backward(
        grad_y, grad_final_state, *tensors, checkpoints, ctx.delta_softplus, ctx.reverse
    )
    gradients = (g if t is not None else None for g, t in zip(found, tensors, strict=True))
    return (*gradients, None, None, None)


torch.library.register_autograd(
    "stretchysnake::selective_scan", _backward, setup_context=_setup_context
)


@register_flop_formula(torch.ops.stretchysnake.selective_scan)
def _(u_shape, delta_shape, A_shape, *_, **__) -> int:
    return selective_scan_flops(*u_shape, A_shape[1])


@register_flop_formula(torch.ops.stretchysnake.selective_scan_backward)
def _(grad_y_shape, grad_final_shape, u_shape, delta_shape, A_shape, *_, **__) -> int:
    return selective_scan_backward_flops(*u_shape, A_shape[1])
