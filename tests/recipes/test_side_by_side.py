"""Jobs in processes of their own: what they do, one that fails, one that dies, Ctrl-C, and a parent that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jobs_for_tests as jobs
import pytest
import torch

import stretchysnake.recipes.side_by_side as side
from stretchysnake.recipes.quickstart import QuickstartRun, quickstart
from stretchysnake.recipes.side_by_side import jobs_of_machine, side_by_side
from stretchysnake.results.rows import read_rows


def done(folder):
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_each_job_has_a_process_and_its_threads_and_a_failing_one_leaves_the_others(tmp_path):
    said = []
    tasks = {
        "seed 0": (jobs.write_down, (tmp_path, "seed-0")),
        "bad seed 1": (jobs.fail, ()),
        "killed": (jobs.die, ()),
        "seed 1": (jobs.write_down, (tmp_path, "seed-1")),
    }
    with pytest.raises(RuntimeError, match="2 of 4 jobs failed: ") as error:
        side_by_side(tasks, jobs=2, threads=3, logs=tmp_path / "logs", progress=said.append)
    found = done(tmp_path)
    assert sorted(found) == ["seed-0", "seed-1"]
    assert len({one["pid"] for one in found.values()} | {os.getpid()}) == 3
    assert [one["threads"] for one in found.values()] == [3, 3]
    assert any("seed 0: seed-0 begins" in line for line in said)
    log = (tmp_path / "logs" / "seed-1.log").read_text()
    assert "step 3/9 loss 0.500, 2.0 min left" in log
    assert "seed-1 begins" in log
    assert "a library prints" in log
    text = str(error.value)
    assert "bad seed 1: ValueError: steps (0) must be (log: " in text
    assert (
        "killed: its process ended with signal SIGKILL, as when memory runs out: try fewer --jobs"
        in text
    )
    assert "what the other 2 finished is kept" in text
    assert "Traceback" in (tmp_path / "logs" / "bad-seed-1.log").read_text()


def test_one_job_at_once_stays_here_on_the_same_threads(tmp_path):
    before = torch.get_num_threads()
    tasks = {name: (jobs.write_down, (tmp_path, name)) for name in ("a", "b")}
    side_by_side(tasks, jobs=1, threads=before + 2, logs=tmp_path / "logs", progress=print)
    assert {(one["pid"], one["threads"]) for one in done(tmp_path).values()} == {
        (os.getpid(), before + 2)
    }
    assert torch.get_num_threads() == before
    assert not (tmp_path / "logs").exists()


def test_ctrl_c_asks_each_job_once_and_waits(tmp_path):
    tasks = {name: (jobs.wait_for_stop, (tmp_path, name)) for name in ("a", "b")}
    waiting = set()

    def interrupt(line):
        waiting.update(name for name in ("a", "b") if f"{name} waits" in line)
        if len(waiting) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side(tasks, jobs=2, threads=1, logs=tmp_path / "logs", progress=interrupt)
    assert [(tmp_path / f"{n}.stopped").read_text() for n in ("a", "b")] == ["15", "15"]


@pytest.mark.slow
def test_killing_the_parent_stops_the_jobs(tmp_path):
    code = (
        "import sys; from pathlib import Path; import jobs_for_tests as jobs\n"
        "from stretchysnake.recipes.side_by_side import side_by_side\n"
        "f = Path(sys.argv[1])\n"
        "say = lambda line: (f / 'both').touch() if line.count('waits') == 2 else None\n"
        "side_by_side({n: (jobs.wait_for_stop, (f, n)) for n in 'ab'}, jobs=2, threads=1, logs=f, progress=say)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    wait_for(tmp_path / "both")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(tmp_path / "a.stopped")
    wait_for(tmp_path / "b.stopped")


def wait_for(path: Path, seconds: float = 120):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.1)


def test_the_machine_decides_how_many(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(
        "stretchysnake.eval.sweeps.available_memory.available_memory",
        lambda: 5 * side.JOB_BYTES + 1,
    )
    assert [jobs_of_machine(threads) for threads in (1, 2, 3, 16)] == [5, 4, 2, 1]


@pytest.mark.slow
def test_two_jobs_give_the_rows_and_weights_of_one(tmp_path):
    alone = QuickstartRun(
        out=str(tmp_path / "alone"), data=str(tmp_path / "videos"), steps=3, batch_size=4,
        suites=("short",), frames=(4, 8), sizes=(16, 32), source_clips=40, gallery_clips=24, query_clips=24,
        jobs=1,
    )  # fmt: skip
    beside = replace(alone, out=str(tmp_path / "beside"), jobs=2)
    assert quickstart(alone)[1] == quickstart(beside)[1]
    rows = [
        sorted(
            (
                replace(row, created="", milliseconds=None)
                for row in read_rows(f"{run.out}/rows.jsonl")
            ),
            key=repr,
        )
        for run in (alone, beside)
    ]
    assert rows[0] == rows[1]
    assert {row.threads for row in rows[0]} == {1}
    assert all(row.weights for row in rows[0])  # their hash: the trainings ended alike, bit for bit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jobs": 0}, r"jobs \(0\) must be at least 1, or null for what this machine can do"),
        ({"threads": 0}, r"threads \(0\) must be at least 1"),
    ],
)
def test_bad_numbers(changes, message):
    with pytest.raises(ValueError, match=message):
        QuickstartRun(**changes)
