"""Items made ahead of their use, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class Gone(Exception):
    """Raised by who makes items when nobody takes them any more."""


class Consumer:
    """What who makes items may know of who takes them."""

    def __init__(self):
        self.waits, self.is_gone = threading.Event(), threading.Event()


def made_ahead(
    items: Callable[[], Iterable[Item]], count: int, *, consumer: Consumer | None = None
) -> Iterator[Item]:
    """Yield the items, `count` of them made ahead by a thread that ends with the consumer; errors arrive in turn.

    `consumer` is told while it is at it.
    """
    consumer = consumer or Consumer()
    if count < 1:
        consumer.waits.set()
        yield from items()
        return
    ready: queue.Queue = queue.Queue(maxsize=count)
    stop = consumer.is_gone

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
                consumer.waits.set()
                item, error = ready.get()
                consumer.waits.clear()
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
