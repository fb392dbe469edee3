"""The causal convolution with SiLU against nn.Conv1d, and its two backends against each other."""

import pytest
import torch
import torch.nn.functional as F

from stretchysnake.ops.causal_conv.convolution import causal_conv_silu
from stretchysnake.ops.native.library import is_available

needs_native = pytest.mark.skipif(not is_available(), reason="native library not built")
backends = pytest.mark.parametrize("backend", ["torch", pytest.param("cpu", marks=needs_native)])
directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def make_inputs(length: int, channels: int, width: int, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, length, channels), (channels, width), (channels,))
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


@pytest.mark.parametrize("width", [1, 2, 4, 7], ids="K{}".format)
@pytest.mark.parametrize("channels", [1, 5, 33], ids="D{}".format)
@pytest.mark.parametrize("length", [1, 3, 20], ids="L{}".format)
@backends
def test_conv_matches_conv1d_of_the_field(backend, length, channels, width):
    x, weight, bias = make_inputs(length, channels, width)
    padded = F.conv1d(
        x.transpose(1, 2), weight.unsqueeze(1), bias, padding=width - 1, groups=channels
    )
    wanted = F.silu(padded[..., :length]).transpose(1, 2)
    found = causal_conv_silu(x, weight, bias, backend=backend)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(wanted)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, weight, bias), cotangent),
        torch.autograd.grad(wanted, (x, weight, bias), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@backends
def test_reverse_equals_flipped_conv_of_flipped_input(backend):
    x, weight, bias = make_inputs(20, 9, 4)
    found = causal_conv_silu(x, weight, bias, reverse=True, backend=backend)
    wanted = causal_conv_silu(x.flip(1), weight, bias, backend=backend).flip(1)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@directions
@backends
def test_gradients_pass_gradcheck(backend, reverse):
    inputs = make_inputs(6, 3, 4)
    assert torch.autograd.gradcheck(
        lambda *i: causal_conv_silu(*i, reverse=reverse, backend=backend), inputs, fast_mode=True
    )


@directions
@backends
def test_fp32_is_close_to_fp64(backend, reverse):
    inputs = make_inputs(50, 33, 4, torch.float32)
    found = causal_conv_silu(*inputs, reverse=reverse, backend=backend)
    wanted = causal_conv_silu(*(t.double() for t in inputs), reverse=reverse, backend="torch")
    torch.testing.assert_close(found, wanted.float(), rtol=2e-6, atol=2e-6)


@backends
def test_slice_of_a_wider_projection_gives_the_same_as_a_copy(backend):
    _, weight, bias = make_inputs(1, 9, 4)
    x = torch.randn(2, 15, 24, dtype=torch.float64)[..., 7:16]
    found = causal_conv_silu(x, weight, bias, backend=backend)
    assert torch.equal(found, causal_conv_silu(x.contiguous(), weight, bias, backend=backend))


@backends
def test_without_bias_equals_zero_bias(backend):
    x, weight, bias = make_inputs(15, 9, 4)
    found = causal_conv_silu(x, weight, None, backend=backend)
    wanted = causal_conv_silu(x, weight, torch.zeros_like(bias), backend=backend)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@backends
def test_half_precision_keeps_its_dtype(backend, dtype):
    x, weight, bias = (t.detach() for t in make_inputs(15, 9, 4, torch.float32))
    found = causal_conv_silu(x.to(dtype), weight, bias, backend=backend)
    wanted = causal_conv_silu(x.to(dtype).double(), weight, bias, backend="torch")
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted.to(dtype))


@backends
def test_empty_batch_gives_empty_output(backend):
    x, weight, bias = make_inputs(15, 9, 4)
    assert causal_conv_silu(x[:0], weight, bias, backend=backend).shape == (0, 15, 9)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, torch.zeros(2, 9), r"x \(shape \(2, 9\)\) must have 3 dimensions"),
        (1, torch.zeros(9, 1, 4), r"weight \(shape \(9, 1, 4\)\) .* fits after .squeeze\(1\)"),
        (1, torch.zeros(8, 4), r"weight \(shape \(8, 4\)\) must have shape \(D, K\) with D = 9"),
        (2, torch.zeros(1), r"bias \(shape \(1,\)\) must have shape \(D,\) = \(9,\)"),
    ],
)
def test_wrong_input_is_named_with_rule_and_way_out(index, value, message):
    inputs = make_inputs(15, 9, 4)
    inputs[index] = value
    with pytest.raises(ValueError, match=message):
        causal_conv_silu(*inputs)
