"""The selective scan's backward kernels in Triton.

Tokens are read from the last to the first. From each checkpoint the tiles up to the next one are
scanned again, which gives the state before each; then the tiles are done backward. What many programs add
to (dA, dB, dC, dD, d(delta_bias)) each of them writes apart; torch sums it afterwards, in a fixed
order, so a run repeats to the bit. Symbols: S sequences (the batch, or those packed into one row), B batch,
L tokens, D channels, N state size.
"""

import triton
import triton.language as tl

from stretchysnake.ops.triton.arithmetic import (
    LOG2_OF_E,
    bounds,
    first_checkpoint,
    rows_of,
    sigmoid,
    softplus,
    token,
)

VARYING = ["length", "num_segments", "segment_tokens", "num_groups", "B_s", "C_s"]


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
    entering = tl.zeros([1, BLOCK_N, BLOCK_D], TYPE)
    total = tl.zeros([BLOCK_D], TYPE)
    stop = tl.minimum((segment + 1) * segment_tokens, tokens)
    num_tiles = tl.cdiv(tl.maximum(stop - segment * segment_tokens, 0), TOKENS)
    for number in tl.range(0, num_tiles):
        t = segment * segment_tokens + (num_tiles - 1 - number) * TOKENS + tile
        rows = rows_of(begin, tokens, t, REVERSE)[:, None]
        in_tile = (t < stop)[:, None] & in_d[None, :]
        step = tl.load(delta + rows * delta_l + d_[None, :] * delta_d, mask=in_tile, other=0.0)
        step = step.to(TYPE) + shift[None, :]
        if SOFTPLUS:
            step = softplus(step)
        step = tl.where(in_tile, step, 0.0)
        grad = tl.load(dy + rows * dy_l + d_[None, :] * dy_d, mask=in_tile, other=0.0).to(TYPE)
        if z is not None:
            gate = tl.load(z + rows * z_l + d_[None, :] * z_d, mask=in_tile, other=0.0).to(TYPE)
            grad = grad * (gate * sigmoid(gate))
        in_rows = (t < stop)[:, None] & in_n[None, :]
        C_tn = tl.load(C + rows * C_l + n_[None, :] * C_n, mask=in_rows, other=0.0).to(TYPE)
        decay = tl.exp2(step[:, None, :] * A_nd[None, :, :])  # (T, N, D)
        given = grad[:, None, :] * C_tn[:, :, None]
        for i in tl.static_range(TOKENS - 1, -1, -1):
            entering = token(decay, tile, i) * (entering + token(given, tile, i))
        total += tl.sum(step, axis=0)

    slot = sequence.to(tl.int64) * num_segments + segment
    where = (slot * state + n_[:, None]) * channels + d_[None, :]
    tl.store(local_adjoints + where, tl.reshape(entering, [BLOCK_N, BLOCK_D]), mask=in_state)
    tl.store(decay_steps + slot * channels + d_, total, mask=in_d)


