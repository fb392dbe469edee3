"""The selective scan as exported programs hold it: a loop over chunks whose number need not be known.

Symbols: B batch, L tokens, D inner channels, N state size, T tokens of one chunk.

A Python loop over chunks would fix L while tracing. torch's `scan` operator stays a loop: torch.export keeps it with a
symbolic length, and ONNX has a node for it, `Scan`. Slower than the other backends; it is for programs
that run without this package.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Private in torch 2.13, there is no public name yet; tests/models/test_exporting.py pins what we need of it.
from torch._higher_order_ops.scan import scan

from stretchysnake.ops.selective_scan.inputs import ScanInputs
from stretchysnake.ops.selective_scan.plain import gated, recurrence_inputs

CHUNK_SIZE = 16


def _step(
    state: Tensor, chunk: tuple[Tensor, Tensor, Tensor, Tensor], A: Tensor
) -> tuple[Tensor, Tensor]:
    """The state (B, D, N) after one chunk, and its outputs (B, T, D).

    Sums over 1, 2, 4, ... tokens (Hillis and Steele, 1986): twice the work of pairing, in half the operations, and
    those are what tracing takes its time for. Only products of decays occur, so nothing overflows.
    """
    x, delta, B, C = chunk
    decay = torch.exp(delta.unsqueeze(-1) * A)  # (B, T, D, N)
    states = (delta * x).unsqueeze(-1) * B.unsqueeze(2)  # (B, T, D, N)
    reach = 1
    while reach < CHUNK_SIZE:
        shift = (0, 0, 0, 0, reach, 0)
        states = torch.addcmul(states, decay, F.pad(states[:, :-reach], shift))
        decay = decay * F.pad(decay[:, :-reach], shift, value=1.0)
        reach *= 2
    states = torch.addcmul(states, decay, state.unsqueeze(1))
    y = torch.einsum("btdn,btn->btd", states, C)
    # scan wants the carry laid out as the first one and sharing memory with nothing
    return states[:, -1].clone(memory_format=torch.contiguous_format), y


def selective_scan_exported(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """Return ``(y, final_state)``; shapes and dtype rule as in ``selective_scan_reference``.

    The last chunk is filled up with tokens of step 0, which leave the state as it is. For inference: no
    checkpointing.
    """
    x, step, A, B, C, state = recurrence_inputs(inputs)
    num_batch, length, channels = x.shape
    # Two more than needed: with one chunk, or none of padding, tracing would take that case for a fact.
    num_chunks = length // CHUNK_SIZE + 2
    padding = num_chunks * CHUNK_SIZE - length

    def in_chunks(sequence: Tensor) -> Tensor:
        sequence = F.pad(sequence.flip(1) if inputs.reverse else sequence, (0, 0, 0, padding))
        width = sequence.shape[2]
        return sequence.reshape(num_batch, num_chunks, CHUNK_SIZE, width).transpose(0, 1)

    chunks = tuple(in_chunks(t).contiguous() for t in (x, step, B, C))
    state, y = scan(lambda state, chunk: _step(state, chunk, A), state, chunks)
    y = y.transpose(0, 1).reshape(num_batch, num_chunks * CHUNK_SIZE, channels)[:, :length]
    return gated(y.flip(1) if inputs.reverse else y, x, inputs), state
