"""Decoders are forked from a small process of their own, and are contained there as they are without it."""

import os
import signal
import subprocess
import sys
import time

import pytest
from misbehaving import behave

from stretchysnake.data.processes import decoder_pool
from stretchysnake.data.processes.decoder_pool import DecoderPool
from stretchysnake.data.processes.nursery import nursery, open_nursery


@pytest.fixture
def opened():
    with nursery():
        yield open_nursery()


def answers_of(words, **options):
    with DecoderPool(behave, **{"timeout_seconds": 1.5, "memory_gib": 1.0, **options}) as pool:
        return list(pool.map((word, word) for word in words))


def test_all_that_is_contained_without_it_is_contained_with_it(opened, monkeypatch):
    def no_fork(self):
        raise AssertionError("a process was forked from this one")

    monkeypatch.setattr("multiprocessing.context.ForkProcess.start", no_fork)
    words = ["a", "crash", "b", "exit", "bad", "balloon", "hang", "c", "parent"]
    answers = answers_of(words, num_workers=2)
    assert [answers[n] for n in (0, 2, 7)] == ["a", "b", "c"]
    assert "crashed the decoder (SIGSEGV)" in str(answers[1])
    assert "crashed the decoder (exit code 3)" in str(answers[3])
    assert answers[4].kind == "truncated" and answers[6].kind == "timeout"
    assert "needs more than 1 GiB" in str(answers[5])
    assert answers[8] == opened.pid
    with pytest.raises(ValueError, match=r"size \(0\) must be at least 1"):
        answers_of(["mistake"])


def test_a_worker_that_has_done_its_share_is_replaced_there(opened, monkeypatch):
    monkeypatch.setattr(decoder_pool, "_FILES_PER_WORKER", 2)
    assert answers_of(["parent"] * 5, num_workers=1) == [opened.pid] * 5


def test_a_closure_is_forked_from_here(opened):
    with DecoderPool(lambda _: os.getppid(), num_workers=1) as pool:
        assert list(pool.map([("a", 0)])) == [os.getpid()]


def test_a_nursery_that_was_killed_is_replaced(opened):
    before = opened.pid
    os.kill(before, signal.SIGKILL)
    (found,) = answers_of(["parent"], num_workers=1)
    assert found == opened.pid != before


def test_an_inner_block_has_the_nursery_of_the_outer_and_the_end_ends_it(opened):
    with nursery():
        assert open_nursery() is opened
    assert open_nursery() is opened


def test_its_end_ends_it_and_what_it_forked():
    with nursery():
        pool = DecoderPool(behave, num_workers=1, timeout_seconds=600)
        answers = pool.map([("a", "a"), ("x", "hang")])
        assert next(answers) == "a"
        (worker,) = pool._workers
        pids = [open_nursery().pid, worker.process.pid]
    assert open_nursery() is None
    assert worker.process.exitcode == -signal.SIGKILL
    assert not any(map(_runs, pids))
    answers.close()


ORPHANS = """
import os, signal, sys
from stretchysnake.data.processes.decoder_pool import DecoderPool
from stretchysnake.data.processes.nursery import nursery, open_nursery
import time
if __name__ == "__main__":
    with nursery():
        pool = DecoderPool(time.sleep, num_workers=2, timeout_seconds=600)
        answers = pool.map([("a", 0), ("b", 600), ("c", 600)])
        next(answers)
        print(open_nursery().pid, *(w.process.pid for w in pool._workers), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_training_leaves_no_process_behind_not_even_a_hanging_one():
    done = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 3
    limit = time.monotonic() + 120
    while (left := [pid for pid in pids if _runs(pid)]) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not left


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_beside_threads_that_a_fork_would_break_it_is_a_python_of_its_own(monkeypatch):
    """As beside LanceDB: nothing is forked from here, the environment apart nothing is inherited."""
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("this process was forked"))
    monkeypatch.setitem(sys.modules, "lance", sys)
    monkeypatch.setenv("SEEN_BY_THE_NURSERY", "yes")
    with nursery(holds_threads=("lance",)):
        kept = open_nursery().pid
        with DecoderPool(os.getenv, num_workers=1) as pool:
            assert list(pool.map([("a", "SEEN_BY_THE_NURSERY")])) == ["yes"]
    with pytest.raises(ProcessLookupError):
        os.kill(kept, 0)
