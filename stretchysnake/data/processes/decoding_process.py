"""One process that decodes: it runs a function on what it is given, and answers whole, in parts, or with an error.

Covered: its address space is limited (Linux), it has one thread, Ctrl-C is left to the parent, and it ends within
seconds of the parent's death, between two tasks or at its next word. Not covered: files, network, processor time, disk
and child processes, which are not limited; a parent killed while the decoder hangs leaves it hanging, unless a nursery
(nursery.py) forked it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from stretchysnake.data.decode_error import DecodeError, error_of_file
from stretchysnake.data.processes import shared_memory, watchdog
from stretchysnake.data.processes.nursery import open_nursery
from stretchysnake.data.processes.shared_memory import SharedMemory
from stretchysnake.data.processes.workers import forking, keep_garbage


class Raised(NamedTuple):
    """An error that is the caller's, not the file's; raised again in the caller's process."""

    error: Exception


class Message(NamedTuple):
    """What a process says: `kind` is "ready", "alive", "part", "last" (the last answer), or "end" (no more of them)."""

    kind: str
    answer: Any = None


class MemoryFollows(NamedTuple):
    """Said to a process in the place of a task: the shared memory of this number comes behind it."""

    number: int


class DecodingProcess:
    """One process and the task it works on; it is late when `timeout_seconds` pass without a word.

    The open nursery forks it, or this process where there is none or `function` is a closure.
    """

    def __init__(
        self, context, function: Callable, *, memory_bytes: int, timeout_seconds: float
    ) -> None:
        self.connection, theirs = context.Pipe()
        self.timeout_seconds = timeout_seconds
        arguments = (function, memory_bytes, min(1.0, timeout_seconds / 4))
        nursery = open_nursery()
        started = nursery and nursery.start(_serve, theirs, arguments)
        self.process = started or _forked_here(context, (theirs, *arguments))
        theirs.close()
        self.number, self.path, self.deadline = -1, "", float("inf")
        self.num_given = 0
        self._memory = -1

    @property
    def busy(self) -> bool:
        return self.number >= 0

    def give(self, number: int, path: str, argument: Any, *, memory: SharedMemory | None) -> None:
        """Hand it a task, and before the first the memory in whose slots it may answer."""
        self.number, self.path = number, path
        self.num_given += 1
        self.deadline = time.monotonic() + self.timeout_seconds
        if memory is not None and memory.number != self._memory:
            self._memory = memory.number
            self.connection.send(MemoryFollows(memory.number))
            memory.send(self.connection, self.process.pid)
        self.connection.send((path, argument))

    def receive(self) -> Message:
        """The next message; EOFError or OSError where the process has died."""
        message = self.connection.recv()
        self.deadline = time.monotonic() + self.timeout_seconds
        if message.kind in ("last", "end"):
            self.number, self.deadline = -1, float("inf")
        return message

    def end(self) -> int | None:
        """Stop the process at once; return its exit code if it had ended by itself."""
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()
        return code


def _forked_here(context, arguments: tuple):
    process = context.Process(target=_serve, args=arguments, daemon=True)
    with forking():
        process.start()
    return process


def _serve(connection: Connection, function: Callable, memory_bytes: int, every: float) -> None:
    parent = os.getppid()
    keep_garbage()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    faulthandler.disable()  # a crash is the parent's to report
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # the parent's thread pool does not exist in this process
    _limit_memory(memory_bytes)
    watchdog.tell(_at_most_every(every, lambda: connection.send(Message("alive"))))
    connection.send(Message("ready"))
    while True:
        while not connection.poll(2):
            if os.getppid() != parent:  # killed without a word
                return
        try:
            task = connection.recv()
            if isinstance(task, MemoryFollows):
                shared_memory.receive(task.number, connection)
                continue
        except (EOFError, OSError):
            return
        try:
            for message in _messages(function, *task):
                connection.send(message)
        except MemoryError:
            connection.send(Message("last", MemoryError()))
        except BrokenPipeError:  # the parent was killed while we decoded
            return


def _messages(function: Callable, path: str, argument: Any) -> Iterator[Message]:
    """The answer, or one by one the parts that a generator makes.

    A part goes out when the next one is there, so that the last one can say so, and the next task come at once.
    """
    held: list = []
    try:
        answer = function(argument)
        for part in answer if isinstance(answer, Iterator) else [answer]:
            if held:
                yield Message("part", held.pop())
            held.append(part)
        yield Message("last", held.pop()) if held else Message("end")
    except (DecodeError, OSError) as error:
        if held:
            yield Message("part", held.pop())
        yield Message("last", error_of_file(path, error) or Raised(error))
    except MemoryError:
        yield Message("last", MemoryError())
    except Exception as error:
        yield Message("last", Raised(error))


def _at_most_every(seconds: float, function: Callable[[], None]) -> Callable[[], None]:
    """`function`, passed over when it was called less than so many seconds ago: a full pipe would hold us up."""
    called = time.monotonic()

    def call() -> None:
        nonlocal called
        if (now := time.monotonic()) - called >= seconds:
            called = now
            function()

    return call


def _limit_memory(more_bytes: int) -> None:
    """Let this process take `more_bytes` of address space beyond what it has; only Linux keeps to it."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = held + more_bytes if hard < 0 else min(held + more_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (ImportError, OSError, ValueError):
        pass
