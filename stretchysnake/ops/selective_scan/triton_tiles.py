"""How the scan's work on a GPU is cut: tiles of one program, segments of the tokens, checkpoints.

Every choice follows from shapes and the number of processors alone, so a run repeats to the bit on
one kind of chip. Tiles and segments are the quickest of those tried on an H100 (benchmarks/gpu.py, docs/log.md).
Symbols: B batch, L tokens, D inner channels, N state size, S sequences packed into one row.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

BACKWARD_LANES = 8
"""Of the 32 lanes of a warp, those of different channels in the backward; the others hold other N."""
FORWARD_WARPS, BACKWARD_WARPS = 4, 12
"""That each scheduler of the chip is offered, where tokens are cut for it."""
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
    """One warp, so that no sum leaves it: two tokens of 64 channels for N = 16, each with all its N in one thread."""
    return _tiles(num_channels, num_state, tokens=2, most=64)


def backward_tiles(num_channels: int, num_state: int) -> Tiles:
    """One warp as well, of 16 channels for N = 16: several times as many values are alive at once."""
    return _tiles(num_channels, num_state, tokens=4, most=16)


def _tiles(num_channels: int, num_state: int, *, tokens: int, most: int) -> Tiles:
    """The most channels for N up to 16, as many fewer for a larger N: a warp's registers hold so many states."""
    fitting = max(1, 16 * most // power_of_two(num_state))
    return Tiles(tokens, min(power_of_two(num_channels), most, fitting), 1)


def cut_segments(
    length: int, multiple: int, programs: int, num_warps: int, processors: int, warps_each: int
) -> tuple[int, int]:
    """(segments, tokens of each): 1 segment where `programs` give each scheduler half of `warps_each` warps.

    Else as many as give it all of them, of no fewer than 128 tokens. Cutting costs a second pass over the tokens.
    """
    full = 4 * warps_each * processors / num_warps  # a processor has 4 schedulers
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
