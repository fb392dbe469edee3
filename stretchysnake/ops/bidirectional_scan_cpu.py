"""Both directions of the mixer on the native CPU kernels, forward and backward.

Symbols: B batch, L tokens, Di inner channels, N state size, R rank of delta. A list of parameters
holds the seven of a ``Direction``, in its order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from stretchysnake.ops import native_library
from stretchysnake.ops.bidirectional_scan import Direction
from stretchysnake.ops.causal_conv import causal_conv_flops
from stretchysnake.ops.native_problems import conv_problem, new_checkpoints, run, scan_problem
from stretchysnake.ops.selective_scan import selective_scan_backward_flops, selective_scan_flops


def bidirectional_scan_cpu(xz: Tensor, forward: Direction, backward: Direction) -> Tensor:
    """``bidirectional_scan`` of dense fp32 or fp64 tensors; rounding differs from the single operations'."""
    given = (xz, *forward, *backward)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    return _both(xz, list(forward), list(backward), keep)[0]


@torch.library.custom_op("stretchysnake::bidirectional_scan", mutates_args=(), device_types="cpu")
def _both(
    xz: Tensor, forward: list[Tensor], backward: list[Tensor], keep: bool
) -> tuple[Tensor, list[Tensor]]:
    """y, and of both directions u, [dt, B, C] and the states the backward starts from, empty if not kept.

    u and [dt, B, C] are returned even so: what counts memory then sees them.
    """
    xz = xz.contiguous()
    x, _ = xz.chunk(2, dim=-1)
    directions = [_dense(forward), _dense(backward)]
    us = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in directions]
    run("conv_forward", [_conv(x, own, i, y=us[i]) for i, own in enumerate(directions)])
    projected = [F.linear(u, own.x_proj) for u, own in zip(us, directions, strict=True)]
    y = torch.empty_like(us[0])
    states = [
        new_checkpoints(u, own.A_log.shape[1], keep) for u, own in zip(us, directions, strict=True)
    ]
    scans = [
        _scan(xz, us[i], projected[i], own, i, y=y, checkpoints=states[i] if keep else None)
        for i, own in enumerate(directions)
    ]
    scans[0].z = 0  # the gate meets the sum, in the second scan
    run("scan_forward", scans)
    return y, [*us, *projected, *states]


