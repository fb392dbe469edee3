"""The causal convolution's kernels in Triton: convolution and SiLU in one pass, and their backward.

A program does BLOCK_D channels of some tokens of one sequence of the batch. Neighbouring tokens are
read again for each tap; they come from the cache. Symbols: B batch, L tokens, D channels, K width.
`x_b, x_l, x_d` are the strides of x. ``sequence_of`` (L,) numbers the packed sequence of a token.
"""

import triton
import triton.language as tl

from stretchysnake.ops.triton.arithmetic import sigmoid

VARYING = ["length", "num_spans"]


@triton.jit
def may_read(there, here, length, sequence_of):
    """Which tokens `there` exist and belong to the same packed sequence as those at `here`."""
    inside = (there >= 0) & (there < length) & (here >= 0) & (here < length)
    if sequence_of is not None:
        sequence = tl.load(sequence_of + here, mask=inside, other=-1)
        inside = inside & (tl.load(sequence_of + there, mask=inside, other=-2) == sequence)
    return inside


@triton.jit(do_not_specialize=VARYING)
def conv_forward(
    x, x_b, x_l, x_d, weight, bias, y, sequence_of, length, channels, num_spans,
    REVERSE: tl.constexpr, K: tl.constexpr, TOKENS: tl.constexpr, BLOCK_D: tl.constexpr,
    TYPE: tl.constexpr,
):  # fmt: skip
    """y (B, L, D) = silu(bias + the convolution); one tile of tokens a program."""
    num_blocks = tl.cdiv(channels, BLOCK_D)
    program = tl.program_id(0)
    d = ((program % num_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)).to(tl.int64)
    t = ((program // num_blocks) % num_spans) * TOKENS + tl.arange(0, TOKENS)
    batch = (program // num_blocks // num_spans).to(tl.int64)
    in_d = d < channels
    x += batch * x_b
    value = tl.zeros([TOKENS, BLOCK_D], TYPE)
    if bias is not None:
        value += tl.load(bias + d, mask=in_d, other=0.0).to(TYPE)[None, :]
    for back in tl.static_range(K):
        source = t + back if REVERSE else t - back
        readable = may_read(source, t, length, sequence_of)[:, None] & in_d[None, :]
        at = source.to(tl.int64)[:, None] * x_l + d[None, :] * x_d
        tap = tl.load(weight + d * K + (K - 1 - back), mask=in_d, other=0.0).to(TYPE)
        value += tap[None, :] * tl.load(x + at, mask=readable, other=0.0).to(TYPE)
    value = value * sigmoid(value)
    at = (batch * length + t)[:, None] * channels + d[None, :]
    tl.store(y + at, value.to(y.dtype.element_ty), mask=(t < length)[:, None] & in_d[None, :])


@triton.jit(do_not_specialize=[*VARYING, "span_tokens"])
def conv_backward(
    dy, dy_b, dy_l, dy_d, x, x_b, x_l, x_d, weight, bias, dx, dweight, dbias, sequence_of,
    length, channels, num_spans, span_tokens,
    REVERSE: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr, TOKENS: tl.constexpr,
    BLOCK_D: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """dx (B, L, D), and for each of B spans rows of tokens its part of dweight (D, K) and dbias (D,)."""
    num_blocks = tl.cdiv(channels, BLOCK_D)
    program = tl.program_id(0)
    d = ((program % num_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)).to(tl.int64)
    span = (program // num_blocks) % num_spans
    batch = (program // num_blocks // num_spans).to(tl.int64)
    in_d = d < channels
    dy += batch * dy_b
    x += batch * x_b
    taps = tl.arange(0, BLOCK_K)
    shift = tl.zeros([BLOCK_D], TYPE)
    if bias is not None:
        shift = tl.load(bias + d, mask=in_d, other=0.0).to(TYPE)
    sum_weight = tl.zeros([BLOCK_D, BLOCK_K], TYPE)
    sum_bias = tl.zeros([BLOCK_D], TYPE)
    for start in tl.range(span * span_tokens, (span + 1) * span_tokens, TOKENS):
        t = start + tl.arange(0, TOKENS)
        grad_x = tl.zeros([TOKENS, BLOCK_D], TYPE)
        for ahead in tl.static_range(K):  # token t was read by the outputs at `out`
            out = t - ahead if REVERSE else t + ahead
            used = may_read(out, t, length, sequence_of)[:, None] & in_d[None, :]
            value = tl.zeros([TOKENS, BLOCK_D], TYPE) + shift[None, :]
            for back in tl.static_range(K):
                source = out + back if REVERSE else out - back
                readable = may_read(source, out, length, sequence_of)[:, None] & in_d[None, :]
                at = source.to(tl.int64)[:, None] * x_l + d[None, :] * x_d
                tap = tl.load(weight + d * K + (K - 1 - back), mask=in_d, other=0.0).to(TYPE)
                value += tap[None, :] * tl.load(x + at, mask=readable, other=0.0).to(TYPE)
            share = sigmoid(value)
            at = out.to(tl.int64)[:, None] * dy_l + d[None, :] * dy_d
            grad = tl.load(dy + at, mask=used, other=0.0).to(TYPE)
            grad = tl.where(used, grad * share * (1.0 + value * (1.0 - share)), 0.0)
            tap = tl.load(weight + d * K + (K - 1 - ahead), mask=in_d, other=0.0).to(TYPE)
            grad_x += tap[None, :] * grad
            if ahead == 0:  # the tile's own outputs
                sum_bias += tl.sum(grad, axis=0)
                for back in tl.static_range(K):
                    source = t + back if REVERSE else t - back
                    readable = may_read(source, t, length, sequence_of)[:, None] & in_d[None, :]
                    at = source.to(tl.int64)[:, None] * x_l + d[None, :] * x_d
                    part = tl.sum(grad * tl.load(x + at, mask=readable, other=0.0).to(TYPE), axis=0)
                    sum_weight += tl.where((taps == K - 1 - back)[None, :], part[:, None], 0.0)
        at = (batch * length + t)[:, None] * channels + d[None, :]
        inside = (t < length)[:, None] & in_d[None, :]
        tl.store(dx + at, grad_x.to(dx.dtype.element_ty), mask=inside)
    row = batch * num_spans + span
    at = (row * channels + d[:, None]) * K + taps[None, :]
    tl.store(dweight + at, sum_weight, mask=in_d[:, None] & (taps < K)[None, :])
    if dbias is not None:
        tl.store(dbias + row * channels + d, sum_bias, mask=in_d)
