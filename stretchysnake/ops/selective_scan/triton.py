"""The selective scan on a GPU: the Triton kernels as operations of torch, with their plan of work.

Symbols: B batch, L tokens, D inner channels, N state size, S sequences (the batch, or those packed
into one row). The kernels: ``selective_scan_triton_forward`` and ``_backward``.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from stretchysnake.ops.flops import selective_scan_backward_flops, selective_scan_flops
from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.selective_scan import triton_tiles as plan
from stretchysnake.ops.triton import runtime as triton_runtime


def selective_scan_triton(
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
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``(y, final_state)``; shapes and dtype rule as in ``selective_scan_reference``.

    Inputs are read where they lie, with any strides and each in its own dtype. cu_seqlens stays on
    the device: its values are not checked, ends outside the row are cut to it. Torch sees one
    operation, ``torch.ops.stretchysnake.selective_scan_triton``. A run repeats to the bit.
    """
    triton_runtime.check_device("u", u)
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    keep_states = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in tensors
    )
    y, final_state, _ = _scan(*tensors, cu_seqlens, delta_softplus, reverse, keep_states)
    return y, final_state


def _state_dtype(*tensors: Tensor | None) -> torch.dtype:
    given = {t.dtype for t in tensors if t is not None}
    return torch.float64 if torch.float64 in given else torch.float32


def _placed(tensor: Tensor | None, dimensions: int = 3) -> tuple:
    """A tensor and its strides, as a kernel takes them."""
    return (None, *[0] * dimensions) if tensor is None else (tensor, *tensor.stride())


def _new_outputs(tensors: tuple, cu_seqlens: Tensor | None, keep_states: bool) -> list[Tensor]:
    u, A = tensors[0], tensors[2]
    dtype = _state_dtype(*tensors)
    num_batch, length, channels = u.shape
    num_state = A.shape[1]
    sequences = num_batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    kept = plan.num_checkpoints(num_batch, length, num_state, cu_seqlens) if keep_states else 0
    return [
        u.new_empty(num_batch, length, channels),
        u.new_empty(sequences, channels, num_state, dtype=dtype),
        u.new_empty(kept, num_state, channels, dtype=dtype),
    ]


class _Segments(NamedTuple):
    """The cut of the tokens, and room for what enters each segment and its sum of steps."""

    count: int
    tokens: int
    states: Tensor | None
    steps: Tensor | None


def _segments(u: Tensor, num_state: int, sequences: int, blocks: int, tiles: plan.Tiles, dtype):
    length, channels = u.shape[1:]
    multiple = math.lcm(tiles.tokens, plan.checkpoint_tokens(num_state))
    processors = triton_runtime.num_processors(u.device)
    count, tokens = plan.plan_segments(
        length, multiple, sequences * blocks, tiles.num_warps, processors
    )
    assert count == 1 or tokens % multiple == 0, "a segment begins with a tile and a checkpoint"
    if count == 1:
        return _Segments(1, tokens, None, None)
    states = u.new_empty(sequences, count, num_state, channels, dtype=dtype)
    return _Segments(count, tokens, states, u.new_empty(sequences, count, channels, dtype=dtype))


