"""What the Triton kernels of the scan share: softplus, sigmoid, the scans' combining steps, where a sequence lies.

State and sums are fp32, or fp64 where any input is fp64. Symbols as in ``selective_scan_triton``.
"""

import triton
import triton.language as tl

LOG2_OF_E = tl.constexpr(1.4426950408889634)  # exp(x) = exp2(x * LOG2_OF_E); the chip has exp2


@triton.jit
def softplus(x):
    """log(1 + exp(x)) with the relative accuracy of its type also where it is tiny.

    log1p(e) = log(v) * e / (v - 1) with v = 1 + e rounded; e where v is 1 (Kahan).
    """
    e = tl.exp(-tl.abs(x))
    v = 1.0 + e
    tiny = v == 1.0
    log1p = tl.where(tiny, e, tl.log(v) * (e / tl.where(tiny, 1.0, v - 1.0)))
    return tl.where(x > 0.0, x, 0.0) + log1p


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)) without an exponential that overflows."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0.0, 1.0, e) / (1.0 + e)


@triton.jit
def then_state(a1, b1, a2, b2):
    """h -> a1 h + b1, then h -> a2 h + b2."""
    return a1 * a2, a2 * b1 + b2


@triton.jit
def then_decayed(a1, w1, b1, a2, w2, b2):
    """Two spans of tokens as one, keeping w = a_t h_{t-1} and the last update b_t apart; h_t = w + b."""
    return a1 * a2, w2 + a2 * (w1 + b1), b2


@triton.jit
def then_adjoint(p1, g1, a1, p2, g2, a2):
    """Two spans as one on the way back (1 is later in time): g is the first token's adjoint.

    g_t = c_t + a_{t+1} g_{t+1}; a is the decay of the span's first token, p what the adjoint that
    enters after the span is multiplied by on its way to g. A single token has p = 1.
    """
    return p2 * (a1 * p1), g2 + p2 * (a1 * g1), a2


@triton.jit
def bounds(cu_seqlens, sequence, length):
    """First row and number of tokens of a sequence; ends that lie outside the row are cut."""
    if cu_seqlens is None:
        begin = sequence * 0
        tokens = begin + length
    else:
        begin = tl.minimum(tl.maximum(tl.load(cu_seqlens + sequence).to(tl.int32), 0), length)
        end = tl.minimum(tl.maximum(tl.load(cu_seqlens + sequence + 1).to(tl.int32), 0), length)
        tokens = tl.maximum(end - begin, 0)
    return begin, tokens


@triton.jit
def first_checkpoint(cu_seqlens, sequence, begin, length, TOKENS: tl.constexpr):
    """Number of a sequence's first checkpoint. Packed sequences never share one: begin // TOKENS + sequence."""
    if cu_seqlens is None:
        found = sequence.to(tl.int64) * tl.cdiv(length, TOKENS)
    else:
        found = (begin // TOKENS + sequence).to(tl.int64)
    return found


@triton.jit
def rows_of(begin, tokens, t, REVERSE: tl.constexpr):
    """The rows in memory of the t-th tokens read, int64 because offsets pass 2^31."""
    if REVERSE:
        rows = begin + tokens - 1 - t
    else:
        rows = begin + t
    return rows.to(tl.int64)
