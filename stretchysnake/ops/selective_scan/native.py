"""The selective scan on the native CPU kernels of ``native/``, forward and backward, via ctypes.

Symbols: B batch, L tokens, D inner channels, N state size, S sequences packed into one row.

Results are bitwise equal from call to call for a given thread count; sums over channels and batch
(gradients of A, B, C, D, delta_bias) are divided among threads in a fixed way and added in thread
order, so another thread count changes them by rounding only.
"""

import torch
from torch import Tensor

from stretchysnake.ops.backend import is_narrow_fit
from stretchysnake.ops.native.problems import (
    dense,
    new_checkpoints,
    rows_in_place,
    run,
    scan_problem,
    seams,
)
from stretchysnake.ops.operation import operation
from stretchysnake.ops.precision import state_dtype
from stretchysnake.ops.selective_scan.gradient import new_gradients, register_gradient
from stretchysnake.ops.selective_scan.inputs import SCHEMA, ScanInputs


def selective_scan_cpu(
    inputs: ScanInputs, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return ``(y, final_state)``; shapes and dtype rule as in ``selective_scan_reference``.

    With cu_seqlens (S + 1,) all sequences of the row are done in one call, divided among the threads by their lengths.
    Half-precision inputs are converted to fp32 first, but for u, delta and z where all are bf16 and no gradient is
    wanted. Runs on ``torch.get_num_threads()`` threads,
    fewer where the problem is small. Decays below 1e-38 count as 0. Torch sees one operation,
    ``torch.ops.stretchysnake.selective_scan``, which torch.compile and torch.export keep as it is.
    """
    dtype = state_dtype(*inputs.tensors)
    sequences = {"u", "delta", "z"} if _is_narrow(inputs) else set()
    tensors = (
        t if t is None or name in sequences else t.to(dtype)
        for name, t in zip(ScanInputs._fields, inputs.tensors, strict=False)
    )
    keep_states = torch.is_grad_enabled() and inputs.needs_gradient()
    flags = inputs.delta_softplus, inputs.reverse, keep_states
    y, final_state, _ = _scan(*tensors, cu_seqlens, *flags)
    return (y if y.dtype == inputs.u.dtype else y.to(inputs.u.dtype)), final_state


def _is_narrow(inputs: ScanInputs) -> bool:
    given = [t for t in inputs.tensors if t is not None]
    sequences = [t for t in (inputs.u, inputs.delta, inputs.z) if t is not None]
    return is_narrow_fit(*given) and all(t.dtype == torch.bfloat16 for t in sequences)


def _new_outputs(
    u: Tensor, A: Tensor, cu_seqlens: Tensor | None, keep_states: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final states, and room for the states the backward starts from."""
    num_batch, _, channels = u.shape
    num_state = A.shape[1]
    sequences = num_batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    return (
        u.new_empty(u.shape),
        u.new_empty(sequences, channels, num_state, dtype=state_dtype(u)),
        new_checkpoints(u, num_state, keep_states, cu_seqlens),
    )


@operation(
    "selective_scan",
    f"({SCHEMA}, Tensor? cu_seqlens, bool delta_softplus, bool reverse, bool keep_states) -> "
    "(Tensor, Tensor, Tensor)",
)
def _scan(*arguments: Tensor | bool | None) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, cu_seqlens, delta_softplus, reverse, keep_states = arguments
    inputs = ScanInputs(*tensors, delta_softplus, reverse)
    y, final_state, checkpoints = _new_outputs(inputs.u, inputs.A, cu_seqlens, keep_states)
    problem = scan_problem(
        **_as_read(inputs),
        cu_seqlens=seams(cu_seqlens),
        y=y,
        final_state=final_state,
        checkpoints=checkpoints if keep_states else None,
    )
    run("scan_forward", [problem])
    return y, final_state, checkpoints


@torch.library.register_fake("stretchysnake::selective_scan")
def _(*arguments):
    return _new_outputs(arguments[0], arguments[2], arguments[9], arguments[12])


@operation(
    "selective_scan_backward",
    f"(Tensor? grad_y, Tensor? grad_final_state, {SCHEMA}, Tensor? cu_seqlens, Tensor checkpoints, "
    "bool delta_softplus, bool reverse) -> Tensor[]",
)
def _scan_backward(
    grad_y: Tensor | None, grad_final_state: Tensor | None, *arguments: Tensor | bool | None
) -> list[Tensor]:
    """Gradients of the nine tensors; an empty tensor stands for that of an absent one."""
    *tensors, cu_seqlens, checkpoints, delta_softplus, reverse = arguments
    inputs = ScanInputs(*tensors, delta_softplus, reverse)
    gradients = new_gradients(tensors)
    if not inputs.u.numel():
        return [gradient.zero_() for gradient in gradients]
    wanted = {
        f"grad_{name}": gradient
        for name, gradient, tensor in zip(ScanInputs._fields, gradients, tensors, strict=False)
        if tensor is not None
    }
    problem = scan_problem(
        **_as_read(inputs),
        cu_seqlens=seams(cu_seqlens),
        checkpoints=checkpoints,
        grad_y=torch.zeros_like(inputs.u) if grad_y is None else rows_in_place(grad_y),
        grad_final_state=dense(grad_final_state),
        **wanted,
    )
    run("scan_backward", [problem])
    return gradients


def _as_read(inputs: ScanInputs) -> dict[str, Tensor | bool | None]:
    """The inputs as the kernel reads them; what is copied for that lives as long as the dict."""
    prepare = dict.fromkeys(("u", "delta", "B", "C", "z"), rows_in_place)
    prepare |= dict.fromkeys(("A", "D", "delta_bias", "initial_state"), dense)
    return inputs._asdict() | {name: by(getattr(inputs, name)) for name, by in prepare.items()}


register_gradient("selective_scan", _scan_backward, "cpu")
