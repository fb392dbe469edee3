"""Decoding in processes of its own, under a wall-clock and a memory limit: what kills a decoder kills one file.

Covered: a crash (any signal or exit), a hang, and memory beyond the limit come back as a DecodeError in the place of
the result; the process is replaced and the others go on. The limit on time is for each second of video (watchdog.py),
so that a long file may take as long as it is; nothing is waited for beyond it. Playlists cannot make a process fetch
other files (decoding/video_track.py). Not covered: `num_workers=0`, which decodes in the caller's process without any
limit; memory on other systems than Linux; a decoder that an attacker's file takes over, since its process has all
rights of the user: it may read, write and connect; frames that are wrong without a sign of it.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from multiprocessing.connection import wait
from typing import Any

from stretchysnake.data.decode_error import DecodeError, error_of_file
from stretchysnake.data.processes.decoding_process import DecodingProcess, Raised
from stretchysnake.data.processes.shared_memory import ClipMemory

TIMEOUT_SECONDS = 60.0
MEMORY_GIB = 4.0
_FILES_PER_WORKER = 500  # then another process takes over: some mixes of damaged files were seen to leave memory behind
_MOMENT = 0.02  # seconds until memory in use is asked for again; at 5 ms that took 6 % of a core
_END = object()
_START_SECONDS = 120.0  # on a starved machine a fork alone was seen to take over 30 s


def check_limits(**limits: float) -> None:
    """ValueError for a limit of nothing, also where no process is there to be limited."""
    for name, value in limits.items():
        if name == "num_workers" and value < 0:
            raise ValueError(f"{name} ({value}) must be at least 0, which decodes in this process.")
        if not value > 0:
            raise ValueError(f"{name} ({value}) must be more than 0.")


class DecoderPool:
    """`num_workers` processes that each run `function(argument)`, with limits: `timeout_seconds` until the first second
    of a video is decoded, and from each second to the next; `memory_gib` more memory.

    Workers are forked where the system can, with one thread each; `function` may be a closure there. Within a
    `nursery.nursery()` none is forked from this process, unless it is a closure. The memory limit needs Linux. Use as a
    context manager: leaving it ends the processes.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        num_workers: int = 2,
        timeout_seconds: float = TIMEOUT_SECONDS,
        memory_gib: float = MEMORY_GIB,
    ):
        check_limits(
            num_workers=num_workers, timeout_seconds=timeout_seconds, memory_gib=memory_gib
        )
        methods = multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
        self._function, self._num_workers = function, num_workers
        self.timeout_seconds, self.memory_gib = timeout_seconds, memory_gib
        self._workers: list[DecodingProcess] = []

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they are at."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def map(
        self, tasks: Iterable[tuple[str, Any] | None], *, memory: ClipMemory | None = None
    ) -> Iterator[Any]:
        """Yield `function(argument)`, or a DecodeError, for each (path, argument), in order and a few ahead.

        What `function` raises is raised here, but what is the file's (`error_of_file`) is yielded. A task of None
        says that there is none yet, as while all of `memory` is in use; it is asked again after a moment. With a
        `memory`, in whose slots `function` answers, that alone limits how far ahead.
        """
        finished, yielded = {}, 0

        def room(given: int) -> bool:
            return memory is not None or given - yielded < 4 * self._num_workers

        with closing(self._answers(tasks, room, memory)) as answers:
            for number, answer in answers:
                finished[number] = answer
                while yielded in finished:
                    answer = finished.pop(yielded)
                    yielded += 1
                    if isinstance(answer, Raised):
                        raise answer.error
                    yield answer

    def stream(
        self, tasks: Iterable[tuple[str, Any] | None], *, memory: ClipMemory | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Yield (number of the task, a part of its answer) as they come; `function` returns an iterator of parts. Tasks
        of None and `memory` as in `map`.

        The parts of a task are in order, those of different tasks are not. A DecodeError is the last part of its task.
        A process waits with the next part until this one is taken, so that memory is that of a few parts.
        """
        with closing(self._answers(tasks, lambda given: True, memory)) as answers:
            for number, answer in answers:
                if isinstance(answer, Raised):
                    raise answer.error
                yield number, answer

    def _answers(
        self,
        tasks: Iterable[tuple[str, Any] | None],
        room: Callable[[int], bool],
        memory: ClipMemory | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """(number, answer or part) as they come; room(number of tasks given) says whether one more may be given."""
        tasks, given, upcoming, waiting = iter(tasks), 0, None, deque()
        exhausted = False
        try:
            while True:
                patience = None
                while not exhausted and room(given):
                    if upcoming is None:
                        upcoming = next(tasks, _END)
                    if upcoming is _END:
                        exhausted = True
                        break
                    if upcoming is None:
                        patience = _MOMENT
                        break
                    worker = self._idle_worker()
                    if worker is None:
                        break
                    worker.give(given, *upcoming, memory=memory and memory.newest)
                    given, upcoming = given + 1, None
                # only now: who has just ended a task works on while the answer is dealt with
                if waiting:
                    yield waiting.popleft()
                elif any(worker.busy for worker in self._workers):
                    waiting.extend(self._received(patience))
                elif patience:
                    time.sleep(patience)
                else:
                    return
        finally:
            for worker in [worker for worker in self._workers if worker.busy]:
                self._discard(worker)

    def _idle_worker(self) -> DecodingProcess | None:
        for worker in [worker for worker in self._workers if not worker.busy]:
            if worker.process.is_alive() and worker.num_given < _FILES_PER_WORKER:
                return worker
            self._discard(worker)  # it has done its share, or died between two files
        if len(self._workers) < self._num_workers:
            self._workers.append(self._started())
            return self._workers[-1]
        return None

    def _started(self) -> DecodingProcess:
        """A worker that said it is ready: a fork that took over a held lock is thrown away, not blamed on a file."""
        for _ in range(3):
            worker = DecodingProcess(
                self._context,
                self._function,
                memory_bytes=int(self.memory_gib * 2**30),
                timeout_seconds=self.timeout_seconds,
            )
            try:
                if worker.connection.poll(_START_SECONDS):
                    worker.connection.recv()
                    return worker
            except EOFError:
                pass
            worker.end()
        raise RuntimeError("a decoding process cannot be started; try num_workers=0.")

    def _discard(self, worker: DecodingProcess) -> int | None:
        self._workers.remove(worker)
        return worker.end()

    def _received(self, patience: float | None = None) -> Iterator[tuple[int, Any]]:
        """Wait for the next answers, signs of life, deaths or time limits, at most `patience` seconds; yield (number,
        answer)."""
        busy = {worker.connection: worker for worker in self._workers if worker.busy}
        left = min(worker.deadline for worker in busy.values()) - time.monotonic()
        left = left if patience is None else min(left, patience)
        for connection in wait(list(busy), max(0, left)):
            worker = busy.pop(connection)
            number = worker.number
            try:
                kind, answer = worker.receive()
            except (EOFError, OSError):
                worker.process.join(5)
                kind, answer = "last", self._crashed(worker.path, self._discard(worker))
            if isinstance(answer, MemoryError):
                reason = f"needs more than {self.memory_gib:g} GiB to decode; convert it or leave it out."
                answer = DecodeError("corrupt", worker.path, reason, limited=True)
                self._discard(worker)  # what it still holds is unknown
            if kind in ("part", "last"):
                yield number, answer
        now = time.monotonic()
        for worker in [worker for worker in busy.values() if worker.deadline <= now]:
            self._discard(worker)
            reason = (
                f"not one more second of it was decoded within {self.timeout_seconds:g} s; leave it out, or allow more "
                "with --timeout_seconds."
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
    memory: ClipMemory | None = None,
) -> Iterator[Any]:
    """Yield `function(argument)` or a DecodeError per task, from a pool; 0 workers: in this process, no limits.

    Tasks and `memory` as in `DecoderPool.map`; without workers there is no memory to share.
    """
    check_limits(timeout_seconds=timeout_seconds, memory_gib=memory_gib)
    if num_workers == 0:
        for path, argument in tasks:
            try:
                yield function(argument)
            except (DecodeError, OSError) as error:
                if (answer := error_of_file(path, error)) is None:
                    raise
                yield answer
        return
    with DecoderPool(
        function, num_workers=num_workers, timeout_seconds=timeout_seconds, memory_gib=memory_gib
    ) as pool:
        yield from pool.map(tasks, memory=memory)


def stream_decoding(
    function: Callable[[Any], Iterator],
    tasks: Iterable[tuple[str, Any] | None],
    *,
    num_workers: int,
    timeout_seconds: float = TIMEOUT_SECONDS,
    memory_gib: float = MEMORY_GIB,
    memory: ClipMemory | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield (number of the task, part or DecodeError) as `DecoderPool.stream` does; 0 workers: in this process."""
    check_limits(timeout_seconds=timeout_seconds, memory_gib=memory_gib)
    if num_workers == 0:
        for number, (path, argument) in enumerate(tasks):
            try:
                for part in function(argument):
                    yield number, part
            except (DecodeError, OSError) as error:
                if (answer := error_of_file(path, error)) is None:
                    raise
                yield number, answer
        return
    with DecoderPool(
        function, num_workers=num_workers, timeout_seconds=timeout_seconds, memory_gib=memory_gib
    ) as pool:
        yield from pool.stream(tasks, memory=memory)
