"""Memory for arrays that decoding processes write and this one reads, without a copy on the way.

It has no name: a file descriptor is handed to each process, so nothing stays in /dev/shm or anywhere however a process
ends, and no limit of a container on /dev/shm is met. A process maps the one slot it writes, so that the limit on its
memory counts one clip. A slot is free again when the last array or tensor that shows it is gone.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sized
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import NamedTuple

import numpy as np

_PAGE = mmap.ALLOCATIONGRANULARITY
_numbers = count()


def pages(num_bytes: int) -> int:
    """num_bytes rounded up to what a slot takes."""
    return -(-num_bytes // _PAGE) * _PAGE


class Slot(NamedTuple):
    """Bytes of a SharedMemory, as told to the process that writes them."""

    memory: int
    offset: int
    num_bytes: int


class SharedMemory:
    """`num_bytes` for slots that one thread takes and any thread frees."""

    def __init__(self, num_bytes: int):
        self.num_bytes, self.number = pages(num_bytes), next(_numbers)
        if hasattr(os, "memfd_create"):
            self._file = os.memfd_create("clips")
        else:
            with tempfile.TemporaryFile() as file:  # it has lost its name
                self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        os.ftruncate(self._file, self.num_bytes)
        self.map = mmap.mmap(self._file, self.num_bytes)
        # (first, behind the last), ascending, none touches another
        self._gaps = [(0, self.num_bytes)]
        self._freed: deque[Slot] = deque()  # the garbage collector may come while a slot is taken

    def take(self, num_bytes: int) -> Slot | None:
        """A slot of so many bytes; None while there is no room for it."""
        while self._freed:
            self._give_back(self._freed.popleft())
        size = pages(num_bytes)
        for place, (first, end) in enumerate(self._gaps):
            if end - first >= size:
                self._gaps[place : place + 1] = [(first + size, end)] if end - first > size else []
                return Slot(self.number, first, num_bytes)
        return None

    def free(self, slot: Slot) -> None:
        """Give back a slot that no array shows."""
        self._freed.append(slot)

    def array(self, slot: Slot, shape: tuple[int, ...]) -> np.ndarray:
        """uint8 of this shape in the slot, which is freed with the last that shows it; asked for once a slot."""
        shown = np.ndarray(shape, np.uint8, self.map, slot.offset)
        weakref.finalize(shown, self._freed.append, slot).atexit = False
        return shown

    def _give_back(self, slot: Slot) -> None:
        gap = (slot.offset, slot.offset + pages(slot.num_bytes))
        merged: list[tuple[int, int]] = []
        for first, end in sorted([*self._gaps, gap]):
            if merged and merged[-1][1] == first:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((first, end))
        self._gaps = merged

    def send(self, connection: Connection, pid: int) -> None:
        """Hand it to a process, whose `receive` is next."""
        send_handle(connection, self._file, pid)


class ClipMemory:
    """SharedMemory that is exchanged for a larger one when more is needed; arrays in the former stay until they go."""

    def __init__(self, *, prepare: Callable[[SharedMemory], None] | None = None):
        """`prepare` is called for each memory before its first use."""
        self._prepare = prepare
        self.newest = SharedMemory(_PAGE)
        self._of: dict[int, SharedMemory] = {}
        """Those of which slots are taken and not yet shown."""

    def hold(self, num_bytes: int) -> None:
        """Have room for so many bytes at once from now on."""
        if self.newest.num_bytes < num_bytes:
            self.newest = SharedMemory(num_bytes)
            if self._prepare is not None:
                self._prepare(self.newest)

    def take(self, num_bytes: int) -> Slot | None:
        slot = self.newest.take(num_bytes)
        if slot is not None:
            self._of[slot.memory] = self.newest
        return slot

    def free(self, slot: Slot) -> None:
        self._of[slot.memory].free(slot)

    def array(self, slot: Slot, shape: tuple[int, ...]) -> np.ndarray:
        # slots are shown in the order taken
        for number in [n for n in self._of if n < slot.memory]:
            del self._of[number]
        return self._of[slot.memory].array(slot, shape)


def can_share(num_workers: int) -> bool:
    """Whether so many decoding processes can write into memory of this one."""
    return num_workers > 0 and sys.platform != "win32"


class KeptClips(ClipMemory):
    """Memory for answers that are asked for ahead and then kept a while: `num_kept` of them, and four in work for each
    of `num_workers`. Who keeps more is served none the less, through a pipe."""

    def __init__(self, *, num_kept: int, num_workers: int):
        super().__init__()
        self._count, self._num_workers = num_kept + 4 * num_workers, num_workers

    def take(self, num_bytes: int) -> Slot | None:
        self.hold(self._count * pages(num_bytes))
        return super().take(num_bytes)

    def waited_for(self, num_bytes: int, in_work: Sized) -> Generator[None, None, Slot | None]:
        """A slot (`slot = yield from ...`), or None where there is none and tasks in work do not keep all processes
        busy; while they do, None is yielded: there is no task yet (`DecoderPool.map`)."""
        while (slot := self.take(num_bytes)) is None and len(in_work) >= self._num_workers:
            yield None
        return slot


_received: dict[int, int] = {}
"""Of the memory last handed to this process, the file descriptor."""


def receive(number: int, connection: Connection) -> None:
    """Take the memory of this number from the process that sends it; what is left of another is not written again."""
    while _received:
        os.close(_received.popitem()[1])
    _received[number] = recv_handle(connection)


def slot_array(slot: Slot, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 of this shape to write into, in a process that the slot's memory was handed to."""
    flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
    held = mmap.mmap(_received[slot.memory], slot.num_bytes, flags=flags, offset=slot.offset)
    return np.ndarray(shape, np.uint8, held)
