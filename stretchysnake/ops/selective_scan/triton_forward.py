"""The selective scan's forward kernels in Triton.

A program holds the states of BLOCK_D channels (all N of each) and walks over its tokens in tiles of
TOKENS, scanned in registers. Where that gives too few programs to fill the chip, the tokens are split
into segments: ``segment_states`` finds what each adds to a state of zero, ``carry_states`` chains
them, and ``scan_forward`` then runs all segments at once. Symbols: S sequences (the batch, or those
packed into one row), B batch, L tokens, D channels, N state size. `u_s, u_l, u_d` are the strides of u.
"""

import torch
import triton
import triton.language as tl

from stretchysnake.ops.triton.arithmetic import (
    LOG2_OF_E,
    bounds,
    first_checkpoint,
    read,
    rows_of,
    sigmoid,
    softplus,
    token,
)

# Unknown to the compiler, so that a lane reads one channel of each token: it then holds what it computes with, where
# wider reads would pass through shared memory.
ROWS = ["u_l", "delta_l", "z_l", "B_l", "C_l", "channels"]
# Not one compiled kernel for each way a length happens to divide by 16.
VARYING = ["length", "num_segments", "segment_tokens", "B_s", "C_s", *ROWS]


def state_type(dtype: torch.dtype) -> tl.dtype:
    """Triton's name of the type that states and sums have."""
    return {torch.float32: tl.float32, torch.float64: tl.float64}[dtype]


