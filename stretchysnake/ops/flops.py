"""How many operations the kernels do, by formula: what a FLOP counter is told of each.

Symbols as in the operations: batch B, length L, channels D, state N, width K.
"""


def selective_scan_flops(batch: int, length: int, channels: int, state: int) -> int:
    """Operations of one forward scan: 9 B L D N, and B L D each for the D skip and the z gate.

    Source: state-spaces/mamba, issue 110.
    """
    return 9 * batch * length * channels * state + 2 * batch * length * channels


def selective_scan_backward_flops(batch: int, length: int, channels: int, state: int) -> int:
    """Operations of its backward: the states again, 9 B L D N, and 14 more for each on the way back.

    Those are the sums into dB, dC, dA, d(delta) and d(delta u), the adjoint's decay, and C times
    the gradient. Small terms: 12 B L D for the skip, the gate and softplus.
    """
    return 23 * batch * length * channels * state + 12 * batch * length * channels


def causal_conv_flops(batch: int, length: int, channels: int, width: int) -> int:
    """Operations of one forward convolution: 2 B L D K. SiLU's 4 B L D are left out, as is usual."""
    return 2 * batch * length * channels * width
