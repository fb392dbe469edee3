"""Both directions of the mixer on the native CPU kernels, forward and backward.

Symbols: B batch, L tokens, Di inner channels, N state size, R rank of delta, S sequences packed into
one row. Parameters are the seven of the forward ``Direction``, in its order, then those of the backward one: as
tensors, since torch takes a list apart and together again at each of four places.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from stretchysnake.ops.bidirectional_scan.direction import Direction
from stretchysnake.ops.flops import (
    causal_conv_flops,
    selective_scan_backward_flops,
    selective_scan_flops,
)
from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.native.problems import (
    conv_problem,
    new_checkpoints,
    run,
    scan_problem,
    seams,
)
from stretchysnake.ops.operation import operation
from stretchysnake.ops.precision import state_dtype


def bidirectional_scan_cpu(
    xz: Tensor, forward: Direction, backward: Direction, cu_seqlens: Tensor | None = None
) -> Tensor:
    """``bidirectional_scan`` of a dense fp32 or fp64 xz (B, L, 2·Di): (B, L, Di).

    A bf16 xz takes parameters of fp32 or bf16 and has no backward: u and y are bf16 too, [dt, B, C], the products
    between them, state and sums fp32. With cu_seqlens (S + 1,) all sequences of the row are done in one call. Rounding
    differs from the single operations'.
    """
    given = (xz, *forward, *backward)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    return _both(*given, cu_seqlens, keep)[0]


_PARAMETERS = ", ".join(
    f"Tensor {way}_{name}" for way in ("forward", "backward") for name in Direction._fields
)
_NUM_PARAMETERS = 2 * len(Direction._fields)


@operation(
    "bidirectional_scan",
    f"(Tensor xz, {_PARAMETERS}, Tensor? cu_seqlens, bool keep) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _both(xz: Tensor, *arguments: Tensor | bool | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, and of both directions u, [dt, B, C] and the states the backward starts from, empty if not kept.

    u and [dt, B, C] are returned even so: what counts memory then sees them.
    """
    *parameters, cu_seqlens, keep = arguments
    xz, ends = xz.contiguous(), seams(cu_seqlens)
    x, _ = xz.chunk(2, dim=-1)
    dtype = state_dtype(xz)
    directions = _directions(parameters, dtype)
    us, outputs = x.new_empty(2, *x.shape), directions[0].x_proj.shape[0]
    projected = x.new_empty(2, *x.shape[:2], outputs, dtype=dtype)
    convolutions = [
        _conv(
            x,
            direction,
            i,
            cu_seqlens=ends,
            y=us[i],
            projection=direction.x_proj,
            projected=projected[i],
            outputs=outputs,
        )
        for i, direction in enumerate(directions)
    ]
    run("conv_forward", convolutions)
    num_state = directions[0].A_log.shape[1]
    y, states = torch.empty_like(us[0]), _new_states(us, num_state, keep, cu_seqlens)
    scans = [
        _scan(
            xz,
            us[i],
            projected[i],
            direction,
            i,
            cu_seqlens=ends,
            y=y,
            checkpoints=states[i] if keep else None,
        )
        for i, direction in enumerate(directions)
    ]
    scans[0].z = 0  # the gate meets the sum, in the second scan
    run("scan_forward", scans)
    return y, us, projected, states


def _new_states(us: Tensor, num_state: int, keep: bool, cu_seqlens: Tensor | None) -> Tensor:
    of_one = new_checkpoints(us[0], num_state, keep, cu_seqlens)
    return of_one.new_empty(2, *of_one.shape)


