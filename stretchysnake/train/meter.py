"""How a run is told while it runs: one progress line and one log line, at most two a second."""

import time
from collections.abc import Callable
from dataclasses import asdict

from stretchysnake.data.loader import Batch
from stretchysnake.train.outputs import RunLog
from stretchysnake.train.run import TrainRun
from stretchysnake.train.state import TrainState
from stretchysnake.train.step import StepOutcome

Progress = Callable[[str], None]


class Meter:
    """Call it after every step done; it decides whether to tell."""

    def __init__(self, state: TrainState, run: TrainRun, steps: int, progress: Progress | None):
        self.state, self.run, self.steps, self.progress = state, run, steps, progress
        self.started = self.shown = time.perf_counter()
        self.first_clip, self.first_step, self.waited = state.clips, state.step, 0.0

    def __call__(
        self, batch: Batch, outcome: StepOutcome, *, lr: float, waited: float, log: RunLog | None
    ) -> None:
        self.waited += waited
        now = time.perf_counter()
        if now - self.shown < 0.5 and batch.step + 1 < self.steps:
            return
        self.shown, elapsed = now, now - self.started
        recent = [value for _, value in self.state.losses[-20:]]
        loss, scale = sum(recent) / len(recent), batch.scale
        speed = (self.state.clips - self.first_clip) / elapsed
        share = self.waited / elapsed
        if log:
            log(
                "step",
                step=batch.step,
                loss=outcome.loss,
                lr=lr,
                gradient_norm=outcome.gradient_norm,
                scale=asdict(scale),
                clips_per_second=round(speed, 2),
                data_wait=round(share, 4),
            )
        if self.progress:
            left = elapsed / (self.state.step - self.first_step) * (self.steps - batch.step - 1)
            self.progress(
                f"{self.run.variant:13s} step {batch.step + 1:5d}/{self.steps} loss {loss:.3f} "
                f"T={scale.num_frames:<3d} S={scale.size:<3d} P={scale.patch_size:<2d} "
                f"{speed:5.0f} clips/s, waits {share:.0%}, {left / 60:.1f} min left"
            )
