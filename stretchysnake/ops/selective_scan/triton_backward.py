"""The selective scan's backward kernels in Triton.

Tokens are read from the last to the first. From each checkpoint the tiles up to the next one are
scanned again, and the state before each is kept in scratch memory; then the tiles are done backward. What many
programs add to (dA, dB, dC, dD, d(delta_bias)) each of them writes apart; torch sums it afterwards, in a fixed
order, so a run repeats to the bit. Symbols: S sequences (the batch, or those packed into one row), B batch,
L tokens, D channels, N state size, R rows of E of a block of channels.
"""

import triton
import triton.language as tl

from stretchysnake.ops.triton.arithmetic import (
    LN_OF_2,
    LOG2_OF_E,
    bounds,
    first_checkpoint,
    read,
    rows_of,
    sigmoid,
    softplus,
    token,
)

ROWS = ["dy_l", "u_l", "delta_l", "z_l", "B_l", "C_l", "channels"]  # as in triton_forward.py
VARYING = ["length", "num_segments", "segment_tokens", "num_groups", "B_s", "C_s", *ROWS]


@triton.jit(do_not_specialize=VARYING)
def segment_adjoints(
    dy, dy_s, dy_l, dy_d, delta, delta_s, delta_l, delta_d, A, A_d, A_n,
    C, C_s, C_l, C_n, z, z_s, z_l, z_d, delta_bias, local_adjoints, decay_steps,
    cu_seqlens, length, channels, state, num_segments, segment_tokens,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, TOKENS: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """For each segment: the adjoint of the state before it when that after it is 0 (S, segments, N, D),
    and the sum of its steps (S, segments, D)."""
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
    dy += in_sequence * dy_s
    delta += in_sequence * delta_s
    C += in_sequence * C_s
    if z is not None:
        z += in_sequence * z_s

    tile = tl.arange(0, TOKENS)
    way = -tile.to(tl.int64) if REVERSE else tile.to(tl.int64)
    delta_at = way[:, None] * delta_l + d_[None, :] * delta_d
    dy_at = way[:, None] * dy_l + d_[None, :] * dy_d
    z_at = way[:, None] * z_l + d_[None, :] * z_d
    C_at = way[:, None] * C_l + n_[None, :] * C_n
    entering = tl.zeros([1, BLOCK_N, BLOCK_D], TYPE)
    total = tl.zeros([BLOCK_D], TYPE)
    begin_at, stop = segment * segment_tokens, tl.minimum((segment + 1) * segment_tokens, tokens)
    num_tiles = tl.cdiv(tl.maximum(stop - begin_at, 0), TOKENS)
    start = begin_at + (num_tiles - 1) * TOKENS
    row = rows_of(begin, tokens, start, REVERSE)
    is_there = ((start + tile < stop) & (start + tile >= begin_at))[:, None]
    delta_read = read(delta, row, delta_l, delta_at, is_there & in_d[None, :])
    dy_read = read(dy, row, dy_l, dy_at, is_there & in_d[None, :])
    C_next, z_read = read(C, row, C_l, C_at, is_there & in_n[None, :]).to(TYPE), dy_read
    if z is not None:
        z_read = read(z, row, z_l, z_at, is_there & in_d[None, :])
    for _ in tl.range(0, num_tiles):
        step, grad = delta_read.to(TYPE) + shift[None, :], dy_read.to(TYPE)
        C_tn, gate = C_next, z_read.to(TYPE)
        in_tile = (start + tile < stop)[:, None] & in_d[None, :]
        start -= TOKENS  # the tile before is on its way while this one is computed
        row = rows_of(begin, tokens, start, REVERSE)
        is_there = ((start + tile < stop) & (start + tile >= begin_at))[:, None]
        delta_read = read(delta, row, delta_l, delta_at, is_there & in_d[None, :])
        dy_read = read(dy, row, dy_l, dy_at, is_there & in_d[None, :])
        C_read, z_read = read(C, row, C_l, C_at, is_there & in_n[None, :]), dy_read
        if z is not None:
            z_read = read(z, row, z_l, z_at, is_there & in_d[None, :])
            grad = grad * (gate * sigmoid(gate))
        if SOFTPLUS:
            step = softplus(step)
        step = tl.where(in_tile, step, 0.0)
        decay = tl.exp2(step[:, None, :] * A_nd[None, :, :])  # (T, N, D)
        given = grad[:, None, :] * C_tn[:, :, None]
        for i in tl.static_range(TOKENS - 1, -1, -1):
            entering = token(decay, tile, i) * (entering + token(given, tile, i))
        total += tl.sum(step, axis=0)
        C_next = C_read.to(TYPE)

    slot = sequence.to(tl.int64) * num_segments + segment
    where = (slot * state + n_[:, None]) * channels + d_[None, :]
    tl.store(local_adjoints + where, tl.reshape(entering, [BLOCK_N, BLOCK_D]), mask=in_state)
    tl.store(decay_steps + slot * channels + d_, total, mask=in_d)


@triton.jit(do_not_specialize=VARYING)
def scan_backward(
    dy, dy_s, dy_l, dy_d, d_final, d_final_s, d_final_d, d_final_n,
    u, u_s, u_l, u_d, delta, delta_s, delta_l, delta_d, A, A_d, A_n, B, B_s, B_l, B_n,
    C, C_s, C_l, C_n, D, z, z_s, z_l, z_d, delta_bias, checkpoints, segment_adjoint, scratch,
    du, ddelta, dA, dB, dC, dD, dz, dbias, d_initial,
    cu_seqlens, length, channels, state, num_segments, segment_tokens, num_groups,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, TOKENS: tl.constexpr,
    CHECKPOINT_TOKENS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    LANES: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """All gradients. A program serves every num_groups-th block of channels, one after the other.

    A block of BLOCK_D channels is (BLOCK_D // LANES, LANES), here (R, E): sums over N and over D then both cross few
    lanes of the warp. du, ddelta, dz (B, L, D) and d_initial (S, D, N) are whole. Parts to be summed over their first
    dimension: dB, dC (groups, B, L, N), dA (S segments, N, D), dD, dbias (S segments, D).
    """
    program = tl.program_id(0)
    group = program % num_groups
    segment = (program // num_groups) % num_segments
    sequence = program // num_groups // num_segments
    begin, tokens = bounds(cu_seqlens, sequence, length)
    slot = sequence.to(tl.int64) * num_segments + segment
    checkpoint = first_checkpoint(cu_seqlens, sequence, begin, length, CHECKPOINT_TOKENS)
    in_sequence = 0 if cu_seqlens is not None else sequence.to(tl.int64)
    num_rows = 1 if cu_seqlens is not None else tl.num_programs(0) // num_groups // num_segments
    dy += in_sequence * dy_s
    u += in_sequence * u_s
    delta += in_sequence * delta_s
    B += in_sequence * B_s
    C += in_sequence * C_s
    if z is not None:
        z += in_sequence * z_s
        dz += in_sequence * length * channels
    du += in_sequence * length * channels
    ddelta += in_sequence * length * channels
    part = (group.to(tl.int64) * num_rows + in_sequence) * length * state
    dB += part
    dC += part

    ROWS_OF_LANES: tl.constexpr = BLOCK_D // LANES
    TILES: tl.constexpr = CHECKPOINT_TOKENS // TOKENS
    r, e = tl.arange(0, ROWS_OF_LANES), tl.arange(0, LANES)
    n = tl.arange(0, BLOCK_N)
    n_, in_n = n.to(tl.int64), n < state
    tile = tl.arange(0, TOKENS)
    way = -tile.to(tl.int64) if REVERSE else tile.to(tl.int64)
    B_at = way[:, None] * B_l + n_[None, :] * B_n
    C_at = way[:, None] * C_l + n_[None, :] * C_n
    rows_at = way[:, None] * state + n_[None, :]
    begin_at, stop = segment * segment_tokens, tl.minimum((segment + 1) * segment_tokens, tokens)
    num_spans = tl.cdiv(tl.maximum(stop - begin_at, 0), CHECKPOINT_TOKENS)
    # of this program: the state before each tile of a span but the first
    scratch += program.to(tl.int64) * (TILES - 1) * BLOCK_N * BLOCK_D
    kept_here = (r[:, None, None] * BLOCK_N + n[None, :, None]) * LANES + e[None, None, :]

    for block in tl.range(group, tl.cdiv(channels, BLOCK_D), num_groups):
        d = block * BLOCK_D + r[:, None] * LANES + e[None, :]  # (R, E)
        d_ = d.to(tl.int64)
        in_d = d < channels
        in_state = in_d[:, None, :] & in_n[None, :, None]  # (R, N, E)
        of_state = n_[None, :, None] * channels + d_[:, None, :]
        A_at = d_[:, None, :] * A_d + n_[None, :, None] * A_n
        A_nd = tl.load(A + A_at, mask=in_state, other=0.0).to(TYPE) * LOG2_OF_E
        shift = tl.zeros([ROWS_OF_LANES, LANES], TYPE)
        if delta_bias is not None:
            shift = tl.load(delta_bias + d_, mask=in_d, other=0.0).to(TYPE)
        skip = tl.zeros([ROWS_OF_LANES, LANES], TYPE)
        if D is not None:
            skip = tl.load(D + d_, mask=in_d, other=0.0).to(TYPE)
        # the adjoint of the state after the tile
        entering = tl.zeros([1, ROWS_OF_LANES, BLOCK_N, LANES], TYPE)
        if segment_adjoint is not None:
            adjoint_at = slot * state * channels + of_state
            entering = tl.load(segment_adjoint + adjoint_at, mask=in_state, other=0.0)[None]
        elif d_final is not None:
            final_at = (
                sequence.to(tl.int64) * d_final_s
                + d_[:, None, :] * d_final_d
                + n_[None, :, None] * d_final_n
            )
            entering = tl.load(d_final + final_at, mask=in_state, other=0.0).to(TYPE)[None]
        sum_dA = tl.zeros([ROWS_OF_LANES, BLOCK_N, LANES], TYPE)
        sum_dD = tl.zeros([ROWS_OF_LANES, LANES], TYPE)
        sum_dbias = tl.zeros([ROWS_OF_LANES, LANES], TYPE)
        u_at = way[:, None, None] * u_l + d_[None] * u_d  # (T, R, E)
        delta_at = way[:, None, None] * delta_l + d_[None] * delta_d
        dy_at = way[:, None, None] * dy_l + d_[None] * dy_d
        z_at = way[:, None, None] * z_l + d_[None] * z_d
        out_at = way[:, None, None] * channels + d_[None]

        for number in tl.range(0, num_spans):
            span = begin_at + (num_spans - 1 - number) * CHECKPOINT_TOKENS
            kept_at = (checkpoint + span // CHECKPOINT_TOKENS) * state * channels + of_state
            h = tl.load(checkpoints + kept_at, mask=in_state, other=0.0)[None]
            num_tiles = tl.cdiv(tl.minimum(stop - span, CHECKPOINT_TOKENS), TOKENS)
            row = rows_of(begin, tokens, span, REVERSE)
            in_tile = (span + tile < stop)[:, None, None] & in_d[None]
            x_read = read(u, row, u_l, u_at, in_tile)
            delta_read = read(delta, row, delta_l, delta_at, in_tile)
            B_next = read(B, row, B_l, B_at, (span + tile < stop)[:, None] & in_n[None, :]).to(TYPE)
            for j in tl.range(0, num_tiles - 1):  # forward, for the state before each tile
                x, step, B_tn = x_read.to(TYPE), delta_read.to(TYPE) + shift[None], B_next
                start = span + (j + 1) * TOKENS
                row = rows_of(begin, tokens, start, REVERSE)
                in_tile = (start + tile < stop)[:, None, None] & in_d[None]
                x_read = read(u, row, u_l, u_at, in_tile)
                delta_read = read(delta, row, delta_l, delta_at, in_tile)
                B_read = read(B, row, B_l, B_at, (start + tile < stop)[:, None] & in_n[None, :])
                if SOFTPLUS:
                    step = softplus(step)
                step = tl.where(in_d[None], step, 0.0)
                decay = tl.exp2(step[:, :, None, :] * A_nd[None])  # (T, R, N, E)
                update = (step * x)[:, :, None, :] * B_tn[:, None, :, None]
                for i in tl.static_range(TOKENS):
                    h = token(decay, tile, i) * h + token(update, tile, i)
                to = scratch + j * BLOCK_N * BLOCK_D + kept_here
                tl.store(to, tl.reshape(h, [ROWS_OF_LANES, BLOCK_N, LANES]))
                B_next = B_read.to(TYPE)

            tl.debug_barrier()  # other threads may read what this one wrote to scratch
            span_dD = tl.zeros(
                [ROWS_OF_LANES, LANES], TYPE
            )  # summed apart: sums of sums round less
            span_dbias = tl.zeros([ROWS_OF_LANES, LANES], TYPE)
            for back in tl.range(0, num_tiles):
                j = num_tiles - 1 - back
                start = span + j * TOKENS
                row = rows_of(begin, tokens, start, REVERSE)
                in_tile = (start + tile < stop)[:, None, None] & in_d[None]
                in_rows = (start + tile < stop)[:, None] & in_n[None, :]
                if back > 0:
                    if j > 0:
                        h = tl.load(scratch + (j - 1) * BLOCK_N * BLOCK_D + kept_here)[None]
                    else:
                        h = tl.load(checkpoints + kept_at, mask=in_state, other=0.0)[None]
                x = read(u, row, u_l, u_at, in_tile).to(TYPE)
                raw = read(delta, row, delta_l, delta_at, in_tile).to(TYPE) + shift[None]
                grad = read(dy, row, dy_l, dy_at, in_tile).to(TYPE)
                B_tn = read(B, row, B_l, B_at, in_rows).to(TYPE)
                C_tn = read(C, row, C_l, C_at, in_rows).to(TYPE)
                step = softplus(raw) if SOFTPLUS else raw
                step = tl.where(in_tile, step, 0.0)

                decay = tl.exp2(step[:, :, None, :] * A_nd[None])  # (T, R, N, E)
                update = (step * x)[:, :, None, :] * B_tn[:, None, :, None]
                decayed = update  # becomes decay_t h_{t-1}
                for i in tl.static_range(TOKENS):
                    h = token(decay, tile, i) * h
                    decayed = tl.where((tile == i)[:, None, None, None], h, decayed)
                    h += token(update, tile, i)
                states = decayed + update

                if z is not None:
                    gate = read(z, row, z_l, z_at, in_tile).to(TYPE)
                    share = sigmoid(gate)
                    out = tl.sum(states * C_tn[:, None, :, None], axis=2) + skip[None] * x
                    grad_z = grad * out * (share * (1.0 + gate * (1.0 - share)))
                    to = dz + row * channels + out_at
                    tl.store(to, grad_z.to(dz.dtype.element_ty), mask=in_tile)
                    grad = grad * (gate * share)

                given = grad[:, :, None, :] * C_tn[:, None, :, None]
                adjoint = given
                for i in tl.static_range(TOKENS - 1, -1, -1):
                    entering += token(given, tile, i)
                    adjoint = tl.where((tile == i)[:, None, None, None], entering, adjoint)
                    entering = token(decay, tile, i) * entering

                to_update = tl.sum(
                    adjoint * B_tn[:, None, :, None], axis=2
                )  # d(delta u), (T, R, E)
                to_decay = adjoint * decayed  # d(step A)
                sum_dA += tl.sum(step[:, :, None, :] * to_decay, axis=0)
                grad_u = step * to_update + skip[None] * grad
                to = du + row * channels + out_at
                tl.store(to, grad_u.to(du.dtype.element_ty), mask=in_tile)
                span_dD += tl.sum(grad * x, axis=0)
                grad_delta = x * to_update + tl.sum(to_decay * A_nd[None], axis=2) * LN_OF_2
                if SOFTPLUS:
                    grad_delta = grad_delta * sigmoid(raw)
                grad_delta = tl.where(in_tile, grad_delta, 0.0)
                to = ddelta + row * channels + out_at
                tl.store(to, grad_delta.to(ddelta.dtype.element_ty), mask=in_tile)
                span_dbias += tl.sum(grad_delta, axis=0)

                found_B = tl.sum((step * x)[:, :, None, :] * adjoint, axis=1)
                found_C = tl.sum(grad[:, :, None, :] * states, axis=1)
                found_B, found_C = tl.sum(found_B, axis=2), tl.sum(found_C, axis=2)  # (T, N)
                if block != group:  # this program wrote there for an earlier block: add to it
                    found_B += tl.load(dB + row * state + rows_at, mask=in_rows, other=0.0)
                    found_C += tl.load(dC + row * state + rows_at, mask=in_rows, other=0.0)
                tl.store(dB + row * state + rows_at, found_B, mask=in_rows)
                tl.store(dC + row * state + rows_at, found_C, mask=in_rows)
            sum_dD += span_dD
            sum_dbias += span_dbias
            tl.debug_barrier()  # the next span writes the scratch that this one read

        tl.store(dA + slot * state * channels + of_state, sum_dA, mask=in_state)
        if dD is not None:
            tl.store(dD + slot * channels + d_, sum_dD, mask=in_d)
        if dbias is not None:
            tl.store(dbias + slot * channels + d_, sum_dbias, mask=in_d)
        if d_initial is not None:  # noqa: SIM102 (known when compiling; the next is not)
            if segment == 0:
                initial_at = (sequence.to(tl.int64) * channels + d_[:, None, :]) * state
                initial_at += n_[None, :, None]
                first = tl.reshape(entering, [ROWS_OF_LANES, BLOCK_N, LANES])
                tl.store(d_initial + initial_at, first, mask=in_state)
        tl.debug_barrier()  # other threads of this program may read dB and dC in the next round
