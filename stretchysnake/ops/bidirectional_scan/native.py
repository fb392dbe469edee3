"""Both directions of the mixer on the native CPU kernels, forward and backward.

Symbols: B batch, L tokens, Di inner channels, N state size, R rank of delta, S sequences packed into
one row. A list of parameters holds the seven of a ``Direction``, in its order.
"""

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


def bidirectional_scan_cpu(
    xz: Tensor, forward: Direction, backward: Direction, cu_seqlens: Tensor | None = None
) -> Tensor:
    """``bidirectional_scan`` of a dense fp32 or fp64 xz (B, L, 2·Di): (B, L, Di).

    With cu_seqlens (S + 1,) all sequences of the row are done in one call. Rounding differs from the single
    operations'.
    """
    given = (xz, *forward, *backward)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    return _both(xz, list(forward), list(backward), cu_seqlens, keep)[0]


@operation("bidirectional_scan")
def _both(
    xz: Tensor,
    forward: list[Tensor],
    backward: list[Tensor],
    cu_seqlens: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, and of both directions u, [dt, B, C] and the states the backward starts from, empty if not kept.

    u and [dt, B, C] are returned even so: what counts memory then sees them.
    """
    xz, ends = xz.contiguous(), seams(cu_seqlens)
    x, _ = xz.chunk(2, dim=-1)
    directions = [_dense(forward), _dense(backward)]
    us, outputs = x.new_empty(2, *x.shape), directions[0].x_proj.shape[0]
    projected = x.new_empty(2, *x.shape[:2], outputs)
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
def _(xz, forward, backward, cu_seqlens, keep):
    num_batch, length, width = xz.shape
    us = xz.new_empty(2, num_batch, length, width // 2)
    projected = xz.new_empty(2, num_batch, length, forward[2].shape[0])
    states = _new_states(us, forward[5].shape[1], keep, cu_seqlens)
    return torch.empty_like(us[0]), us, projected, states


@operation("bidirectional_scan_backward")
def _both_backward(
    grad_y: Tensor,
    xz: Tensor,
    forward: list[Tensor],
    backward: list[Tensor],
    cu_seqlens: Tensor | None,
    us: Tensor,
    projected: Tensor,
    states: Tensor,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Gradients of xz and of both directions' parameters."""
    xz, grad_y, ends = xz.contiguous(), grad_y.contiguous(), seams(cu_seqlens)
    directions = [_dense(forward), _dense(backward)]
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
    return grad_xz, list(grads[0]), list(grads[1])


@torch.library.register_fake("stretchysnake::bidirectional_scan_backward")
def _(grad_y, xz, forward, backward, cu_seqlens, us, projected, states):
    empty = [[torch.empty_like(tensor) for tensor in shapes] for shapes in (forward, backward)]
    return torch.empty_like(xz), *empty


def _dense(direction: list[Tensor]) -> Direction:
    return Direction(*(tensor.contiguous() for tensor in direction))


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
    xz, forward, backward, cu_seqlens, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(xz, *forward, *backward, cu_seqlens, *output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_y, *_):
    native_library.refuse_double_backward("bidirectional_scan")
    xz, *rest = ctx.saved_tensors
    if grad_y is None:
        return None, None, None, None, None
    return *_both_backward(grad_y, xz, rest[:7], rest[7:14], *rest[14:]), None, None


torch.library.register_autograd(
    "stretchysnake::bidirectional_scan", _backward, setup_context=_setup_context
)


def _scan_arguments(xz_shape, shapes) -> tuple[int, int, int, int]:
    num_batch, length, width = xz_shape
    return num_batch, length, width // 2, shapes[5][1]


def _product_flops(xz_shape, shapes) -> int:
    num_batch, length, width = xz_shape
    (projected, _), (_, rank) = shapes[2], shapes[3]
    return 2 * num_batch * length * (width // 2) * (projected + rank)


@register_flop_formula(torch.ops.stretchysnake.bidirectional_scan)
def _(xz_shape, forward_shapes, backward_shapes, *_, **__) -> int:
    return sum(
        _product_flops(xz_shape, shapes)
        + causal_conv_flops(*_scan_arguments(xz_shape, shapes)[:3], shapes[0][1])
        + selective_scan_flops(*_scan_arguments(xz_shape, shapes))
        for shapes in (forward_shapes, backward_shapes)
    )


@register_flop_formula(torch.ops.stretchysnake.bidirectional_scan_backward)
def _(grad_y_shape, xz_shape, forward_shapes, backward_shapes, *_, **__) -> int:
    return sum(
        2 * _product_flops(xz_shape, shapes)  # into the input and into the weight
        + 3 * causal_conv_flops(*_scan_arguments(xz_shape, shapes)[:3], shapes[0][1])
        + selective_scan_backward_flops(*_scan_arguments(xz_shape, shapes))
        for shapes in (forward_shapes, backward_shapes)
    )
