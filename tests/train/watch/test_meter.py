"""What is told of a run: the loss of the last twenty steps, speed and time left; the final loss of a result."""

import time

import pytest
import torch
from tiny_run import SCALE, state_of, tiny_run

from stretchysnake.data.clips.loader import Batch
from stretchysnake.train.checkpoints.outputs import TrainResult
from stretchysnake.train.step import StepOutcome
from stretchysnake.train.watch import meter


def test_report_is_of_the_last_twenty_steps_and_of_the_clock(monkeypatch):
    clock, told = [100.0], []
    monkeypatch.setattr(meter.time, "perf_counter", lambda: clock[0])
    run = tiny_run(depth=1, precision="fp32")
    state = state_of(run)
    state.step, state.clips = 10, 50  # of an earlier sitting
    measure = meter.Meter(state, run, 100, told.append)
    state.losses = [(step, 9.0) for step in range(20)] + [(step, 2.0) for step in range(20, 40)]
    state.step, state.clips = 40, 110
    clock[0] += 15.0
    batch = Batch(39, SCALE, torch.zeros(0), torch.zeros(0))
    measure(batch, StepOutcome(2.0, 1.0, 4), lr=0.1, waited=3.0, log=None, bad_share=0.25)
    (report,) = told
    assert (report.step, report.steps, report.loss, report.lr) == (40, 100, 2.0, 0.1)
    assert (report.clips_per_second, report.data_wait) == (60 / 15, 3 / 15)
    assert report.seconds_left == pytest.approx(60 * 15 / 30)
    assert "loss 2.000" in str(report) and "0.5 min left" in str(report)
    assert report.bad_share == 0.25 and "25.0% bad clips" in str(report)
    clock[0] += 0.1
    measure(batch, StepOutcome(2.0, 1.0, 4), lr=0.1, waited=0.0, log=None, bad_share=0.0)
    assert len(told) == 1 and time.perf_counter() == clock[0]  # at most two a second


def test_final_loss_is_the_mean_of_the_last_twentieth():
    losses = [(step, float(step)) for step in range(100)]
    assert TrainResult("w", losses, 1.0, 1, 1).final_loss == 97.0
    assert TrainResult("w", losses[:3], 1.0, 1, 1).final_loss == 2.0
