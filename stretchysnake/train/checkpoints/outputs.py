"""What a run writes beside its checkpoints: itself as started, its log, the files whose presence means "finished"."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from stretchysnake.data.records import VideoRecord
from stretchysnake.models.weights.files import save_weights
from stretchysnake.models.weights.published.reference import is_by_name
from stretchysnake.results.rows import environment
from stretchysnake.train.checkpoints.data_stamp import (
    Stamps,
    data_stamp,
    read_stamp,
    with_missing_files,
    write_stamp,
)
from stretchysnake.train.checkpoints.state import TrainState
from stretchysnake.train.run import TrainRun
from stretchysnake.whole_file import write_whole

PLACES = ("data", "weights", "cache", "out")
"""Fields that are paths: what they hold counts, not where it lies."""


@dataclass(frozen=True)
class TrainResult:
    """What a run did; losses is one (step, loss) per step done."""

    weights: str
    losses: list[tuple[int, float]]
    seconds: float
    clips: int
    tokens: int

    @property
    def final_loss(self) -> float:
        """Mean loss of the last twentieth of the steps."""
        tail = [loss for _, loss in self.losses[-max(1, len(self.losses) // 20) :]]
        return sum(tail) / len(tail)


def write_started(
    out: Path,
    run: TrainRun,
    key: str,
    records: Sequence[VideoRecord],
    *,
    stamps: Stamps | None = None,
) -> None:
    """Write started.json, the resolved run from which `train --resume` begins, and what its data is."""
    started = {"run": placed(run), "digest": key, "environment": environment()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        now = data_stamp(records, stamps=stamps)
        write_stamp(out, with_missing_files(now, read_stamp(out)))
        write_whole(out / "started.json", json.dumps(started, indent=1))
    except OSError as error:
        raise ValueError(
            f"out ({out}) must be a folder that can be written: {error.strerror}; choose another"
        ) from None


def placed(run: TrainRun) -> dict:
    """The run's values with absolute paths, so that it can be resumed from any folder; a name of weights stays one."""
    return {
        name: os.path.abspath(value)
        if name in PLACES and value is not None and not is_by_name(value)
        else value
        for name, value in run.to_dict().items()
    }


def started_run(
    out: Path, *, data: str | None = None, weights: str | None = None, cache: str | None = None
) -> TrainRun:
    """The run that was started in `out`, as it was; ValueError where there is none.

    data, weights and cache say where these lie today, where they were moved. Relative paths, of earlier versions,
    start at the folder the run was started in, where the place of `out` shows it.
    """
    try:
        values = dict(json.loads((out / "started.json").read_text())["run"])
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"resume ({out}) must be the folder of a started training: started.json is not in it"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"resume ({out}): started.json is damaged ({error})") from None
    began = _started_in(values.get("out"), out)
    for name, given in (("data", data), ("weights", weights), ("cache", cache)):
        if given is not None:
            values[name] = given
        elif isinstance(values.get(name), str) and (began / values[name]).exists():
            values[name] = str(began / values[name])  # an absolute one stays
    # The folder may have been moved since.
    run = TrainRun.from_dict({**values, "out": str(out)})
    for name in ("data", "weights"):
        path = getattr(run, name)
        if path is not None and not os.path.exists(path) and not is_by_name(path):
            raise ValueError(
                f"resume ({out}): its {name} ({path}) are not there; say where they are: "
                f"stretchysnake train --resume {out} --{name} PATH"
            )
    return run


def _started_in(written: object, out: Path) -> Path:
    """The folder in which a relative `out` means this very folder; the current one where none does."""
    whole = Path(os.path.abspath(out))
    if isinstance(written, str):
        parts = Path(os.path.normpath(written)).parts
        if not os.path.isabs(written) and whole.parts[-len(parts) :] == parts:
            return whole.parents[len(parts) - 1]
    return Path()


def finished_run(out: Path, key: str) -> TrainResult | None:
    """The result of the finished run of this key (identity.key_in) in `out`; None when there is none."""
    if not (out / "run.json").is_file():
        return None
    try:
        written = json.loads((out / "run.json").read_text())
        losses = [tuple(json.loads(line)) for line in (out / "loss.jsonl").read_text().splitlines()]
        digest, result = written["digest"], written["result"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(
            f"out ({out}) holds a damaged run ({error}); remove it or choose another"
        ) from None
    assert digest == key, "key_in has compared them"
    if not (out / "weights.safetensors").is_file():
        return None
    return TrainResult(str(out / "weights.safetensors"), losses, **result)


def result_of(out: Path, state: TrainState) -> TrainResult:
    """What the run in `out` did."""
    return TrainResult(
        str(out / "weights.safetensors"), state.losses, state.seconds, state.clips, state.tokens
    )


def write_finished(
    out: Path,
    run: TrainRun,
    key: str,
    state: TrainState,
    *,
    metadata: dict,
    weights: dict[str, Tensor],
    average: dict[str, Tensor] | None,
    data: dict,
) -> TrainResult:
    """Write the weights, the loss series and, last, run.json with `data` (what was read) inside; returns the result."""
    result = result_of(out, state)
    write_whole(out / "loss.jsonl", "".join(json.dumps(pair) + "\n" for pair in state.losses))
    config = state.model.config
    if average is not None:
        path = out / "weights_ema.safetensors"
        save_weights(path, average, config, **metadata, ema_decay=run.ema_decay)
    save_weights(result.weights, weights, config, **metadata)
    written = {
        "run": placed(run),
        "digest": key,
        **data,
        "result": {"seconds": state.seconds, "clips": state.clips, "tokens": state.tokens},
        "environment": environment(),
        "threads": torch.get_num_threads(),
    }
    write_whole(
        out / "run.json", json.dumps(written, indent=1)
    )  # last: its presence means "finished"
    return result


def weights_metadata(run: TrainRun, key: str, classes: Sequence[str]) -> dict:
    """What every weights file of a run says about itself; `classes` names the head's outputs, in order.

    `fit` stands there where it is not "square", so that other files have the bytes that they always had.
    """
    return {
        **({} if run.fit == "square" else {"fit": run.fit}),
        "variant": run.variant,
        "sets": asdict(run.sets),
        "seed": run.seed,
        "digest": key,
        "classes": list(classes),
    }


class RunLog:
    """log.jsonl: what happened, one JSON object a line, appended. Steps done twice after a kill are there twice."""

    def __init__(self, path: Path | None):
        self.path = path

    def __call__(self, event: str, **values) -> None:
        if self.path is not None:
            line = {"event": event, **values, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            with open(self.path, "a") as file:
                file.write(json.dumps(line) + "\n")
