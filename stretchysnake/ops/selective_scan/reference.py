"""The selective scan as a plain loop over tokens: the judge of every other backend.

Symbols: B batch, L tokens, D inner channels, N state size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``(y, final_state)`` of one scan, one token at a time.

    u, delta, z, y: (B, L, D); A: (D, N); B, C: (B, L, N); D, delta_bias: (D,); states: (B, D, N).
    Computes in fp64 where any input is fp64, else in fp32; y has the dtype of u.
    Source: Mamba (Gu & Dao, 2023), Algorithm 2, with the Euler step B-bar = delta * B of its code.
    """
    given = [t for t in (u, delta, A, B, C, D, z, delta_bias, initial_state) if t is not None]
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in given) else torch.float32

    delta = delta.to(dtype)
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype)
    if delta_softplus:
        delta = F.softplus(delta)
    x, A, B, C = u.to(dtype), A.to(dtype), B.to(dtype), C.to(dtype)

    num_batch, length, channels = u.shape
    state = x.new_zeros(num_batch, channels, A.shape[1])
    if initial_state is not None:
        state = initial_state.to(dtype)

    outputs: list[Tensor] = [x.new_zeros(())] * length
    for t in reversed(range(length)) if reverse else range(length):
        decay = torch.exp(delta[:, t, :, None] * A)  # (B, D, N)
        update = (delta[:, t] * x[:, t])[:, :, None] * B[:, t, None, :]  # (B, D, N)
        state = decay * state + update
        outputs[t] = (state * C[:, t, None, :]).sum(-1)  # (B, D)
    y = torch.stack(outputs, dim=1)  # (B, L, D)

    if D is not None:
        y = y + D.to(dtype) * x
    if z is not None:
        y = y * F.silu(z.to(dtype))
    return y.to(u.dtype), state
