"""The selective scan on a GPU: the Triton kernels as operations of torch, with how their work is cut.

Symbols: B batch, L tokens, D inner channels, N state size, S sequences (the batch, or those packed
into one row). The kernels: ``selective_scan_triton_forward`` and ``_backward``.
"""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.ops.precision import state_dtype
from stretchysnake.ops.selective_scan import triton_tiles
from stretchysnake.ops.selective_scan.gradient import new_gradients, register_gradient
from stretchysnake.ops.selective_scan.inputs import SCHEMA, ScanInputs
from stretchysnake.ops.triton import runtime as triton_runtime


def selective_scan_triton(
    inputs: ScanInputs, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return ``(y, final_state)``; shapes and dtype rule as in ``selective_scan_reference``.

    Inputs are read where they lie, with any strides and each in its own dtype. cu_seqlens (S + 1,) stays on
    the device: its values are not checked, ends outside the row are cut to it. Torch sees one
    operation, ``torch.ops.stretchysnake.selective_scan_triton``. A run repeats to the bit.
    """
    keep_states = torch.is_grad_enabled() and inputs.needs_gradient()
    y, final_state, _ = _scan(
        *inputs.tensors, cu_seqlens, inputs.delta_softplus, inputs.reverse, keep_states
    )
    return y, final_state


def _placed(tensor: Tensor | None, dimensions: int = 3) -> tuple:
    """A tensor and its strides, as a kernel takes them."""
    return (None, *[0] * dimensions) if tensor is None else (tensor, *tensor.stride())


def _new_outputs(tensors: tuple, cu_seqlens: Tensor | None, keep_states: bool) -> list[Tensor]:
    u, A = tensors[0], tensors[2]
    dtype = state_dtype(*tensors)
    num_batch, length, channels = u.shape
    num_state = A.shape[1]
    sequences = num_batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    num_checkpoints = (
        triton_tiles.num_checkpoints(num_batch, length, num_state, cu_seqlens) if keep_states else 0
    )
    return [
        u.new_empty(num_batch, length, channels),
        u.new_empty(sequences, channels, num_state, dtype=dtype),
        u.new_empty(num_checkpoints, num_state, channels, dtype=dtype),
    ]


class _Work(NamedTuple):
    """How a launch is cut, and the arguments that all its kernels share."""

    segments: int
    blocks: int
    states: Tensor | None
    """Room for what enters each segment (sequences, segments, N, D); None where there is one segment."""
    steps: Tensor | None
    """Room for the sum of each segment's steps (sequences, segments, D)."""
    sizes: tuple
    block: dict
    """Constants of a kernel that does no tiles of tokens."""
    options: dict


def _work(
    inputs: ScanInputs, cu_seqlens: Tensor | None, sequences: int, programs: int, tiles: triton_tiles.Tiles,
    dtype: torch.dtype, warps_each: int,
) -> _Work:  # fmt: skip
    """programs: of a launch that is not cut into segments."""
    from stretchysnake.ops.selective_scan.triton_forward import state_type

    length, channels = inputs.u.shape[1:]
    num_state = inputs.A.shape[1]
    multiple = math.lcm(tiles.tokens, triton_tiles.checkpoint_tokens(num_state))
    processors = triton_runtime.num_processors(inputs.u.device)
    count, tokens = triton_tiles.cut_segments(
        length, multiple, programs, tiles.num_warps, processors, warps_each
    )
    assert count == 1 or tokens % multiple == 0, "a segment begins with a tile and a checkpoint"
    states = steps = None
    if count > 1:
        states = inputs.u.new_empty(sequences, count, num_state, channels, dtype=dtype)
        steps = inputs.u.new_empty(sequences, count, channels, dtype=dtype)
    block = {"BLOCK_N": triton_tiles.power_of_two(num_state), "BLOCK_D": tiles.channels}
    block |= {"TYPE": state_type(dtype), "num_warps": tiles.num_warps}
    reading = {"SOFTPLUS": inputs.delta_softplus, "REVERSE": inputs.reverse, "TOKENS": tiles.tokens}
    return _Work(
        segments=count,
        blocks=-(-channels // tiles.channels),
        states=states,
        steps=steps,
        sizes=(cu_seqlens, length, channels, num_state, count, tokens),
        block=block,
        options=block | reading,
    )


def _carry(work: _Work, first: Tensor | None, inputs: ScanInputs, backward: bool) -> None:
    """Turn what each segment adds into what enters it, beginning with `first` (S, D, N) or 0."""
    from stretchysnake.ops.selective_scan.triton_forward import carry_states

    channels, num_state = inputs.A.shape
    carry_states[(work.states.shape[0] * work.blocks,)](
        *(work.states, work.steps, *_placed(first), *_placed(inputs.A, 2)),
        *(channels, num_state, work.segments),
        BACKWARD=backward,
        **work.block,
    )


def _dense_vectors(inputs: ScanInputs) -> tuple[Tensor | None, Tensor | None]:
    """D and delta_bias (D,) without gaps: the kernels take no stride of theirs."""
    return tuple(None if t is None else t.contiguous() for t in (inputs.D, inputs.delta_bias))


@partial(
    torch.library.custom_op,
    "stretchysnake::selective_scan_triton",
    mutates_args=(),
    schema=f"({SCHEMA}, Tensor? cu_seqlens, bool delta_softplus, bool reverse, bool keep_states) -> "
    "(Tensor, Tensor, Tensor)",
)
def _scan(*arguments: Tensor | bool | None) -> tuple[Tensor, Tensor, Tensor]:
    from stretchysnake.ops.selective_scan import triton_forward as kernels

    *tensors, cu_seqlens, delta_softplus, reverse, keep_states = arguments
    inputs = ScanInputs(*tensors, delta_softplus, reverse)
    y, final_state, checkpoints = _new_outputs(tensors, cu_seqlens, keep_states)
    if not inputs.u.numel():
        return y, final_state, checkpoints
    sequences, channels, num_state = final_state.shape
    tiles = triton_tiles.forward_tiles(channels, num_state)
    programs = sequences * -(-channels // tiles.channels)
    wanted = triton_tiles.FORWARD_WARPS
    work = _work(inputs, cu_seqlens, sequences, programs, tiles, final_state.dtype, wanted)
    read = [value for name in ("u", "delta", "A", "B") for value in _placed(getattr(inputs, name))]
    D, delta_bias = _dense_vectors(inputs)
    with triton_runtime.on_device(inputs.u):
        if work.segments > 1:
            kernels.segment_states[(programs * work.segments,)](
                *read, delta_bias, work.states, work.steps, *work.sizes, **work.options
            )
            _carry(work, inputs.initial_state, inputs, backward=False)
        kernels.scan_forward[(programs * work.segments,)](
            *(*read, *_placed(inputs.C), D, *_placed(inputs.z), delta_bias),
            *(*_placed(inputs.initial_state), work.states, y, final_state),
            *(checkpoints if keep_states else None, *work.sizes),
            CHECKPOINT_TOKENS=triton_tiles.checkpoint_tokens(num_state),
            **work.options,
        )
    return y, final_state, checkpoints


@_scan.register_fake
def _(*arguments):
    *tensors, cu_seqlens, _, _, keep_states = arguments
    return tuple(_new_outputs(tensors, cu_seqlens, keep_states))


@partial(
    torch.library.custom_op,
    "stretchysnake::selective_scan_triton_backward",
    mutates_args=(),
    schema=f"(Tensor? grad_y, Tensor? grad_final_state, {SCHEMA}, Tensor? cu_seqlens, Tensor checkpoints, "
    "bool delta_softplus, bool reverse) -> Tensor[]",
)
def _scan_backward(
    grad_y: Tensor | None, grad_final_state: Tensor | None, *arguments: Tensor | bool | None
) -> list[Tensor]:
    """Gradients of the nine tensors; an empty tensor stands for that of an absent one."""
    from stretchysnake.ops.selective_scan import triton_backward as kernels

    *tensors, cu_seqlens, checkpoints, delta_softplus, reverse = arguments
    inputs = ScanInputs(*tensors, delta_softplus, reverse)
    gradients = new_gradients(tensors)
    if not inputs.u.numel():
        return [g.zero_() for g in gradients]
    num_batch, length, channels = inputs.u.shape
    num_state = inputs.A.shape[1]
    sequences = num_batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    dtype = checkpoints.dtype
    tiles = triton_tiles.backward_tiles(channels, num_state)
    groups = triton_tiles.num_groups(
        -(-channels // tiles.channels), num_batch * length * num_state, dtype
    )
    programs, wanted = sequences * groups, triton_tiles.BACKWARD_WARPS
    work = _work(inputs, cu_seqlens, sequences, programs, tiles, dtype, wanted)
    rows = sequences * work.segments

    def part(*shape: int) -> Tensor:
        return inputs.u.new_empty(shape, dtype=dtype)

    dB, dC = (part(groups, num_batch, length, num_state) for _ in range(2))
    span = triton_tiles.checkpoint_tokens(num_state)
    scratch = part(rows * groups, span // tiles.tokens - 1, work.block["BLOCK_N"], tiles.channels)
    dA = part(rows, num_state, channels)
    dD, dbias = (None if t is None else part(rows, channels) for t in (inputs.D, inputs.delta_bias))
    du, ddelta, *_, dz, _, d_initial = gradients
    if grad_y is None:
        grad_y = inputs.u.new_zeros(()).expand(inputs.u.shape)
    D, delta_bias = _dense_vectors(inputs)
    placed = {name: _placed(getattr(inputs, name)) for name in ("u", "delta", "A", "B", "C", "z")}
    with triton_runtime.on_device(inputs.u):
        if work.segments > 1:
            kernels.segment_adjoints[(rows * work.blocks,)](
                *(*_placed(grad_y), *placed["delta"], *placed["A"], *placed["C"], *placed["z"]),
                *(delta_bias, work.states, work.steps, *work.sizes),
                **work.options,
            )
            _carry(work, grad_final_state, inputs, backward=True)
        kernels.scan_backward[(rows * groups,)](
            *(*_placed(grad_y), *_placed(grad_final_state), *placed["u"], *placed["delta"]),
            *(*placed["A"], *placed["B"], *placed["C"], D, *placed["z"], delta_bias),
            *(checkpoints, work.states, scratch, du, ddelta, dA, dB, dC, dD),
            *(None if inputs.z is None else dz, dbias),
            *(None if inputs.initial_state is None else d_initial, *work.sizes, groups),
            CHECKPOINT_TOKENS=span,
            LANES=min(triton_tiles.BACKWARD_LANES, tiles.channels),
            **work.options,
        )
    summed = (None, None, dA.sum(0).T, dB.sum(0), dC.sum(0), dD, None, dbias, None)
    for gradient, parts in zip(gradients, summed, strict=True):
        if parts is not None:
            gradient.copy_(parts.sum(0) if parts is dD or parts is dbias else parts)
    return gradients


register_gradient("selective_scan_triton", _scan_backward, "triton")