@torch.library.custom_op("stretchysnake::selective_scan_triton", mutates_args=())
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
    cu_seqlens: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    from stretchysnake.ops.selective_scan import triton_forward as kernels

    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    y, final_state, checkpoints = _new_outputs(tensors, cu_seqlens, keep_states)
    if not u.numel():
        return y, final_state, checkpoints
    length, channels = u.shape[1:]
    sequences, _, num_state = final_state.shape
    tiles = plan.forward_tiles(channels, num_state)
    blocks = -(-channels // tiles.channels)
    cut = _segments(u, num_state, sequences, blocks, tiles, final_state.dtype)
    sizes = (cu_seqlens, length, channels, num_state, cut.count, cut.tokens)
    block = {"BLOCK_N": plan.power_of_two(num_state), "BLOCK_D": tiles.channels}
    block |= {"TYPE": kernels.state_type(final_state.dtype), "num_warps": tiles.num_warps}
    options = block | {"SOFTPLUS": delta_softplus, "REVERSE": reverse, "TOKENS": tiles.tokens}
    read = (*_placed(u), *_placed(delta), *_placed(A), *_placed(B))
    D, delta_bias = (None if t is None else t.contiguous() for t in (D, delta_bias))
    with triton_runtime.on_device(u):
        if cut.count > 1:
            kernels.segment_states[(sequences * cut.count * blocks,)](
                *read, delta_bias, cut.states, cut.steps, *sizes, **options
            )
            kernels.carry_states[(sequences * blocks,)](
                *(cut.states, cut.steps, *_placed(initial_state), *_placed(A)),
                *(channels, num_state, cut.count),
                BACKWARD=False,
                **block,
            )
        kernels.scan_forward[(sequences * cut.count * blocks,)](
            *(*read, *_placed(C), D, *_placed(z), delta_bias, *_placed(initial_state)),
            *(cut.states, y, final_state, checkpoints if keep_states else None, *sizes),
            CHECKPOINT_TOKENS=plan.checkpoint_tokens(num_state),
            **options,
        )
    return y, final_state, checkpoints


@_scan.register_fake
def _(*inputs):
    *tensors, cu_seqlens, _, _, keep_states = inputs
    return tuple(_new_outputs(tensors, cu_seqlens, keep_states))


@torch.library.custom_op("stretchysnake::selective_scan_triton_backward", mutates_args=())
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
    cu_seqlens: Tensor | None,
    checkpoints: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """Gradients of the nine inputs; an empty tensor stands for that of an absent one."""
    from stretchysnake.ops.selective_scan import triton_backward as kernels
    from stretchysnake.ops.selective_scan.triton_forward import carry_states, state_type

    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    gradients = _new_gradients(*inputs)
    if not u.numel():
        return [g.zero_() for g in gradients]
    num_batch, length, channels = u.shape
    num_state = A.shape[1]
    sequences = num_batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    dtype = checkpoints.dtype
    tiles = plan.backward_tiles(channels, num_state)
    blocks = -(-channels // tiles.channels)
    part_bytes = 2 * num_batch * length * num_state * dtype.itemsize
    groups = max(1, min(blocks, plan.PARTS_BYTES // part_bytes))
    groups = -(-blocks // -(-blocks // groups))  # no group with one block less to do than it could
    cut = _segments(u, num_state, sequences, groups, tiles, dtype)
    sizes = (cu_seqlens, length, channels, num_state, cut.count, cut.tokens)
    block = {"BLOCK_N": plan.power_of_two(num_state), "BLOCK_D": tiles.channels}
    block |= {"TYPE": state_type(dtype), "num_warps": tiles.num_warps}
    options = block | {"SOFTPLUS": delta_softplus, "REVERSE": reverse, "TOKENS": tiles.tokens}

    def part(*shape: int) -> Tensor:
        return u.new_empty(shape, dtype=dtype)

    dB, dC = (part(groups, num_batch, length, num_state) for _ in range(2))
    dA = part(sequences * cut.count, num_state, channels)
    dD = None if D is None else part(sequences * cut.count, channels)
    dbias = None if delta_bias is None else part(sequences * cut.count, channels)
    du, ddelta, *_, dz, _, d_initial = gradients
    if grad_y is None:
        grad_y = u.new_zeros(()).expand(u.shape)
    D, delta_bias = (None if t is None else t.contiguous() for t in (D, delta_bias))
    with triton_runtime.on_device(u):
        if cut.count > 1:
            kernels.segment_adjoints[(sequences * cut.count * blocks,)](
                *(*_placed(grad_y), *_placed(delta), *_placed(A, 2), *_placed(C), *_placed(z)),
                *(delta_bias, cut.states, cut.steps, *sizes),
                **options,
            )
            carry_states[(sequences * blocks,)](
                *(cut.states, cut.steps, *_placed(grad_final_state), *_placed(A, 2)),
                *(channels, num_state, cut.count),
                BACKWARD=True,
                **block,
            )
        kernels.scan_backward[(sequences * cut.count * groups,)](
            *(*_placed(grad_y), *_placed(grad_final_state), *_placed(u), *_placed(delta)),
            *(*_placed(A), *_placed(B), *_placed(C), D, *_placed(z), delta_bias),
            *(checkpoints, cut.states, du, ddelta, dA, dB, dC, dD, None if z is None else dz),
            *(dbias, None if initial_state is None else d_initial, *sizes, groups),
            CHECKPOINT_TOKENS=plan.checkpoint_tokens(num_state),
            **options,
        )
    summed = (None, None, dA.sum(0).T, dB.sum(0), dC.sum(0), dD, None, dbias, None)
    for gradient, parts in zip(gradients, summed, strict=True):
        if parts is not None:
            gradient.copy_(parts.sum(0) if parts is dD or parts is dbias else parts)
    return gradients


def _new_gradients(*tensors: Tensor | None) -> list[Tensor]:
    u = tensors[0]
    return [u.new_empty(0) if t is None else t.new_empty(t.shape) for t in tensors]


@_scan_backward.register_fake
def _(grad_y, grad_final_state, *rest):
    return _new_gradients(*rest[:9])


def _setup_context(ctx, inputs, output):
    *tensors, ctx.delta_softplus, ctx.reverse, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_y, grad_final_state, _):
    native_library.refuse_double_backward("selective_scan", "triton")
    *tensors, cu_seqlens, checkpoints = ctx.saved_tensors
    found = _scan_backward(
        *(grad_y, grad_final_state, *tensors, cu_seqlens, checkpoints),
        *(ctx.delta_softplus, ctx.reverse),
    )
    gradients = (g if t is not None else None for g, t in zip(found, tensors, strict=True))
    return (*gradients, None, None, None, None)


_scan.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.stretchysnake.selective_scan_triton)
def _(u_shape, delta_shape, A_shape, *_, **__) -> int:
    return selective_scan_flops(*u_shape, A_shape[1])


@register_flop_formula(torch.ops.stretchysnake.selective_scan_triton_backward)
def _(grad_y_shape, grad_final_shape, u_shape, delta_shape, A_shape, *_, **__) -> int:
    return selective_scan_backward_flops(*u_shape, A_shape[1])
