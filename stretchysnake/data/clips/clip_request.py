"""What is asked of a source of clips, and under which limits it decodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from stretchysnake.data.processes.decoder_pool import MEMORY_GIB, TIMEOUT_SECONDS
from stretchysnake.flexibility import Scale


class ClipRequest(NamedTuple):
    """One clip asked for: which record, at which scale, and the seed of its draw (None: the evaluation clip)."""

    index: int
    scale: Scale
    seed: int | None = None

    @property
    def generator(self) -> torch.Generator | None:
        return None if self.seed is None else torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """How decoding is done and contained."""

    num_workers: int = 2
    """Processes that decode, one thread each; 0 decodes in this process, without the limits below."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Wall-clock time for each second of video on the way to a clip; a file that takes longer is a `timeout`."""
    memory_gib: float = MEMORY_GIB
    """Memory that decoding one clip may take; a file that needs more is left out."""


IN_THIS_PROCESS = DecodingLimits(num_workers=0)
