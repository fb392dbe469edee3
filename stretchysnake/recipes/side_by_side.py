"""Independent jobs of a recipe side by side: a process of its own for each, and a fixed number of threads.

    side_by_side({"vanilla seed 0": (train_and_measure, (run, "vanilla", 0))}, jobs=2, threads=1, logs=out / "logs")

A job is a function of a module and its arguments, called as function(*arguments, progress=...). It must keep what it
finishes on disk and go on from there, as trainings and sweeps do: nothing is returned, and the caller then walks the
same steps and finds them done.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from stretchysnake.shown import first_line

JOB_BYTES = 3 * 2**29
"""Memory that a nano training with its sweep is given: 1.0 GB resident was measured, 0.5 GB of it shared."""

_JOB = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from stretchysnake.recipes.side_by_side import one_job; sys.exit(one_job())"
)
"""The program of a job's process; the modules are found where this process finds them."""


def jobs_of_machine(threads: int) -> int:
    """How many jobs of so many threads this machine's processors and free memory are enough for; at least one."""
    from stretchysnake.eval.sweeps.available_memory import available_memory

    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    return max(1, min(cores // threads, available_memory() // JOB_BYTES))


def check_jobs(jobs: int | None, threads: int) -> None:
    """Raise ValueError for what is no number of jobs or threads."""
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs ({jobs}) must be at least 1, or null for what this machine can do")
    if threads < 1:
        raise ValueError(f"threads ({threads}) must be at least 1")


def side_by_side(
    tasks: Mapping[str, tuple[Callable, tuple]],
    *,
    jobs: int | None,
    threads: int,
    logs: Path,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Do every task, at most `jobs` at once (None: as many as the machine can), in the order given.

    With one job the tasks are done here, one after the other, on `threads` threads as well, so that no result depends
    on `jobs`. Otherwise each writes a log of its own under `logs`, and `progress` gets the last line of all that run.
    A task that fails leaves the others alone; RuntimeError names it when they have ended. Ctrl-C, and an error here,
    ask all for a stop, which a training answers with a checkpoint; killing this process does the same.
    """
    jobs = jobs_of_machine(threads) if jobs is None else jobs
    if min(jobs, len(tasks)) < 2:
        with _on_threads(threads):
            for function, arguments in tasks.values():
                function(*arguments, progress=progress)
        return
    logs.mkdir(parents=True, exist_ok=True)
    waiting, running, said = list(tasks), {}, SimpleQueue()
    lines, failed = {}, {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                running[name] = _started(name, tasks[name], threads, _log_of(logs, name), said)
            name, kind, text = said.get()
            if kind == "progress":
                lines[name] = text
                if progress:
                    progress(" | ".join(f"{n}: {lines[n]}" for n in running if n in lines))
            elif kind == "error":
                failed[name] = text
            else:
                code = _ended(running.pop(name))
                if code and name not in failed:
                    failed[name] = f"its process ended with {_ending(code)}"
    except BaseException:
        for process in running.values():
            process.terminate()  # in a session of its own, so Ctrl-C has not reached it: this is the first signal
        for process in running.values():
            _ended(process)
        raise
    if failed:
        told = "; ".join(f"{n}: {text} (log: {_log_of(logs, n)})" for n, text in failed.items())
        others = len(tasks) - len(failed)
        raise RuntimeError(
            f"{len(failed)} of {len(tasks)} jobs failed: {told}; what the other {others} finished is kept, "
            "so the same command does only what is left"
        )


def _ended(process: subprocess.Popen) -> int:
    """Wait for a job's process, and close what led to it; its exit status."""
    with process:
        return process.wait()


def _log_of(logs: Path, name: str) -> Path:
    return logs / f"{name.replace('/', '-').replace(' ', '-')}.log"


def _ending(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"status {code}"
    hint = ", as when memory runs out: try fewer --jobs" if -code == signal.SIGKILL else ""
    return f"signal {signal.Signals(-code).name}{hint}"


def _started(
    name: str, task: tuple[Callable, tuple], threads: int, log: Path, said: SimpleQueue
) -> subprocess.Popen:
    """The process of a job. Its lines and its end are put on `said` as (name, kind, text)."""
    function, arguments = task
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _JOB, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    what = pickle.dumps((function.__module__, function.__name__, threads, arguments))
    process.stdin.write(len(what).to_bytes(8, "big") + what)
    process.stdin.flush()  # and stays open: its end tells the job that this process is gone

    def read() -> None:
        with log.open("a") as file:
            for line in process.stdout:
                try:
                    kind, text = json.loads(line)
                except (ValueError, TypeError):
                    file.write(line.decode(errors="replace"))
                    continue
                file.write(f"{time.strftime('%H:%M:%S')} {text}\n")
                file.flush()
                said.put((name, kind, text))
        said.put((name, "end", ""))

    threading.Thread(target=read, daemon=True).start()
    return process


@contextmanager
def _on_threads(number: int) -> Iterator[None]:
    """Within, torch computes on so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_job() -> int:
    """What the process of a job does: read it from standard input, do it, tell of it in JSON. The exit status."""
    import importlib

    source = sys.stdin.buffer
    module, function, threads, arguments = _read_pickle(source)
    threading.Thread(target=_stop_at_end_of, args=(source.fileno(),), daemon=True).start()
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed belongs into the log
    last = 0.0

    def progress(report: object) -> None:
        nonlocal last
        now = time.monotonic()
        if isinstance(report, str) or now - last > 1:
            last = now
            text = report if isinstance(report, str) else report.short
            told.write(json.dumps(["progress", text]) + "\n")

    try:
        with _on_threads(threads):
            getattr(importlib.import_module(module), function)(*arguments, progress=progress)
    except Exception as error:
        import traceback

        traceback.print_exc()
        told.write(json.dumps(["error", f"{type(error).__name__}: {first_line(error)}"]) + "\n")
        return 1
    return 0


def _read_pickle(source):
    size = int.from_bytes(source.read(8), "big")
    return pickle.loads(source.read(size))


def _stop_at_end_of(source: int) -> None:
    """Ask this process to stop, as a person would, when the one that started it is gone."""
    # by its number: a file object's lock, held here, would stop Python from ending
    os.read(source, 1)
    os.kill(os.getpid(), signal.SIGTERM)
