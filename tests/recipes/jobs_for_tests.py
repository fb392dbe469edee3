"""Jobs that side_by_side starts in processes of their own."""

import json
import os
import signal
import time
from pathlib import Path

import torch

from stretchysnake.flexibility import Scale
from stretchysnake.train.watch.meter import StepReport

REPORT = StepReport("run", 3, 9, 0.5, 1e-3, Scale(4, 16, 4), 8.0, 0.1, 2**20, seconds_left=120.0)


def write_down(folder, name, *, progress=None):
    """Leave process and threads behind."""
    progress(REPORT)
    progress(f"{name} begins")
    fields = {"pid": os.getpid(), "threads": torch.get_num_threads()}
    Path(folder, f"{name}.json").write_text(json.dumps(fields))
    print("a library prints")


def fail(*, progress=None):
    raise ValueError("steps (0) must be\nat least 1")


def die(*, progress=None):
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_stop(folder, name, *, progress=None):
    """Until asked to stop, as a training does: note the signal, leave a checkpoint."""

    def stop(number, _frame):
        Path(folder, f"{name}.stopped").write_text(str(number))
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    progress(f"{name} waits")
    while True:
        time.sleep(0.1)