@torch.library.register_fake("stretchysnake::bidirectional_scan")
def _(xz, *arguments):
    *parameters, cu_seqlens, keep = arguments
    forward = Direction(*parameters[: len(Direction._fields)])
    num_batch, length, width = xz.shape
    us = xz.new_empty(2, num_batch, length, width // 2)
    projected = xz.new_empty(2, num_batch, length, forward.x_proj.shape[0], dtype=state_dtype(xz))
    states = _new_states(us, forward.A_log.shape[1], keep, cu_seqlens)
    return torch.empty_like(us[0]), us, projected, states


@operation(
    "bidirectional_scan_backward",
    f"(Tensor grad_y, Tensor xz, {_PARAMETERS}, Tensor? cu_seqlens, Tensor us, Tensor projected, Tensor states) -> "
    "Tensor[]",
)
def _both_backward(grad_y: Tensor, xz: Tensor, *arguments: Tensor | None) -> list[Tensor]:
    """Gradients of xz and of the parameters; after these come cu_seqlens and what the forward returned beside y."""
    *parameters, cu_seqlens, us, projected, states = arguments
    xz, grad_y, ends = xz.contiguous(), grad_y.contiguous(), seams(cu_seqlens)
    directions = _directions(parameters, xz.dtype)
    grad_xz = torch.empty_like(xz)
    grad_x, grad_z = grad_xz.chunk(2, dim=-1)
    x, _ = xz.chunk(2, dim=-1)
    rank, num_state = directions[0].dt_proj.shape[1], directions[0].A_log.shape[1]
    grads = [
        Direction(*(torch.empty_like(tensor) for tensor in direction)) for direction in directions
    ]
    grad_us, grad_projected = torch.empty_like(us), torch.empty_like(projected)
    grad_dt, grad_B, grad_C = grad_projected.split((rank, num_state, num_state), dim=-1)
    scans = [
        _scan(
            xz,
            us[i],
            projected[i],
            direction,
            i,
            cu_seqlens=ends,
            checkpoints=states[i],
            grad_y=grad_y,
            grad_u=grad_us[i],
            grad_A=grads[i].A_log,
            grad_B=grad_B[i],
            grad_C=grad_C[i],
            grad_dt=grad_dt[i],
            grad_D=grads[i].D,
            grad_z=grad_z,
            grad_delta_bias=grads[i].dt_bias,
            grad_dt_weight=grads[i].dt_proj,
        )
        for i, direction in enumerate(directions)
    ]
    run("scan_backward", scans)
    # grad_us is what reaches u by the scan; what reaches it by its projection is added where it is read
    convolutions = [
        _conv(
            x,
            direction,
            i,
            cu_seqlens=ends,
            projection=direction.x_proj,
            projected=grad_projected[i],
            outputs=grad_projected.shape[-1],
            grad_y=grad_us[i],
            grad_x=grad_x,
            grad_weight=grads[i].conv_weight,
            grad_bias=grads[i].conv_bias,
            grad_projection=grads[i].x_proj,
        )
        for i, direction in enumerate(directions)
    ]
    run("conv_backward", convolutions)
    return [grad_xz, *grads[0], *grads[1]]


@torch.library.register_fake("stretchysnake::bidirectional_scan_backward")
def _(grad_y, xz, *arguments):
    return [torch.empty_like(tensor) for tensor in (xz, *arguments[:_NUM_PARAMETERS])]


def _directions(parameters: list[Tensor], dtype: torch.dtype) -> list[Direction]:
    """The parameters of both directions, dense and of that dtype."""
    dense, one = [tensor.to(dtype).contiguous() for tensor in parameters], len(Direction._fields)
    return [Direction(*dense[:one]), Direction(*dense[one:])]


def _conv(x: Tensor, direction: Direction, reverse: int, **more: Tensor | int):
    """The convolution of one direction; the second adds to what the first leaves in grad_x."""
    weights = {"weight": direction.conv_weight, "bias": direction.conv_bias}
    return conv_problem(x, **weights, reverse=reverse, adds=reverse, **more)


def _scan(
    xz: Tensor,
    u: Tensor,
    projected: Tensor,
    direction: Direction,
    reverse: int,
    **more: Tensor | None,
):
    """The scan of one direction; the second adds to what the first leaves in y and grad_z."""
    rank, num_state = direction.dt_proj.shape[1], direction.A_log.shape[1]
    dt, B, C = projected.split((rank, num_state, num_state), dim=-1)
    return scan_problem(
        u=u,
        A=direction.A_log,
        A_is_log=1,
        rank=rank,
        delta_softplus=1,
        reverse=reverse,
        adds=reverse,
        dt=dt,
        B=B,
        C=C,
        z=xz.chunk(2, dim=-1)[1],
        D=direction.D,
        delta_bias=direction.dt_bias,
        dt_weight=direction.dt_proj,
        **more,
    )


def _setup_context(ctx, inputs, output):
    *tensors, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_y, *_):
    native_library.refuse_double_backward("bidirectional_scan")
    if grad_y is None:
        return (None,) * (_NUM_PARAMETERS + 3)
    return *_both_backward(grad_y, *ctx.saved_tensors), None, None


torch.library.register_autograd(
    "stretchysnake::bidirectional_scan", _backward, setup_context=_setup_context
)


def _flops(xz_shape, shapes, products: int, convolutions: int, scan: Callable[..., int]) -> int:
    """Of both directions, whose parameters have these `shapes`: so many times the products and convolutions of a
    forward, and a scan each.
    """
    num_batch, length, width = xz_shape
    size, one, total = (num_batch, length, width // 2), len(Direction._fields), 0
    for direction in (Direction(*shapes[:one]), Direction(*shapes[one : 2 * one])):
        columns = direction.x_proj[0] + direction.dt_proj[1]
        total += products * 2 * num_batch * length * (width // 2) * columns
        total += convolutions * causal_conv_flops(*size, direction.conv_weight[1])
        total += scan(*size, direction.A_log[1])
    return total


@register_flop_formula(torch.ops.stretchysnake.bidirectional_scan)
def _(xz_shape, *shapes, **__) -> int:
    return _flops(xz_shape, shapes, 1, 1, selective_scan_flops)


@register_flop_formula(torch.ops.stretchysnake.bidirectional_scan_backward)
def _(grad_y_shape, xz_shape, *shapes, **__) -> int:
    # a product's gradient goes into its input and into its weight
    return _flops(xz_shape, shapes, 2, 3, selective_scan_backward_flops)
