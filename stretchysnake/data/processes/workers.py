"""Processes for work on files of our own: render, encode. One thread each.

Covered: a process that dies is an error in the caller, not a hang. Not covered: limits of time and memory, and which
task it was: files of others are decoded under decoder_pool.py.
"""

from __future__ import annotations

import gc
import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def forking() -> Iterator[None]:
    """Around a fork whose child calls `keep_garbage` first: until then nothing is collected in it.

    Python 3.12 warns of any fork beside a thread, torch's own among them; ours use no lock of theirs.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if collects:
            gc.enable()


def keep_garbage() -> None:
    """In a forked process: never free what its parent left for the garbage collector.

    A scaler or decoder of FFmpeg among it would wait for its threads to end, which a fork does not have, forever.
    """
    gc.freeze()
    gc.enable()


def map_in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, num_workers: int
) -> Iterator[Result]:
    """Yield `function(task)` in the order of the tasks; with fewer than two workers or tasks, in this process."""
    if min(num_workers, len(tasks)) < 2:
        yield from map(function, tasks)
        return
    # fork starts at once and needs no `if __name__ == "__main__"`; the work uses no torch operation, whose
    # thread pool would not survive it
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    pool = ProcessPoolExecutor(
        num_workers, mp_context=multiprocessing.get_context(method), initializer=keep_garbage
    )
    try:
        with forking():
            results = pool.map(function, tasks)  # here it forks
        yield from results
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process died (out of memory, or a crash in the decoder); try num_workers=1."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