@_both.register_fake
def _(xz, forward, backward, keep):
    num_batch, length, width = xz.shape
    u = xz.new_empty(num_batch, length, width // 2)
    kept = [torch.empty_like(u) for _ in range(2)]
    kept += [xz.new_empty(num_batch, length, own[2].shape[0]) for own in (forward, backward)]
    kept += [new_checkpoints(u, own[5].shape[1], keep) for own in (forward, backward)]
    return u, kept


@torch.library.custom_op(
    "stretchysnake::bidirectional_scan_backward", mutates_args=(), device_types="cpu"
)
def _both_backward(
    grad_y: Tensor,
    xz: Tensor,
    forward: list[Tensor],
    backward: list[Tensor],
    kept: list[Tensor],
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Gradients of xz and of both directions' parameters."""
    xz, grad_y = xz.contiguous(), grad_y.contiguous()
    directions = [_dense(forward), _dense(backward)]
    us, projected, states = kept[:2], kept[2:4], kept[4:]
    grad_xz = torch.empty_like(xz)
    grad_x, grad_z = grad_xz.chunk(2, dim=-1)
    x, _ = xz.chunk(2, dim=-1)
    grads = [Direction(*(torch.empty_like(tensor) for tensor in own)) for own in directions]
    grad_us = [torch.empty_like(u) for u in us]
    grad_deltas = [torch.empty_like(u) for u in us]
    grad_BCs = [
        [xz.new_empty(*xz.shape[:2], own.A_log.shape[1]) for _ in "BC"] for own in directions
    ]
    run(
        "scan_backward",
        [
            _scan(
                xz,
                us[i],
                projected[i],
                own,
                i,
                checkpoints=states[i],
                grad_y=grad_y,
                grad_u=grad_us[i],
                grad_delta=grad_deltas[i],
                grad_A=grads[i].A_log,
                grad_B=grad_BCs[i][0],
                grad_C=grad_BCs[i][1],
                grad_D=grads[i].D,
                grad_z=grad_z,
                grad_delta_bias=grads[i].dt_bias,
            )
            for i, own in enumerate(directions)
        ],
    )
    for i, own in enumerate(directions):
        rank = own.dt_proj.shape[1]
        grad_delta = grad_deltas[i].flatten(0, 1)
        dt = projected[i][..., :rank].flatten(0, 1)
        torch.mm(grad_delta.T, dt, out=grads[i].dt_proj)
        grad_dt = torch.mm(grad_delta, own.dt_proj).unflatten(0, xz.shape[:2])
        grad_projected = torch.cat([grad_dt, *grad_BCs[i]], dim=-1).flatten(0, 1)
        torch.mm(grad_projected.T, us[i].flatten(0, 1), out=grads[i].x_proj)
        grad_us[i].view(-1, x.shape[-1]).addmm_(grad_projected, own.x_proj)
    run(
        "conv_backward",
        [
            _conv(
                x,
                own,
                i,
                grad_y=grad_us[i],
                grad_x=grad_x,
                grad_weight=grads[i].conv_weight,
                grad_bias=grads[i].conv_bias,
            )
            for i, own in enumerate(directions)
        ],
    )
    return grad_xz, list(grads[0]), list(grads[1])


@_both_backward.register_fake
def _(grad_y, xz, forward, backward, kept):
    empty = [[torch.empty_like(tensor) for tensor in own] for own in (forward, backward)]
    return torch.empty_like(xz), *empty


def _dense(own: list[Tensor]) -> Direction:
    return Direction(*(tensor.contiguous() for tensor in own))


def _conv(x: Tensor, own: Direction, reverse: int, **outputs: Tensor):
    """The convolution of one direction; the second adds to what the first leaves in grad_x."""
    weights = {"weight": own.conv_weight, "bias": own.conv_bias}
    return conv_problem(x, **weights, reverse=reverse, adds=reverse, **outputs)


def _scan(
    xz: Tensor, u: Tensor, projected: Tensor, own: Direction, reverse: int, **more: Tensor | None
):
    """The scan of one direction; the second adds to what the first leaves in y and grad_z."""
    rank, num_state = own.dt_proj.shape[1], own.A_log.shape[1]
    dt, B, C = projected.split((rank, num_state, num_state), dim=-1)
    return scan_problem(
        u=u,
        A=own.A_log,
        A_is_log=1,
        rank=rank,
        delta_softplus=1,
        reverse=reverse,
        adds=reverse,
        dt=dt,
        B=B,
        C=C,
        z=xz.chunk(2, dim=-1)[1],
        D=own.D,
        delta_bias=own.dt_bias,
        dt_weight=own.dt_proj,
        **more,
    )


def _setup_context(ctx, inputs, output):
    xz, forward, backward, _ = inputs
    ctx.mark_non_differentiable(*output[1])
    ctx.save_for_backward(xz, *forward, *backward, *output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_y, _):
    native_library.refuse_double_backward("bidirectional_scan")
    xz, *rest = ctx.saved_tensors
    if grad_y is None:
        return None, None, None, None
    return *_both_backward(grad_y, xz, rest[:7], rest[7:14], rest[14:]), None


_both.register_autograd(_backward, setup_context=_setup_context)


def _scan_arguments(xz_shape, own) -> tuple[int, int, int, int]:
    num_batch, length, width = xz_shape
    return num_batch, length, width // 2, own[5][1]


def _product_flops(xz_shape, own) -> int:
    num_batch, length, width = xz_shape
    (projected, _), (_, rank) = own[2], own[3]
    return 2 * num_batch * length * (width // 2) * (projected + rank)


@register_flop_formula(torch.ops.stretchysnake.bidirectional_scan)
def _(xz_shape, forward_shapes, backward_shapes, *_, **__) -> int:
    return sum(
        _product_flops(xz_shape, own)
        + causal_conv_flops(*_scan_arguments(xz_shape, own)[:3], own[0][1])
        + selective_scan_flops(*_scan_arguments(xz_shape, own))
        for own in (forward_shapes, backward_shapes)
    )


@register_flop_formula(torch.ops.stretchysnake.bidirectional_scan_backward)
def _(grad_y_shape, xz_shape, forward_shapes, backward_shapes, *_, **__) -> int:
    return sum(
        2 * _product_flops(xz_shape, own)  # into the input and into the weight
        + 3 * causal_conv_flops(*_scan_arguments(xz_shape, own)[:3], own[0][1])
        + selective_scan_backward_flops(*_scan_arguments(xz_shape, own))
        for own in (forward_shapes, backward_shapes)
    )
