"""How a run is told while it runs: one progress line and one log line, at most two a second."""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import torch

from stretchysnake.data.clips.loader import Batch, MixedBatch, groups_of
from stretchysnake.flexibility import Scale
from stretchysnake.train.checkpoints.outputs import RunLog
from stretchysnake.train.checkpoints.state import TrainState
from stretchysnake.train.run import TrainRun
from stretchysnake.train.step import StepOutcome
from stretchysnake.train.watch.tensorboard import Board


class StepReport(NamedTuple):
    """How far a run is; as text, the line that is printed."""

    name: str
    step: int
    """Steps done, of `steps`."""
    steps: int
    loss: float
    """Mean of the last twenty."""
    lr: float
    scale: Scale
    """The largest of the step."""
    clips_per_second: float
    data_wait: float
    """Share of the time spent waiting for clips."""
    memory: int
    """Most bytes held so far, by the process or on its GPU."""
    seconds_left: float
    bad_share: float = 0.0
    """Share of the clips asked for that could not be had (bad_files.py)."""

    def __str__(self) -> str:
        s = self.scale
        return (
            f"{self.name:13s} step {self.step:5d}/{self.steps} loss {self.loss:.3f} lr {self.lr:.1e} "
            f"T={s.num_frames:<3d} S={s.size:<3d} P={s.patch_size:<2d} "
            f"{self.clips_per_second:5.0f} clips/s, waits {self.data_wait:.0%}, {self.bad_words}"
            f"{self.memory / 2**30:.1f} GiB, {self.seconds_left / 60:.1f} min left"
        )

    @property
    def short(self) -> str:
        """Where several runs share a line."""
        left = f"{self.seconds_left / 60:.1f} min left"
        return f"step {self.step}/{self.steps} loss {self.loss:.3f}, {left}"

    @property
    def bad_words(self) -> str:
        """ "1.2 % bad clips, " where there are any."""
        return f"{self.bad_share:.1%} bad clips, " if self.bad_share else ""


Progress = Callable[[str | StepReport], None]


class Meter:
    """Call it after every step done; it decides whether to tell."""

    def __init__(
        self,
        state: TrainState,
        run: TrainRun,
        steps: int,
        progress: Progress | None,
        *,
        board: Board | None = None,
    ):
        self.state, self.run, self.steps, self.progress = state, run, steps, progress
        self.board = board
        self.started = self.shown = time.perf_counter()
        self.first_clip, self.first_step, self.waited = state.clips, state.step, 0.0

    def __call__(
        self,
        batch: Batch | MixedBatch,
        outcome: StepOutcome,
        *,
        lr: float,
        waited: float,
        bad_share: float,
        log: RunLog | None,
    ) -> None:
        self.waited += waited
        now = time.perf_counter()
        if now - self.shown < 0.5 and batch.step + 1 < self.steps:
            return
        self.shown, elapsed = now, now - self.started
        recent = [value for _, value in self.state.losses[-20:]]
        speed = (self.state.clips - self.first_clip) / elapsed
        share = self.waited / elapsed
        if log:
            log(
                "step",
                step=batch.step,
                loss=outcome.loss,
                lr=lr,
                gradient_norm=outcome.gradient_norm,
                **_scales_of(batch),
                clips_per_second=round(speed, 2),
                data_wait=round(share, 4),
                bad_share=round(bad_share, 4),
            )
        if self.board:
            self.board(
                batch.step,
                scale=batch.scale,
                loss=outcome.loss,
                lr=lr,
                gradient_norm=outcome.gradient_norm,
                clips_per_second=speed,
                data_wait=share,
            )
        if self.progress:
            left = elapsed / (self.state.step - self.first_step) * (self.steps - batch.step - 1)
            report = StepReport(
                name=self.run.variant,
                step=batch.step + 1,
                steps=self.steps,
                loss=sum(recent) / len(recent),
                lr=lr,
                scale=batch.scale,
                clips_per_second=speed,
                data_wait=share,
                memory=_peak_memory(),
                seconds_left=left,
                bad_share=bad_share,
            )
            self.progress(report)


def _scales_of(batch: Batch | MixedBatch) -> dict:
    """The step's scale, or its scales, for the log."""
    groups = groups_of(batch)
    told = {}
    if any(group.video.shape[-1] != group.video.shape[-2] for group in groups):
        told["shapes"] = [list(group.video.shape[-2:]) for group in groups]
    scales = [asdict(group.scale) for group in groups]
    if told and all(scale == scales[0] for scale in scales):
        scales = scales[:1]
    return {**({"scale": scales[0]} if len(scales) == 1 else {"scales": scales}), **told}


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
