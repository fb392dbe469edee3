"""When a run writes its state as a checkpoint, how, and which checkpoints it keeps."""

import time
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from stretchysnake.ranks import SINGLE, Runtime
from stretchysnake.train.checkpoints.checkpoint import CheckpointNotWritten, prune, write_checkpoint
from stretchysnake.train.checkpoints.outputs import RunLog
from stretchysnake.train.checkpoints.sharding import is_sharded, save_slices
from stretchysnake.train.checkpoints.state import COUNTS, MOMENTS, TrainState, whole_weights
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


def save_state(
    state: TrainState, folder: Path, *, metadata: dict, extra: dict, runtime: Runtime = SINGLE
) -> Path | None:
    """Write the state as a checkpoint; None, and nothing written, when a weight is not finite.

    Rank 0 writes, and every rank its slices where there are any; all ranks call.
    """
    weights, tensors, steps = _held(state)
    sliced = is_sharded(state.model)
    if sliced:
        weights = whole_weights(weights)
    if not runtime.is_first:
        if sliced:
            _save_slices_along(tensors, runtime)
        return None
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        if sliced:
            runtime.from_first("")
        return None
    training = steps if sliced else {**steps, **tensors}
    training["losses.step"] = torch.tensor([step for step, _ in state.losses], dtype=torch.int64)
    training["losses.value"] = torch.tensor([v for _, v in state.losses], dtype=torch.float64)
    counts = {name: getattr(state, name) for name in COUNTS}
    bad_files = [file for file in state.bad_files.values() if file.outlook == "out"]
    told = False

    def write_slices(path: Path) -> None:
        nonlocal told
        told = True
        runtime.from_first(str(path))
        save_slices(tensors, path)

    try:
        return write_checkpoint(
            folder,
            state.step,
            weights=weights,
            config=state.model.config,
            metadata=metadata,
            training=training,
            state={**extra, **counts, "bad_files": bad_files, "held_out": state.held_out},
            write_slices=write_slices if sliced else None,
        )
    finally:
        if sliced and not told:
            runtime.from_first("")


def _held(state: TrainState) -> tuple[dict, dict, dict]:
    """Weights; moments and average by their names in a checkpoint; and the optimiser's step counts."""
    tensors, steps = {}, {}
    for name, parameter in state.model.named_parameters():
        if parameter in state.optimizer.state:
            held = state.optimizer.state[parameter]
            steps[f"optimizer.{name}.step"] = held["step"]
            for moment in MOMENTS[1:]:
                tensors[f"optimizer.{name}.{moment}"] = held[moment]
    for name, tensor in (state.average or {}).items():
        tensors[f"average.{name}"] = tensor
    return state.model.state_dict(), tensors, steps


def _save_slices_along(tensors: dict[str, Tensor], runtime: Runtime) -> None:
    """On the other ranks: write the slices where rank 0 says; rank 0 reports what fails."""
    folder = runtime.from_first(None)
    if folder:
        with suppress(OSError):
            save_slices(tensors, Path(folder))
