"""How the scan's work on a GPU is cut: tiles of one program, segments of the tokens, checkpoints.

Every choice follows from shapes and the number of processors alone, so a run repeats to the bit on
one kind of chip. The constants come from counts of instructions and registers, not from timings.
"""

import math
from typing import NamedTuple

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
    """Tokens between the states kept for the backward, which is also the length of its tiles."""
    return 32 if num_state <= 64 else 16


def forward_tiles(num_channels: int, num_state: int) -> Tiles:
    """16 tokens, 8192 values of (tokens, N, channels) in all, a fixed choice: results repeat to the bit."""
    tokens = 16
    channels = max(1, min(32, 8192 // (tokens * power_of_two(num_state))))
    return Tiles(tokens, min(channels, power_of_two(num_channels)), 4)


def backward_tiles(num_channels: int, num_state: int) -> Tiles:
    """One checkpoint's tokens, 8192 values in all."""
    tokens = checkpoint_tokens(num_state)
    channels = max(1, min(32, 8192 // (tokens * power_of_two(num_state))))
    return Tiles(tokens, min(channels, power_of_two(num_channels)), 8)


def plan_segments(
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


def num_checkpoints(batch: int, length: int, num_state: int, cu_seqlens: Tensor | None) -> int:
    """Rows of the buffer of checkpoints; for packed sequences a bound that needs no look at their ends."""
    tokens = checkpoint_tokens(num_state)
    if cu_seqlens is None:
        return batch * ((length + tokens - 1) // tokens)
    return length // tokens + cu_seqlens.shape[0] - 1
