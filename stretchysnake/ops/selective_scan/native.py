"""The selective scan on the native CPU kernels of ``native/``, forward and backward, via ctypes.

Symbols: B batch, L tokens, D inner channels, N state size.

Results are bitwise equal from call to call for a given thread count; sums over channels and batch
(gradients of A, B, C, D, delta_bias) are divided among threads in a fixed way and added in thread
order, so another thread count changes them by rounding only.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from stretchysnake.ops.flops import selective_scan_backward_flops, selective_scan_flops
from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.native.library import is_available, unavailable_reason
from stretchysnake.ops.native.problems import (
    dense,
    new_checkpoints,
    rows_in_place,
    run,
    scan_problem,
)
from stretchysnake.ops.operation import operation

__all__ = ["is_available", "selective_scan_cpu", "unavailable_reason"]


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


def _new_outputs(u: Tensor, A: Tensor, keep_states: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state, and room for the states the backward starts from."""
    num_batch, _, channels = u.shape
    num_state = A.shape[1]
    return (
        u.new_empty(u.shape),
        u.new_empty(num_batch, channels, num_state),
        new_checkpoints(u, num_state, keep_states),
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
    problem = scan_problem(
        **_given(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, reverse),
        y=y,
        final_state=final_state,
        checkpoints=checkpoints if keep_states else None,
    )
    run("scan_forward", [problem])
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
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    gradients = _new_gradients(*inputs)
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
    wanted = {
        f"grad_{name}": gradient
        for name, gradient, given in zip(names, gradients, inputs, strict=True)
        if given is not None
    }
    problem = scan_problem(
        **_given(*inputs, delta_softplus, reverse),
        checkpoints=checkpoints,
        grad_y=u.new_zeros(u.shape) if grad_y is None else rows_in_place(grad_y),
        grad_final_state=dense(grad_final_state),
        **wanted,
    )
    if u.numel():
        run("scan_backward", [problem])
    else:
        for gradient in gradients:
            gradient.zero_()
    return gradients


def _given(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, reverse) -> dict:
    """The arguments by name, as the kernel reads them; what is copied for that lives as long as the dict."""
    rows = {"u": u, "delta": delta, "B": B, "C": C, "z": z}
    rest = {"A": A, "D": D, "delta_bias": delta_bias, "initial_state": initial_state}
    return {
        **{name: rows_in_place(tensor) for name, tensor in rows.items()},
        **{name: dense(tensor) for name, tensor in rest.items()},
        "delta_softplus": delta_softplus,
        "reverse": reverse,
    }


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
