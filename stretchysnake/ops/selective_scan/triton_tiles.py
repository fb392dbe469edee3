"""How the scan's work on a GPU is cut: tiles of one program, segments of the tokens, checkpoints.

Every choice follows from shapes and the number of processors alone, so a run repeats to the bit on
one kind of chip. The constants come from counts of instructions and registers, not from timings.
Symbols: B batch, L tokens, D inner channels, N state size, S sequences packed into one row.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

PARTS_BYTES = 1 << 29  # room for the parts of dB and dC; more blocks share a part beyond it


class Tiles(NamedTuple):
    """What one program holds in registers: (tokens, N, channels), spread over its warps."""

    tokens: int
    channels: int
    num_warps: int


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


def checkpoint_tokens(num_state: int) -> int:
    """Tokens between the states kept for the backward: N / 32 sequences (B, L, D) of memory."""
    return 32


def forward_tiles(num_channels: int, num_state: int) -> Tiles:
    """8192 values of (tokens, N, channels) in 128 threads, 16 tokens of 32 channels for N = 16."""
    return _tiles(num_channels, num_state, 8192)


def backward_tiles(num_channels: int, num_state: int) -> Tiles:
    """Half as many values: several such tensors are alive at once. 8 tokens of 32 channels for N = 16."""
    return _tiles(num_channels, num_state, 4096)


def _tiles(num_channels: int, num_state: int, values: int) -> Tiles:
    wide = power_of_two(num_state)
    channels = min(32, power_of_two(num_channels))
    tokens = min(16, max(2, values // (wide * channels)))
    channels = min(channels, max(1, values // (wide * tokens)))
    return Tiles(tokens, channels, 4)


def cut_segments(
    length: int, multiple: int, programs: int, num_warps: int, processors: int
) -> tuple[int, int]:
    """(segments, tokens of each): 1 segment where `programs` give each scheduler two warps.

    Else as many as give it four, of no fewer than 128 tokens. Cutting costs a second pass over the
    tokens, so half a chip is not worth it. Unmeasured: a guess from counts of instructions.
    """
    full = 16 * processors / num_warps  # 4 schedulers, 4 warps each
    if 2 * programs >= full or programs == 0:
        return 1, max(length, 1)
    segments = min(math.ceil(full / programs), max(1, length // 128))
    tokens = math.ceil(math.ceil(length / segments) / multiple) * multiple
    return math.ceil(length / tokens), tokens


def num_groups(blocks: int, part_elements: int, dtype: torch.dtype) -> int:
    """Into how many parts of dB and of dC, of part_elements each, the blocks of channels add up."""
    groups = max(1, min(blocks, PARTS_BYTES // (2 * part_elements * dtype.itemsize)))
    return -(-blocks // -(-blocks // groups))  # no group with one block less to do than it could


def num_checkpoints(batch: int, length: int, num_state: int, cu_seqlens: Tensor | None) -> int:
    """Rows of the buffer of checkpoints; of packed sequences, cu_seqlens (S + 1,), a bound that needs no look at it."""
    tokens = checkpoint_tokens(num_state)
    if cu_seqlens is None:
        return batch * ((length + tokens - 1) // tokens)
    return length // tokens + cu_seqlens.shape[0] - 1
