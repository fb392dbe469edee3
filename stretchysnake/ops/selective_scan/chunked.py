"""The selective scan in plain torch operations: chunk by chunk, on any device, differentiable.

Symbols: B batch, L tokens, D inner channels, N state size, T tokens of one chunk.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stretchysnake.ops.selective_scan.inputs import ScanInputs
from stretchysnake.ops.selective_scan.plain import gated, recurrence_inputs

CHUNK_SIZE = 64


def _scan_chunk(decay: Tensor, update: Tensor) -> Tensor:
    """All states h_t = decay_t * h_{t-1} + update_t, h_{-1} = 0, along dim 1 of (B, T, D, N).

    Neighbours are paired, the half-length problem is solved, and the even positions filled in
    (Blelloch, 1990). Only products of decays occur, never a quotient of them, so nothing overflows
    where exp(cumsum) / exp(cumsum) does.
    """
    length = decay.shape[1]
    if length == 1:
        return update
    even, odd = slice(0, length - length % 2, 2), slice(1, None, 2)
    pair_update = torch.addcmul(update[:, odd], decay[:, odd], update[:, even])
    at_odd = _scan_chunk(decay[:, odd] * decay[:, even], pair_update)
    after_first = torch.addcmul(update[:, 2::2], decay[:, 2::2], at_odd[:, : (length - 1) // 2])
    at_even = torch.cat([update[:, :1], after_first], dim=1)
    paired = torch.stack([at_even[:, : length // 2], at_odd], dim=2).flatten(1, 2)
    return torch.cat([paired, at_even[:, -1:]], dim=1) if length % 2 else paired


def _chunk(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, D) of one chunk and the state (B, D, N) after it."""
    decay = torch.exp(delta.unsqueeze(-1) * A)  # (B, T, D, N)
    update = (delta * x).unsqueeze(-1) * B.unsqueeze(2)  # (B, T, D, N)
    first = torch.addcmul(update[:, :1], decay[:, :1], state.unsqueeze(1))
    states = _scan_chunk(decay, torch.cat([first, update[:, 1:]], dim=1))
    y = torch.einsum("btdn,btn->btd", states, C)
    return y, states[:, -1]


def selective_scan_torch(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """Return ``(y, final_state)``; shapes and dtype rule as in ``selective_scan_reference``.

    Memory: one chunk of (B, 64, D, N) at a time; for the backward only the state at each chunk's
    start is kept and the chunk is computed again.
    """
    x, step, A, B, C, state = recurrence_inputs(inputs)
    length, reverse = x.shape[1], inputs.reverse
    recompute = torch.is_grad_enabled() and any(t.requires_grad for t in (x, step, A, B, C, state))
    outputs: list[Tensor] = []
    starts = range(0, length, CHUNK_SIZE)
    for start in reversed(starts) if reverse else starts:
        span = slice(start, min(start + CHUNK_SIZE, length))
        sequences = [t[:, span] for t in (x, step, B, C)]
        if reverse:
            sequences = [t.flip(1) for t in sequences]
        given = (*sequences[:2], A, *sequences[2:], state)
        if recompute:
            y, state = checkpoint(_chunk, *given, use_reentrant=False, preserve_rng_state=False)
        else:
            y, state = _chunk(*given)
        outputs.append(y.flip(1) if reverse else y)
    y = torch.cat(outputs[::-1] if reverse else outputs, dim=1)  # (B, L, D)
    return gated(y, x, inputs), state
