"""Batches on a GPU: the bytes of those ahead are copied there while the one before is computed on.

Untested on a GPU (docs/log.md): what it does there beside copying is asked of torch alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stretchysnake.data.clips.loading.batch import Batch, MixedBatch, groups_of, with_videos
from stretchysnake.data.processes.shared_memory import SharedMemory


class Copied(NamedTuple):
    """A batch on its way to a GPU."""

    there: Batch | MixedBatch
    here: Batch | MixedBatch
    """What is copied: kept, and its memory counted as in use, until the copy is done and taken."""
    done: torch.cuda.Event


def copied(batches: Iterable[Batch | MixedBatch], device: torch.device) -> Iterator[Copied]:
    """Start to copy each batch on a stream of its own; for the thread that makes batches."""
    stream = torch.cuda.Stream(device)

    def move(frames: Tensor) -> Tensor:
        return frames.to(device, non_blocking=True)

    for batch in batches:
        with torch.cuda.stream(stream):
            there = with_videos(batch, lambda video: video.moved(move))
            done = torch.cuda.Event()
            done.record()
        yield Copied(there, batch, done)


def taken(batches: Iterable[Copied]) -> Iterator[Batch | MixedBatch]:
    """Yield each batch for the current stream to use; for the thread that computes."""
    for there, _, done in batches:
        stream = torch.cuda.current_stream()
        stream.wait_event(done)
        for group in groups_of(there):
            for clip in group.video.clips:
                clip.frames.record_stream(stream)
        yield there
        done.synchronize()


def lock_pages(memory: SharedMemory) -> None:
    """Keep the memory in place, so that a GPU reads it by itself; where that fails, copies are slower."""
    address = np.frombuffer(memory.map, np.uint8).ctypes.data
    if int(torch.cuda.cudart().cudaHostRegister(address, memory.num_bytes, 0)) == 0:
        weakref.finalize(memory, _unlock, address, memory.map).atexit = False


def _unlock(address: int, _map) -> None:
    """The mapping stays until here."""
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaHostUnregister(address)
