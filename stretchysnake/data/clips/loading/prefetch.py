"""Items made ahead of their use, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def made_ahead(
    items: Callable[[], Iterable[Item]], count: int, *, wanted: threading.Event | None = None
) -> Iterator[Item]:
    """Yield the items, `count` of them made ahead by a thread that ends with the consumer; errors arrive in turn.

    `wanted` is set while the consumer waits for one.
    """
    wanted = wanted or threading.Event()
    if count < 1:
        wanted.set()
        yield from items()
        return
    ready: queue.Queue = queue.Queue(maxsize=count)
    stop = threading.Event()

    def put(entry) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for item in items():
                if not put((item, None)):
                    return
                del item  # it is the consumer's now, who may let go of it while the next is made
            put((None, None))
        except BaseException as error:  # handed over, raised in the consumer's thread
            put((None, error))

    thread = threading.Thread(target=fill, name="clips-ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item, error = ready.get_nowait()
            except queue.Empty:
                wanted.set()
                item, error = ready.get()
                wanted.clear()
            if error is not None:
                raise error
            if item is None:
                return
            held = [item]
            del item
            yield held.pop()
    finally:
        stop.set()
        thread.join()