@triton.jit(do_not_specialize=VARYING)
def scan_backward(
    dy, dy_s, dy_l, dy_d, d_final, d_final_s, d_final_d, d_final_n,
    u, u_s, u_l, u_d, delta, delta_s, delta_l, delta_d, A, A_d, A_n, B, B_s, B_l, B_n,
    C, C_s, C_l, C_n, D, z, z_s, z_l, z_d, delta_bias, checkpoints, segment_adjoint,
    du, ddelta, dA, dB, dC, dD, dz, dbias, d_initial,
    cu_seqlens, length, channels, state, num_segments, segment_tokens, num_groups,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, TOKENS: tl.constexpr,
    CHECKPOINT_TOKENS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """All gradients. A program serves every num_groups-th block of channels, one after the other.

    du, ddelta, dz (B, L, D) and d_initial (S, D, N) are whole. Parts to be summed over their first
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

    n = tl.arange(0, BLOCK_N)
    n_ = n.to(tl.int64)
    in_n = n < state
    tile = tl.arange(0, TOKENS)
    stop = tl.minimum((segment + 1) * segment_tokens, tokens)
    num_spans = tl.cdiv(tl.maximum(stop - segment * segment_tokens, 0), CHECKPOINT_TOKENS)
    TILES: tl.constexpr = CHECKPOINT_TOKENS // TOKENS
    tile_number = tl.arange(0, TILES)

    for block in tl.range(group, tl.cdiv(channels, BLOCK_D), num_groups):
        d = block * BLOCK_D + tl.arange(0, BLOCK_D)
        d_ = d.to(tl.int64)
        in_d = d < channels
        in_state = in_n[:, None] & in_d[None, :]
        A_nd = tl.load(A + d_[None, :] * A_d + n_[:, None] * A_n, mask=in_state, other=0.0).to(TYPE)
        shift = tl.zeros([BLOCK_D], TYPE)
        if delta_bias is not None:
            shift = tl.load(delta_bias + d_, mask=in_d, other=0.0).to(TYPE)
        skip = tl.zeros([BLOCK_D], TYPE)
        if D is not None:
            skip = tl.load(D + d_, mask=in_d, other=0.0).to(TYPE)
        entering = tl.zeros([1, BLOCK_N, BLOCK_D], TYPE)  # the adjoint of the state after the tile
        if segment_adjoint is not None:
            adjoint_at = (slot * state + n_[:, None]) * channels + d_[None, :]
            entering = tl.load(segment_adjoint + adjoint_at, mask=in_state, other=0.0)[None, :, :]
        elif d_final is not None:
            final_at = (
                sequence.to(tl.int64) * d_final_s
                + d_[None, :] * d_final_d
                + n_[:, None] * d_final_n
            )
            entering = tl.load(d_final + final_at, mask=in_state, other=0.0).to(TYPE)[None, :, :]
        sum_dA = tl.zeros([BLOCK_N, BLOCK_D], TYPE)
        sum_dD = tl.zeros([BLOCK_D], TYPE)
        sum_dbias = tl.zeros([BLOCK_D], TYPE)

        for number in tl.range(0, num_spans):
            span = segment * segment_tokens + (num_spans - 1 - number) * CHECKPOINT_TOKENS
            checkpoint_row = (checkpoint + span // CHECKPOINT_TOKENS) * state
            kept_at = (checkpoint_row + n_[:, None]) * channels + d_[None, :]
            h = tl.load(checkpoints + kept_at, mask=in_state, other=0.0)[None, :, :]
            starts = tl.where((tile_number == 0)[:, None, None], h, 0.0)  # (tiles, N, D)
            for j in tl.range(0, TILES - 1):  # forward, for the state before each tile
                t = span + j * TOKENS + tile
                rows = rows_of(begin, tokens, t, REVERSE)[:, None]
                in_tile = (t < stop)[:, None] & in_d[None, :]
                in_rows = (t < stop)[:, None] & in_n[None, :]
                x = tl.load(u + rows * u_l + d_[None, :] * u_d, mask=in_tile, other=0.0).to(TYPE)
                raw = tl.load(
                    delta + rows * delta_l + d_[None, :] * delta_d, mask=in_tile, other=0.0
                )
                raw = raw.to(TYPE) + shift[None, :]
                step = softplus(raw) if SOFTPLUS else raw
                step = tl.where(in_tile, step, 0.0)
                B_tn = tl.load(B + rows * B_l + n_[None, :] * B_n, mask=in_rows, other=0.0).to(TYPE)
                decay = tl.exp2(step[:, None, :] * (A_nd * LOG2_OF_E)[None, :, :])  # (T, N, D)
                update = (step * x)[:, None, :] * B_tn[:, :, None]
                for i in tl.static_range(TOKENS):
                    h = token(decay, tile, i) * h + token(update, tile, i)
                starts = tl.where((tile_number == j + 1)[:, None, None], h, starts)

            for back in tl.range(0, TILES):
                j = TILES - 1 - back
                h = token(starts, tile_number, j)
                t = span + j * TOKENS + tile
                rows = rows_of(begin, tokens, t, REVERSE)[:, None]
                in_tile = (t < stop)[:, None] & in_d[None, :]
                in_rows = (t < stop)[:, None] & in_n[None, :]
                x = tl.load(u + rows * u_l + d_[None, :] * u_d, mask=in_tile, other=0.0).to(TYPE)
                raw = tl.load(
                    delta + rows * delta_l + d_[None, :] * delta_d, mask=in_tile, other=0.0
                )
                raw = raw.to(TYPE) + shift[None, :]
                step = softplus(raw) if SOFTPLUS else raw
                step = tl.where(in_tile, step, 0.0)
                B_tn = tl.load(B + rows * B_l + n_[None, :] * B_n, mask=in_rows, other=0.0).to(TYPE)
                C_tn = tl.load(C + rows * C_l + n_[None, :] * C_n, mask=in_rows, other=0.0).to(TYPE)

                decay = tl.exp2(step[:, None, :] * (A_nd * LOG2_OF_E)[None, :, :])  # (T, N, D)
                update = (step * x)[:, None, :] * B_tn[:, :, None]
                decayed = update  # becomes decay_t h_{t-1}
                for i in tl.static_range(TOKENS):
                    h = token(decay, tile, i) * h
                    decayed = tl.where((tile == i)[:, None, None], h, decayed)
                    h += token(update, tile, i)
                states = decayed + update

                grad = tl.load(dy + rows * dy_l + d_[None, :] * dy_d, mask=in_tile, other=0.0).to(
                    TYPE
                )
                if z is not None:
                    gate = tl.load(z + rows * z_l + d_[None, :] * z_d, mask=in_tile, other=0.0).to(
                        TYPE
                    )
                    share = sigmoid(gate)
                    out = tl.sum(states * C_tn[:, :, None], axis=1) + skip[None, :] * x
                    grad_z = grad * out * (share * (1.0 + gate * (1.0 - share)))
                    tl.store(
                        dz + rows * channels + d_[None, :],
                        grad_z.to(dz.dtype.element_ty),
                        mask=in_tile,
                    )
                    grad = grad * (gate * share)

                given = grad[:, None, :] * C_tn[:, :, None]
                adjoint = given
                for i in tl.static_range(TOKENS - 1, -1, -1):
                    entering += token(given, tile, i)
                    adjoint = tl.where((tile == i)[:, None, None], entering, adjoint)
                    entering = token(decay, tile, i) * entering

                to_update = tl.sum(adjoint * B_tn[:, :, None], axis=1)  # d(delta u), (T, D)
                to_decay = adjoint * decayed  # d(step A)
                sum_dA += tl.sum(step[:, None, :] * to_decay, axis=0)
                grad_u = step * to_update + skip[None, :] * grad
                tl.store(
                    du + rows * channels + d_[None, :], grad_u.to(du.dtype.element_ty), mask=in_tile
                )
                sum_dD += tl.sum(grad * x, axis=0)
                grad_delta = x * to_update + tl.sum(to_decay * A_nd[None, :, :], axis=1)
                if SOFTPLUS:
                    grad_delta = grad_delta * sigmoid(raw)
                grad_delta = tl.where(in_tile, grad_delta, 0.0)
                tl.store(
                    ddelta + rows * channels + d_[None, :],
                    grad_delta.to(ddelta.dtype.element_ty),
                    mask=in_tile,
                )
                sum_dbias += tl.sum(grad_delta, axis=0)

                found_B = tl.sum((step * x)[:, None, :] * adjoint, axis=2)  # (T, N)
                found_C = tl.sum(grad[:, None, :] * states, axis=2)
                rows_at = rows * state + n_[None, :]
                if (
                    block != group
                ):  # a later block adds to what this program wrote for an earlier one
                    found_B += tl.load(dB + rows_at, mask=in_rows, other=0.0)
                    found_C += tl.load(dC + rows_at, mask=in_rows, other=0.0)
                tl.store(dB + rows_at, found_B, mask=in_rows)
                tl.store(dC + rows_at, found_C, mask=in_rows)

        dA_at = (slot * state + n_[:, None]) * channels + d_[None, :]
        tl.store(dA + dA_at, sum_dA, mask=in_state)
        if dD is not None:
            tl.store(dD + slot * channels + d_, sum_dD, mask=in_d)
        if dbias is not None:
            tl.store(dbias + slot * channels + d_, sum_dbias, mask=in_d)
        if d_initial is not None:  # noqa: SIM102 (known when compiling; the next is not)
            if segment == 0:
                initial_at = (sequence.to(tl.int64) * channels + d_[None, :]) * state + n_[:, None]
                tl.store(
                    d_initial + initial_at, tl.reshape(entering, [BLOCK_N, BLOCK_D]), mask=in_state
                )
        tl.debug_barrier()  # other threads of this program may read dB and dC in the next round
