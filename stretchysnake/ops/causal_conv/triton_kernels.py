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


@triton.jit
def convolved(
    x, x_l, x_d, weight, bias, t, d, in_d, sequence_of, length,
    REVERSE: tl.constexpr, K: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """bias + the convolution at some tokens t and channels d of one row, a tile of them."""
    value = tl.zeros([t.shape[0], d.shape[0]], TYPE)
    if bias is not None:
        value += tl.load(bias + d, mask=in_d, other=0.0).to(TYPE)[None, :]
    for back in tl.static_range(K):
        source = t + back if REVERSE else t - back
        readable = may_read(source, t, length, sequence_of)[:, None] & in_d[None, :]
        at = source.to(tl.int64)[:, None] * x_l + d[None, :] * x_d
        tap = tl.load(weight + d * K + (K - 1 - back), mask=in_d, other=0.0).to(TYPE)
        value += tap[None, :] * tl.load(x + at, mask=readable, other=0.0).to(TYPE)
    return value


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
    value = convolved(
        x + batch * x_b, x_l, x_d, weight, bias, t, d, in_d, sequence_of, length, REVERSE, K, TYPE
    )
    value = value * sigmoid(value)
    at = (batch * length + t)[:, None] * channels + d[None, :]
    tl.store(y + at, value.to(y.dtype.element_ty), mask=(t < length)[:, None] & in_d[None, :])


@triton.jit(do_not_specialize=VARYING)
def conv_before_silu(
    dy, dy_b, dy_l, dy_d, x, x_b, x_l, x_d, weight, bias, gradient, sequence_of, length, channels, num_spans,
    REVERSE: tl.constexpr, K: tl.constexpr, TOKENS: tl.constexpr, BLOCK_D: tl.constexpr,
    TYPE: tl.constexpr,
):  # fmt: skip
    """The gradient (B, L, D) of what SiLU is applied to, which is computed again; one tile of tokens a program."""
    num_blocks = tl.cdiv(channels, BLOCK_D)
    program = tl.program_id(0)
    d = ((program % num_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)).to(tl.int64)
    t = ((program // num_blocks) % num_spans) * TOKENS + tl.arange(0, TOKENS)
    batch = (program // num_blocks // num_spans).to(tl.int64)
    in_d = d < channels
    value = convolved(
        x + batch * x_b, x_l, x_d, weight, bias, t, d, in_d, sequence_of, length, REVERSE, K, TYPE
    )
    share = sigmoid(value)
    inside = (t < length)[:, None] & in_d[None, :]
    at = batch * dy_b + t.to(tl.int64)[:, None] * dy_l + d[None, :] * dy_d
    grad = tl.load(dy + at, mask=inside, other=0.0).to(TYPE) * share * (1.0 + value * (1.0 - share))
    tl.store(gradient + (batch * length + t)[:, None] * channels + d[None, :], grad, mask=inside)


@triton.jit(do_not_specialize=[*VARYING, "span_tokens"])
def conv_backward(
    gradient, x, x_b, x_l, x_d, weight, dx, dweight, dbias, sequence_of,
    length, channels, num_spans, span_tokens,
    REVERSE: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr, TOKENS: tl.constexpr,
    BLOCK_D: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """dx (B, L, D), and for each of B spans rows of tokens its part of dweight (D, K) and dbias (D,).

    gradient (B, L, D) is of ``conv_before_silu``.
    """
    num_blocks = tl.cdiv(channels, BLOCK_D)
    program = tl.program_id(0)
    d = ((program % num_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)).to(tl.int64)
    span = (program // num_blocks) % num_spans
    batch = (program // num_blocks // num_spans).to(tl.int64)
    in_d = d < channels
    x += batch * x_b
    gradient += batch * length * channels
    taps = tl.arange(0, BLOCK_K)
    # summed over tokens behind the loop: a sum over them in it would pass through shared memory for each tile
    sums = tl.zeros([BLOCK_K, TOKENS, BLOCK_D], TYPE)
    sums_bias = tl.zeros([TOKENS, BLOCK_D], TYPE)
    for start in tl.range(span * span_tokens, (span + 1) * span_tokens, TOKENS):
        t = start + tl.arange(0, TOKENS)
        inside = (t < length)[:, None] & in_d[None, :]
        here = t.to(tl.int64)[:, None] * channels + d[None, :]
        grad = tl.load(gradient + here, mask=inside, other=0.0)
        grad_x = tl.zeros([TOKENS, BLOCK_D], TYPE)
        sums_bias += grad
        for shift in tl.static_range(
            K
        ):  # token t was read by the outputs at `out`, and read at `source`
            out = t - shift if REVERSE else t + shift
            used = may_read(out, t, length, sequence_of)[:, None] & in_d[None, :]
            at = out.to(tl.int64)[:, None] * channels + d[None, :]
            tap = tl.load(weight + d * K + (K - 1 - shift), mask=in_d, other=0.0).to(TYPE)
            grad_x += tap[None, :] * tl.load(gradient + at, mask=used, other=0.0)
            source = t + shift if REVERSE else t - shift
            readable = may_read(source, t, length, sequence_of)[:, None] & in_d[None, :]
            at = source.to(tl.int64)[:, None] * x_l + d[None, :] * x_d
            part = grad * tl.load(x + at, mask=readable, other=0.0).to(TYPE)
            sums = tl.where((taps == K - 1 - shift)[:, None, None], sums + part[None, :, :], sums)
        tl.store(dx + batch * length * channels + here, grad_x.to(dx.dtype.element_ty), mask=inside)
    row = batch * num_spans + span
    at = (row * channels + d[None, :]) * K + taps[:, None]
    tl.store(dweight + at, tl.sum(sums, axis=1), mask=(taps < K)[:, None] & in_d[None, :])
    if dbias is not None:
        tl.store(dbias + row * channels + d, tl.sum(sums_bias, axis=0), mask=in_d)
