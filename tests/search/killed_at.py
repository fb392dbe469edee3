"""An act in a process of its own that is killed at a given write, and what a folder then holds."""

import gc
import json
import os
import shutil
import signal
from pathlib import Path

import torch

from stretchysnake.search import journal


def bytes_of(folder):
    """Name -> content of every file, to any depth."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def in_a_child_killed_at(point, act):
    """Run act() in a forked child that is killed at the point-th write; True when it came to its end."""
    pid = os.fork()
    if pid == 0:
        gc.freeze()  # garbage of before is not this process's to free: a decoder would wait for threads no fork has
        torch.set_num_threads(1)
        left = [point]

        def counted(function):
            def call(*arguments, **options):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        for owner, name in (
            (os, "fsync"), (os, "replace"), (os, "unlink"), (journal.Journal, "add"), (json, "dumps"),
            (journal, "digest"), (shutil, "rmtree"),
        ):  # fmt: skip
            setattr(owner, name, counted(getattr(owner, name)))
        try:
            act()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)
