"""Decoding in processes of its own, under a wall-clock and a memory limit: what kills a decoder kills one file.

A file whose decoding crashes, hangs or balloons comes back as a DecodeError in the place of its result; its process is
replaced and the others go on. Nothing is waited for beyond the limit.
"""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.workers import no_fork_warning

TIMEOUT_SECONDS = 60.0
MEMORY_GIB = 4.0
_FILES_PER_WORKER = 500  # then another process takes over: some mixes of damaged files were seen to leave memory behind
_START_SECONDS = 120.0  # on a starved machine a fork alone was seen to take over 30 s


class _Raised(NamedTuple):
    """An error that is the caller's, not the file's; raised again in the caller's process."""

    error: Exception


class _Worker:
    """One process and the task it works on."""

    def __init__(self, context, function: Callable, memory_bytes: int):
        self.connection, theirs = context.Pipe()
        arguments = (theirs, function, memory_bytes, os.getpid())
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        collects = gc.isenabled()
        gc.disable()  # see _serve
        try:
            with no_fork_warning():
                self.process.start()
        finally:
            if collects:
                gc.enable()
        theirs.close()
        self.number, self.path, self.deadline = -1, "", float("inf")
        self.num_given = 0

    @property
    def busy(self) -> bool:
        return self.number >= 0

    def give(self, number: int, path: str, argument: Any, timeout_seconds: float) -> None:
        self.number, self.path = number, path
        self.num_given += 1
        self.deadline = time.monotonic() + timeout_seconds
        self.connection.send(argument)

    def end(self) -> int | None:
        """Stop the process at once; return its exit code if it had ended by itself."""
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()
        return code


class DecoderPool:
    """`num_workers` processes that each run `function(argument)` within `timeout_seconds` and `memory_gib` more memory.

    Workers are forked where the system can, with one thread each; `function` may be a closure there. The memory limit
    needs Linux. Use as a context manager: leaving it ends the processes.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        num_workers: int = 2,
        timeout_seconds: float = TIMEOUT_SECONDS,
        memory_gib: float = MEMORY_GIB,
    ):
        for name, value in (("num_workers", num_workers), ("timeout_seconds", timeout_seconds),
                            ("memory_gib", memory_gib)):  # fmt: skip
            if value <= 0:
                raise ValueError(f"{name} ({value}) must be more than 0.")
        methods = multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
        self._function, self._num_workers = function, num_workers
        self.timeout_seconds, self.memory_gib = timeout_seconds, memory_gib
        self._workers: list[_Worker] = []

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they are at."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def map(self, tasks: Iterable[tuple[str, Any]]) -> Iterator[Any]:
        """Yield `function(argument)`, or a DecodeError, for each (path, argument), in order and a few ahead.

        What `function` raises is raised here, DecodeError apart: that one is the file's and is yielded.
        """
        tasks, finished, given, yielded = iter(tasks), {}, 0, 0
        exhausted = False
        try:
            while True:
                while not exhausted and given - yielded < 4 * self._num_workers:
                    worker = self._idle_worker()
                    if worker is None:
                        break
                    task = next(tasks, None)
                    if task is None:
                        exhausted = True
                        break
                    worker.give(given, *task, self.timeout_seconds)
                    given += 1
                while yielded in finished:
                    answer = finished.pop(yielded)
                    yielded += 1
                    if isinstance(answer, _Raised):
                        raise answer.error
                    yield answer
                if exhausted and yielded == given:
                    return
                finished.update(self._answers())
        finally:
            for worker in [worker for worker in self._workers if worker.busy]:
                self._discard(worker)

    def _idle_worker(self) -> _Worker | None:
        for worker in [worker for worker in self._workers if not worker.busy]:
            if worker.process.is_alive() and worker.num_given < _FILES_PER_WORKER:
                return worker
            self._discard(worker)  # it has done its share, or died between two files
        if len(self._workers) < self._num_workers:
            self._workers.append(self._started())
            return self._workers[-1]
        return None

    def _started(self) -> _Worker:
        """A worker that said it is ready: a fork that took over a held lock is thrown away, not blamed on a file."""
        for _ in range(3):
            worker = _Worker(self._context, self._function, int(self.memory_gib * 2**30))
            try:
                if worker.connection.poll(_START_SECONDS):
                    worker.connection.recv()
                    return worker
            except EOFError:
                pass
            worker.end()
        raise RuntimeError("a decoding process cannot be started; try num_workers=0.")

    def _discard(self, worker: _Worker) -> int | None:
        self._workers.remove(worker)
        return worker.end()

    def _answers(self) -> Iterator[tuple[int, Any]]:
        """Wait for the next answers, deaths or time limits; yield (number, result)."""
        busy = {worker.connection: worker for worker in self._workers if worker.busy}
        if not busy:
            return
        left = min(worker.deadline for worker in busy.values()) - time.monotonic()
        for connection in wait(list(busy), max(0, left)):
            worker = busy.pop(connection)
            number = worker.number
            try:
                answer = connection.recv()
                worker.number, worker.deadline = -1, float("inf")
            except (EOFError, OSError):
                worker.process.join(5)
                answer = self._crashed(worker.path, self._discard(worker))
            if isinstance(answer, MemoryError):
                reason = f"needs more than {self.memory_gib:g} GiB to decode; convert it or leave it out."
                answer = DecodeError("corrupt", worker.path, reason)
                self._discard(worker)  # what it still holds is unknown
            yield number, answer
        now = time.monotonic()
        for worker in [worker for worker in busy.values() if worker.deadline <= now]:
            self._discard(worker)
            reason = (
                f"not decoded within {self.timeout_seconds:g} s; leave it out, or allow more time."
            )
            yield worker.number, DecodeError("timeout", worker.path, reason)

    @staticmethod
    def _crashed(path: str, code: int | None) -> DecodeError:
        try:
            how = signal.Signals(-code).name
        except (ValueError, TypeError):
            how = f"exit code {code}"
        return DecodeError("corrupt", path, f"it crashed the decoder ({how}); leave it out.")


def map_decoding(
    function: Callable[[Any], Any],
    tasks: Iterable[tuple[str, Any]],
    *,
    num_workers: int,
    timeout_seconds: float = TIMEOUT_SECONDS,
    memory_gib: float = MEMORY_GIB,
) -> Iterator[Any]:
    """Yield `function(argument)` or a DecodeError per task, from a pool; 0 workers: in this process, no limits."""
    if num_workers == 0:
        for _, argument in tasks:
            try:
                yield function(argument)
            except DecodeError as error:
                yield error
        return
    with DecoderPool(
        function, num_workers=num_workers, timeout_seconds=timeout_seconds, memory_gib=memory_gib
    ) as pool:
        yield from pool.map(tasks)


def _serve(connection: Connection, function: Callable, memory_bytes: int, parent: int) -> None:
    # What the parent left for the garbage collector is not ours to free: a scaler of FFmpeg, e.g., waits for its
    # threads to end, which a fork does not have.
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    faulthandler.disable()  # a crash is the parent's to report
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # the parent's thread pool does not exist in this process
    _limit_memory(memory_bytes)
    connection.send("ready")
    while True:
        while not connection.poll(2):
            if os.getppid() != parent:  # killed without a word
                return
        try:
            argument = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = function(argument)
        except DecodeError as error:
            answer = error
        except MemoryError:
            answer = MemoryError()
        except Exception as error:
            answer = _Raised(error)
        try:
            connection.send(answer)
        except MemoryError:
            connection.send(MemoryError())


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