@triton.jit(do_not_specialize=VARYING)
def segment_states(
    u, u_s, u_l, u_d, delta, delta_s, delta_l, delta_d, A, A_d, A_n, B, B_s, B_l, B_n, delta_bias,
    local_states, decay_steps, cu_seqlens, length, channels, state, num_segments, segment_tokens,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, TOKENS: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """For each segment: the state it ends with when it starts from 0 (S, segments, N, D), and the sum
    of its steps (S, segments, D), of which exp(A sum) is the segment's decay."""
    num_blocks = tl.cdiv(channels, BLOCK_D)
    program = tl.program_id(0)
    block = program % num_blocks
    segment = (program // num_blocks) % num_segments
    sequence = program // num_blocks // num_segments
    begin, tokens = bounds(cu_seqlens, sequence, length)

    d = block * BLOCK_D + tl.arange(0, BLOCK_D)
    n = tl.arange(0, BLOCK_N)
    in_d, in_n = d < channels, n < state
    in_state = in_n[:, None] & in_d[None, :]
    d_, n_ = d.to(tl.int64), n.to(tl.int64)
    A_nd = tl.load(A + d_[None, :] * A_d + n_[:, None] * A_n, mask=in_state, other=0.0).to(TYPE)
    A_nd = A_nd * LOG2_OF_E
    shift = tl.zeros([BLOCK_D], TYPE)
    if delta_bias is not None:
        shift = tl.load(delta_bias + d_, mask=in_d, other=0.0).to(TYPE)
    in_sequence = 0 if cu_seqlens is not None else sequence.to(tl.int64)
    u += in_sequence * u_s
    delta += in_sequence * delta_s
    B += in_sequence * B_s

    tile = tl.arange(0, TOKENS)
    way = -tile.to(tl.int64) if REVERSE else tile.to(tl.int64)
    u_at = way[:, None] * u_l + d_[None, :] * u_d
    delta_at = way[:, None] * delta_l + d_[None, :] * delta_d
    B_at = way[:, None] * B_l + n_[None, :] * B_n
    h = tl.zeros([1, BLOCK_N, BLOCK_D], TYPE)
    total = tl.zeros([BLOCK_D], TYPE)
    begin_at, stop = segment * segment_tokens, tl.minimum((segment + 1) * segment_tokens, tokens)
    row = rows_of(begin, tokens, begin_at, REVERSE)
    is_there = (begin_at + tile < stop)[:, None]
    x_read = read(u, row, u_l, u_at, is_there & in_d[None, :])
    delta_read = read(delta, row, delta_l, delta_at, is_there & in_d[None, :])
    B_read = read(B, row, B_l, B_at, is_there & in_n[None, :])
    B_next = B_read.to(TYPE)
    for start in tl.range(begin_at, stop, TOKENS):
        x, step, B_tn = x_read.to(TYPE), delta_read.to(TYPE) + shift[None, :], B_next
        in_tile = (start + tile < stop)[:, None] & in_d[None, :]
        row = rows_of(begin, tokens, start + TOKENS, REVERSE)
        is_there = (start + TOKENS + tile < stop)[:, None]
        x_read = read(u, row, u_l, u_at, is_there & in_d[None, :])
        delta_read = read(delta, row, delta_l, delta_at, is_there & in_d[None, :])
        B_read = read(B, row, B_l, B_at, is_there & in_n[None, :])
        if SOFTPLUS:
            step = softplus(step)
        step = tl.where(in_tile, step, 0.0)
        decay = tl.exp2(step[:, None, :] * A_nd[None, :, :])  # (T, N, D)
        update = (step * x)[:, None, :] * B_tn[:, :, None]
        for i in tl.static_range(TOKENS):
            h = token(decay, tile, i) * h + token(update, tile, i)
        total += tl.sum(step, axis=0)
        B_next = B_read.to(TYPE)

    slot = sequence.to(tl.int64) * num_segments + segment
    where = (slot * state + n_[:, None]) * channels + d_[None, :]
    tl.store(local_states + where, tl.reshape(h, [BLOCK_N, BLOCK_D]), mask=in_state)
    tl.store(decay_steps + slot * channels + d_, total, mask=in_d)


@triton.jit(do_not_specialize=["num_segments"])
def carry_states(
    states, decay_steps, first_state, first_s, first_d, first_n, A, A_d, A_n,
    channels, state, num_segments,
    BACKWARD: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Turn what each segment adds (S, segments, N, D) into what enters it, in place.

    BACKWARD goes from the last segment to the first, as the adjoints do.
    """
    num_blocks = tl.cdiv(channels, BLOCK_D)
    program = tl.program_id(0)
    block = program % num_blocks
    sequence = (program // num_blocks).to(tl.int64)
    d = (block * BLOCK_D + tl.arange(0, BLOCK_D)).to(tl.int64)
    n = tl.arange(0, BLOCK_N).to(tl.int64)
    in_d = d < channels
    in_state = (n < state)[:, None] & in_d[None, :]
    A_nd = tl.load(A + d[None, :] * A_d + n[:, None] * A_n, mask=in_state, other=0.0).to(TYPE)
    A_nd = A_nd * LOG2_OF_E
    h = tl.zeros([BLOCK_N, BLOCK_D], TYPE)
    if first_state is not None:
        first_at = sequence * first_s + d[None, :] * first_d + n[:, None] * first_n
        h = tl.load(first_state + first_at, mask=in_state, other=0.0).to(TYPE)
    for number in tl.range(0, num_segments):
        segment = num_segments - 1 - number if BACKWARD else number
        slot = sequence * num_segments + segment
        where = states + (slot * state + n[:, None]) * channels + d[None, :]
        added = tl.load(where, mask=in_state, other=0.0)
        total = tl.load(decay_steps + slot * channels + d, mask=in_d, other=0.0)
        tl.debug_barrier()  # no thread writes what another has yet to read
        tl.store(where, h, mask=in_state)
        h = tl.exp2(total[None, :] * A_nd) * h + added


@triton.jit(do_not_specialize=VARYING)
def scan_forward(
    u, u_s, u_l, u_d, delta, delta_s, delta_l, delta_d, A, A_d, A_n, B, B_s, B_l, B_n,
    C, C_s, C_l, C_n, D, z, z_s, z_l, z_d, delta_bias, initial_state, initial_s, initial_d, initial_n,
    segment_starts, y, final_state, checkpoints,
    cu_seqlens, length, channels, state, num_segments, segment_tokens,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, TOKENS: tl.constexpr,
    CHECKPOINT_TOKENS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """y (B, L, D), the final state (S, D, N), and, for the backward, the state before every
    CHECKPOINT_TOKENS-th token (checkpoints, N, D)."""
    num_blocks = tl.cdiv(channels, BLOCK_D)
    program = tl.program_id(0)
    block = program % num_blocks
    segment = (program // num_blocks) % num_segments
    sequence = program // num_blocks // num_segments
    begin, tokens = bounds(cu_seqlens, sequence, length)

    d = block * BLOCK_D + tl.arange(0, BLOCK_D)
    n = tl.arange(0, BLOCK_N)
    in_d, in_n = d < channels, n < state
    in_state = in_n[:, None] & in_d[None, :]
    d_, n_ = d.to(tl.int64), n.to(tl.int64)
    A_nd = tl.load(A + d_[None, :] * A_d + n_[:, None] * A_n, mask=in_state, other=0.0).to(TYPE)
    A_nd = A_nd * LOG2_OF_E
    shift = tl.zeros([BLOCK_D], TYPE)
    if delta_bias is not None:
        shift = tl.load(delta_bias + d_, mask=in_d, other=0.0).to(TYPE)
    skip = tl.zeros([BLOCK_D], TYPE)
    if D is not None:
        skip = tl.load(D + d_, mask=in_d, other=0.0).to(TYPE)
    h = tl.zeros([1, BLOCK_N, BLOCK_D], TYPE)
    if segment_starts is not None:
        slot = sequence.to(tl.int64) * num_segments + segment
        start_at = (slot * state + n_[:, None]) * channels + d_[None, :]
        h = tl.load(segment_starts + start_at, mask=in_state, other=0.0)[None, :, :]
    elif initial_state is not None:
        initial_at = (
            sequence.to(tl.int64) * initial_s + d_[None, :] * initial_d + n_[:, None] * initial_n
        )
        h = tl.load(initial_state + initial_at, mask=in_state, other=0.0).to(TYPE)[None, :, :]
    in_sequence = 0 if cu_seqlens is not None else sequence.to(tl.int64)
    u += in_sequence * u_s
    delta += in_sequence * delta_s
    B += in_sequence * B_s
    C += in_sequence * C_s
    if z is not None:
        z += in_sequence * z_s
    y += in_sequence * length * channels

    checkpoint = first_checkpoint(cu_seqlens, sequence, begin, length, CHECKPOINT_TOKENS)
    tile = tl.arange(0, TOKENS)
    way = -tile.to(tl.int64) if REVERSE else tile.to(tl.int64)
    u_at = way[:, None] * u_l + d_[None, :] * u_d
    delta_at = way[:, None] * delta_l + d_[None, :] * delta_d
    B_at = way[:, None] * B_l + n_[None, :] * B_n
    C_at = way[:, None] * C_l + n_[None, :] * C_n
    y_at = way[:, None] * channels + d_[None, :]
    z_at = way[:, None] * z_l + d_[None, :] * z_d
    begin_at, stop = segment * segment_tokens, tl.minimum((segment + 1) * segment_tokens, tokens)
    row = rows_of(begin, tokens, begin_at, REVERSE)
    is_there = (begin_at + tile < stop)[:, None]
    x_read = read(u, row, u_l, u_at, is_there & in_d[None, :])
    delta_read = read(delta, row, delta_l, delta_at, is_there & in_d[None, :])
    B_read = read(B, row, B_l, B_at, is_there & in_n[None, :])
    C_read = read(C, row, C_l, C_at, is_there & in_n[None, :])
    B_next, C_next, z_read = B_read.to(TYPE), C_read.to(TYPE), x_read
    if z is not None:
        z_read = read(z, row, z_l, z_at, is_there & in_d[None, :])
    for start in tl.range(begin_at, stop, TOKENS):
        x, step = x_read.to(TYPE), delta_read.to(TYPE) + shift[None, :]
        B_tn, C_tn, gate = B_next, C_next, z_read.to(TYPE)
        in_tile = (start + tile < stop)[:, None] & in_d[None, :]
        y_row = rows_of(begin, tokens, start, REVERSE)
        # the next tile is on its way while this one is computed
        row = rows_of(begin, tokens, start + TOKENS, REVERSE)
        is_there = (start + TOKENS + tile < stop)[:, None]
        x_read = read(u, row, u_l, u_at, is_there & in_d[None, :])
        delta_read = read(delta, row, delta_l, delta_at, is_there & in_d[None, :])
        B_read = read(B, row, B_l, B_at, is_there & in_n[None, :])
        C_read = read(C, row, C_l, C_at, is_there & in_n[None, :])
        z_read = x_read
        if z is not None:
            z_read = read(z, row, z_l, z_at, is_there & in_d[None, :])
        if SOFTPLUS:
            step = softplus(step)
        step = tl.where(in_tile, step, 0.0)  # a token that is not there leaves the state alone
        if checkpoints is not None:  # noqa: SIM102 (known when compiling; the next is not)
            if start % CHECKPOINT_TOKENS == 0:
                checkpoint_row = (checkpoint + start // CHECKPOINT_TOKENS) * state
                kept_at = (checkpoint_row + n_[:, None]) * channels + d_[None, :]
                tl.store(checkpoints + kept_at, tl.reshape(h, [BLOCK_N, BLOCK_D]), mask=in_state)
        decay = tl.exp2(step[:, None, :] * A_nd[None, :, :])  # (T, N, D)
        update = (step * x)[:, None, :] * B_tn[:, :, None]
        states = update
        for i in tl.static_range(TOKENS):
            h = token(decay, tile, i) * h + token(update, tile, i)
            states = tl.where((tile == i)[:, None, None], h, states)
        out = tl.sum(states * C_tn[:, :, None], axis=1) + skip[None, :] * x
        if z is not None:
            out = out * (gate * sigmoid(gate))
        tl.store(y + y_row * channels + y_at, out.to(y.dtype.element_ty), mask=in_tile)
        B_next, C_next = B_read.to(TYPE), C_read.to(TYPE)

    # Whose tokens are the last, or nobody where there are none, writes the final state.
    if (segment * segment_tokens < tl.maximum(tokens, 1)) & (
        (segment + 1) * segment_tokens >= tokens
    ):
        where = (sequence.to(tl.int64) * channels + d_[None, :]) * state + n_[:, None]
        tl.store(final_state + where, tl.reshape(h, [BLOCK_N, BLOCK_D]), mask=in_state)
