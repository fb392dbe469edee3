"""SIGTERM and Ctrl-C as a request: the step in hand ends, a checkpoint is written, the run stops."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TrainingInterrupted(Exception):
    """A run that was asked to stop, and wrote a checkpoint first; `exit_code` is 128 + the signal's number."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.exit_code = 128 + number


class StopRequest:
    """The signal that asked for a stop, or 0."""

    number = 0


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Within, the first SIGTERM or SIGINT is only noted; a second one acts as it did before.

    Outside the main thread Python allows no handler, and signals keep their meaning.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number, _frame):
        request.number = number
        restore()

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
