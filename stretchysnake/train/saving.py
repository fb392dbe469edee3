"""When a run writes a checkpoint, and which ones it keeps."""

import time
from dataclasses import asdict
from pathlib import Path

from stretchysnake.train.checkpoint import prune
from stretchysnake.train.outputs import RunLog
from stretchysnake.train.run import TrainRun
from stretchysnake.train.runtime import Runtime
from stretchysnake.train.state import TrainState, save_state

SECONDS_BETWEEN = 60.0
LARGEST_SHARE = 0.02
"""Of the time, that saving may take when it goes by time."""


class Saver:
    """Writes checkpoints into `folder` every run.checkpoint_every steps, or by time (see there)."""

    def __init__(self, folder: Path, run: TrainRun, *, metadata: dict, key: str, log: RunLog):
        self.folder, self.run, self.metadata, self.key, self.log = folder, run, metadata, key, log
        self.last_time, self.last_took, self.last_losses = time.monotonic(), 0.0, 0

    def after_step(self, state: TrainState, *, runtime: Runtime) -> bool:
        """Save when it is time, and tell whether; never in a streak of skipped steps: it would be gone back to."""
        if runtime.is_first and not state.bad_in_a_row and self._is_due(state):
            self.save(state, runtime=runtime)
            return True
        return False

    def save(self, state: TrainState, *, runtime: Runtime) -> None:
        """Write a checkpoint now (rank 0 alone) and remove those no longer kept."""
        if not runtime.is_first:
            return
        started = time.monotonic()
        extra = {"digest": self.key, "run": asdict(self.run)}
        path = save_state(
            state, self.folder, metadata=self.metadata, extra=extra, since=self.last_losses
        )
        if path is not None:
            prune(self.folder, keep=self.run.keep_checkpoints)
            self.last_losses = len(state.losses)
        self.last_time = time.monotonic()
        self.last_took = self.last_time - started
        self.log(
            "checkpoint", step=state.step, seconds=round(self.last_took, 3), written=bool(path)
        )

    def restored(self, state: TrainState) -> None:
        """Note that the state now is that of a checkpoint."""
        self.last_time, self.last_losses = time.monotonic(), len(state.losses)

    def _is_due(self, state: TrainState) -> bool:
        if self.run.checkpoint_every:
            return state.step % self.run.checkpoint_every == 0
        wait = max(SECONDS_BETWEEN, self.last_took / LARGEST_SHARE)
        return time.monotonic() - self.last_time >= wait
