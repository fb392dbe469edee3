"""What the scans in torch operations do before and after the recurrence, chunk by chunk or exported.

Symbols: B batch, L tokens, D inner channels, N state size. The reference does the same in its own words: nothing
that is judged shares a line with its judge.
"""

import torch.nn.functional as F
from torch import Tensor

from stretchysnake.ops.precision import state_dtype
from stretchysnake.ops.selective_scan.inputs import ScanInputs


def recurrence_inputs(inputs: ScanInputs) -> tuple[Tensor, ...]:
    """x, step (B, L, D), A (D, N), B, C (B, L, N) and the first state (B, D, N), in fp32 or fp64."""
    dtype = state_dtype(*inputs.tensors)
    step = inputs.delta.to(dtype)
    if inputs.delta_bias is not None:
        step = step + inputs.delta_bias.to(dtype)
    if inputs.delta_softplus:
        step = F.softplus(step)
    x, A, B, C = (tensor.to(dtype) for tensor in (inputs.u, inputs.A, inputs.B, inputs.C))
    state = x.new_zeros(x.shape[0], x.shape[2], A.shape[1])
    if inputs.initial_state is not None:
        state = state + inputs.initial_state
    return x, step, A, B, C, state


def gated(y: Tensor, x: Tensor, inputs: ScanInputs) -> Tensor:
    """The output (B, L, D) in the dtype of u: what the states give, the skip D · x, and the gate."""
    if inputs.D is not None:
        y = y + inputs.D.to(y.dtype) * x
    if inputs.z is not None:
        y = y * F.silu(inputs.z.to(y.dtype))
    return y.to(inputs.u.dtype)
