"""A process forked while this one is small, which forks all decoders from then on.

    with nursery():          # before CUDA, process groups and the model
        ...                  # pools of decoder_pool.py start and replace their processes there

A fork stops every thread of the process it is made from, 25 ms for each GiB it holds, and is unsafe once CUDA or
InfiniBand are in use. Within the block none is made from here: what a process is to do goes to the nursery as a pickle,
its end of the connection as a file descriptor. What cannot be pickled (a closure) is forked from here as without it.
Covered: the death of this process, of any kind, ends the nursery and all it forked, hanging or not; a nursery that was
killed is replaced; threads of others that do not live through a fork (LanceDB's), beside which it is a Python of its
own. Not covered: systems without fork.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle
from typing import NoReturn

from stretchysnake.data.processes.workers import forking, keep_garbage


class ForkedProcess:
    """A process of the nursery, with what `multiprocessing.Process` tells and does."""

    def __init__(self, pid: int, ended: Connection):
        self.pid, self._ended, self._code = pid, ended, None

    @property
    def exitcode(self) -> int | None:
        """None while it runs; the negative of a signal that ended it."""
        self.join(0)
        return self._code

    def is_alive(self) -> bool:
        return self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        if self._code is None and self._ended.poll(timeout):
            try:
                self._code = self._ended.recv()
            except EOFError:  # the nursery was killed, and it goes with it
                self._code = -signal.SIGKILL

    def kill(self) -> None:
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        self._ended.close()


class Nursery:
    """The process and the line to it; `start` may be called from any thread."""

    def __init__(self, *, fresh: bool = False):
        """`fresh`: a Python of its own (a second or two), where this process has threads that a fork would break."""
        self._lock, self._fresh = threading.Lock(), fresh
        self._open()

    def _open(self) -> None:
        self._line, theirs = Pipe()
        self._python = _python(theirs) if self._fresh else None
        if self._python is not None:
            self.pid = self._python.pid
        else:
            self.pid = _forked(lambda: _keep(theirs), closing=[self._line])
        theirs.close()

    def start(
        self, target: Callable, connection: Connection, arguments: tuple
    ) -> ForkedProcess | None:
        """Fork a process that runs target(connection, *arguments); None where these cannot be pickled."""
        try:
            task = pickle.dumps((target, arguments))
        except (pickle.PicklingError, AttributeError, TypeError):
            return None
        ended, theirs = Pipe(duplex=False)
        with self._lock:
            try:
                pid = self._ask(task, connection, theirs)
            except (EOFError, OSError):  # it was killed
                self._end()
                self._open()
                pid = self._ask(task, connection, theirs)
        theirs.close()
        return ForkedProcess(pid, ended)

    def _ask(self, task: bytes, *handles: Connection) -> int:
        self._line.send_bytes(task)
        for handle in handles:
            send_handle(self._line, handle.fileno(), self.pid)
        return self._line.recv()

    def _end(self) -> None:
        self._line.close()
        if self._python is not None:
            self._python.wait()
            return
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def close(self) -> None:
        """End it and all processes it forked."""
        with self._lock:
            self._end()


LANCEDB = ("lance", "lancedb")
"""Modules that start threads, which no fork has: what may come behind them opens `nursery(holds_threads=LANCEDB)`."""

_nursery: Nursery | None = None
_owner = 0
"""The process that opened it: one forked from that has none of its own."""


def open_nursery() -> Nursery | None:
    """The nursery in whose block we are."""
    return _nursery if _owner == os.getpid() else None


@contextmanager
def nursery(*, holds_threads: Sequence[str] = ()) -> Iterator[None]:
    """Within, decoders are forked by a process forked here; within another such block it is that one's.

    Where one of the modules `holds_threads` is imported already, that process is a Python of its own.
    """
    global _nursery, _owner
    if open_nursery() is not None or not hasattr(os, "fork"):
        yield
        return
    opened = Nursery(fresh=any(name in sys.modules for name in holds_threads))
    _nursery, _owner = opened, os.getpid()
    try:
        yield
    finally:
        if _owner == os.getpid():
            _nursery = None
            opened.close()


def _forked(run: Callable[[], None], *, closing: list[Connection] = ()) -> int:
    """The id of a process forked from this one that does `run` and nothing else."""
    with forking():
        pid = os.fork()
        if not pid:
            for connection in closing:
                connection.close()
            _run(run)
    return pid


def _python(line: Connection) -> subprocess.Popen:
    """A Python that keeps the nursery at this end of a line, and has nothing else of this process's."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from {__name__} import _keep_alone; _keep_alone({line.fileno()})"
    )
    return subprocess.Popen([sys.executable, "-c", code], pass_fds=[line.fileno()])


def _keep_alone(descriptor: int) -> NoReturn:
    os.set_inheritable(descriptor, False)
    _run(lambda: _keep(Connection(descriptor)))


def _run(run: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        keep_garbage()
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _keep(line: Connection) -> None:
    """Fork what is asked for, tell of each how it ended, until the other end of the line is closed."""
    # a terminal and a scheduler signal the whole group; the process that trains ends us when it is done
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    woken, waker = os.pipe()
    for end in (woken, waker):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    running: dict[int, Connection] = {}
    while True:
        ready = wait([line, woken])
        if woken in ready:
            os.read(woken, 4096)
            _tell_ended(running)
        if line not in ready:
            continue
        try:
            task = line.recv_bytes()
            connection, ended = (Connection(recv_handle(line)) for _ in range(2))
        except (EOFError, OSError):
            break

        def run(task=task, connection=connection):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            target, arguments = pickle.loads(task)
            target(connection, *arguments)

        pid = _forked(run, closing=[line])
        connection.close()
        running[pid] = ended
        line.send(pid)
    for pid in running:
        os.kill(pid, signal.SIGKILL)  # ours until it is waited for
        os.waitpid(pid, 0)


def _tell_ended(running: dict[int, Connection]) -> None:
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with suppress(OSError), running.pop(pid) as told:
                told.send(os.waitstatus_to_exitcode(status))
