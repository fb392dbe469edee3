"""When a run writes a checkpoint, and which ones it keeps."""

import time
from pathlib import Path

from stretchysnake.ranks import Runtime
from stretchysnake.train.checkpoints.checkpoint import CheckpointNotWritten, prune
from stretchysnake.train.checkpoints.outputs import RunLog
from stretchysnake.train.checkpoints.sharding import is_sharded
from stretchysnake.train.checkpoints.state import TrainState, save_state
from stretchysnake.train.run import TrainRun

SECONDS_BETWEEN = 60.0
LARGEST_SHARE = 0.02
"""Of the time, that saving may take when it goes by time."""


class Saver:
    """Writes checkpoints into `folder` every run.checkpoint_every steps, or by time (see there)."""

    def __init__(self, folder: Path, run: TrainRun, *, metadata: dict, key: str, log: RunLog):
        self.folder, self.run, self.metadata, self.key, self.log = folder, run, metadata, key, log
        self.last_time, self.last_took = time.monotonic(), 0.0

    def is_due(self, step: int) -> bool:
        """Whether it is time for a checkpoint after this many steps."""
        if self.run.checkpoint_every:
            return step % self.run.checkpoint_every == 0
        wait = max(SECONDS_BETWEEN, self.last_took / LARGEST_SHARE)
        return time.monotonic() - self.last_time >= wait

    def save(self, state: TrainState, *, runtime: Runtime) -> None:
        """Write a checkpoint now and remove those no longer kept; all ranks call, rank 0 does it.

        CheckpointNotWritten on every rank when it could not be written.
        """
        started, path, trouble = time.monotonic(), None, None
        try:
            path = save_state(
                state,
                self.folder,
                metadata=self.metadata,
                extra={"digest": self.key, "run": self.run.to_dict()},
                runtime=runtime,
            )
        except CheckpointNotWritten as error:
            trouble = str(error)
        if is_sharded(state.model):
            trouble = runtime.from_first(trouble)
        if trouble:
            raise CheckpointNotWritten(trouble)
        runtime.meet()  # however long rank 0 wrote alone
        if not runtime.is_first:
            return
        if path is not None:
            prune(self.folder, keep=self.run.keep_checkpoints)
        self.last_time = time.monotonic()
        self.last_took = self.last_time - started
        self.log(
            "checkpoint", step=state.step, seconds=round(self.last_took, 3), written=bool(path)
        )

    def restored(self) -> None:
        """Note that the state now is that of a checkpoint."""
        self.last_time = time.monotonic()
