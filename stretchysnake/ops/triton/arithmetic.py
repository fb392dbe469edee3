"""What the Triton kernels of the scan share: softplus, sigmoid, one token of a tile, where a sequence lies.

State and sums are fp32, or fp64 where any input is fp64. Symbols: T tokens
of a tile, D channels, N state size, R rows of E of a block of channels.
"""

import triton
import triton.language as tl

LN_OF_2 = tl.constexpr(0.6931471805599453)
LOG2_OF_E = tl.constexpr(1.4426950408889634)  # exp(x) = exp2(x * LOG2_OF_E); the chip has exp2


# log(1 + e) / e on [0, 1] through the Chebyshev nodes of degree 9: relative error 5e-9, in fp32 1.2e-7
LOG1P = tl.constexpr(
    (
        *(1.0, -0.49999892711639404, 0.33329710364341736, -0.24951615929603577, 0.1966327428817749),
        *(-0.1526966691017151, 0.10543623566627502, -0.05637361481785774, 0.019542528316378593),
        -0.0031760570127516985,
    )
)


@triton.jit
def softplus(x):
    """log(1 + exp(x)) with the relative accuracy of its type also where it is tiny."""
    e = tl.exp2(-tl.abs(x) * LOG2_OF_E)
    if x.dtype == tl.float64:  # log(v) e / (v - 1) with v = 1 + e rounded (Kahan)
        v = 1.0 + e
        tiny = v == 1.0
        log1p = tl.where(tiny, e, tl.log(v) * (e / tl.where(tiny, 1.0, v - 1.0)))
    else:  # a polynomial: a third of the instructions of an accurate logarithm
        log1p = e * LOG1P[9] + LOG1P[8]
        for power in tl.static_range(7, -1, -1):
            log1p = log1p * e + LOG1P[power]
        log1p = log1p * e
    return tl.where(x > 0.0, x, 0.0) + log1p


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)) without an exponential that overflows."""
    e = tl.exp2(-tl.abs(x) * LOG2_OF_E)
    return tl.where(x >= 0.0, 1.0, e) / (1.0 + e)


@triton.jit
def token(values, tile, t):
    """values[t] of (T, N, D) as (1, N, D), or of (T, R, N, E) as (1, R, N, E).

    Where a thread holds all T this is a choice of register and no instruction: as integers, because x + 0.0 is
    not x where x is -0.0, and would be computed.
    """
    bits = values.to(tl.int64 if values.dtype == tl.float64 else tl.int32, bitcast=True)
    chosen = (tile == t)[:, None, None]
    if len(values.shape) == 4:
        chosen = chosen[:, :, :, None]
    return tl.sum(tl.where(chosen, bits, 0), axis=0, keep_dims=True).to(values.dtype, bitcast=True)


@triton.jit
def read(pointer, row, row_stride, at, mask):
    """What lies at offsets `at` from a row; 0 where the mask is not."""
    return tl.load(pointer + row * row_stride + at, mask=mask, other=0.0)


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
        checkpoint = sequence.to(tl.int64) * tl.cdiv(length, TOKENS)
    else:
        checkpoint = (begin // TOKENS + sequence).to(tl.int64)
    return checkpoint


@triton.jit
def rows_of(begin, tokens, t, REVERSE: tl.constexpr):
    """The rows in memory of the t-th tokens read, int64 because offsets pass 2^31."""
    rows = begin + tokens - 1 - t if REVERSE else begin + t
    return rows.to(tl.int64)
