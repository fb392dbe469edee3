"""Which frames of a video make a clip: pure integers, no pixels.

The video is cut into `num_frames` equal segments. Evaluation takes the centre of each segment, training one
random frame of each. A video with fewer frames than asked is never refused and never padded with black: frames
**repeat** in order (the "repeat" policy), because several segments then fall on the same frame.

| total | num_frames | `uniform_indices`        |
|-------|------------|--------------------------|
| 1     | 4          | 0 0 0 0                  |
| 3     | 8          | 0 0 0 1 1 2 2 2          |
| 5     | 8          | 0 0 1 2 2 3 4 4          |
| 8     | 8          | 0 1 2 3 4 5 6 7          |
| 10    | 4          | 1 3 6 8                  |
| 32    | 8          | 2 6 10 14 18 22 26 30    |
| 300   | 4          | 37 112 187 262           |
"""

from __future__ import annotations

import torch


def _check(total: int, num_frames: int) -> None:
    if total < 1:
        raise ValueError(f"total ({total}) must be at least 1: the video has no frame to sample.")
    if num_frames < 1:
        raise ValueError(f"num_frames ({num_frames}) must be at least 1.")


def uniform_indices(total: int, num_frames: int) -> list[int]:
    """Return the centre frame of each of `num_frames` equal segments; frames repeat when `total < num_frames`."""
    _check(total, num_frames)
    return [min(total - 1, (2 * i + 1) * total // (2 * num_frames)) for i in range(num_frames)]


def jittered_indices(total: int, num_frames: int, generator: torch.Generator) -> list[int]:
    """Return one uniformly random frame of each of `num_frames` equal segments, in order.

    A segment shorter than one frame holds exactly the frame it starts in, so short videos repeat frames as in
    `uniform_indices`.
    """
    _check(total, num_frames)
    draws = torch.rand(num_frames, generator=generator, dtype=torch.float64).tolist()
    indices = []
    for i, draw in enumerate(draws):
        first = i * total // num_frames
        last = max(first, (i + 1) * total // num_frames - 1)
        indices.append(min(last, first + int(draw * (last - first + 1))))
    return indices
