"""What a run writes beside its checkpoints: who it is, its log, and the files whose presence means "finished"."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from stretchysnake.models.checkpoints import save_weights
from stretchysnake.results import environment
from stretchysnake.train.checkpoint import checkpoints_in, sha256_of
from stretchysnake.train.run import TrainRun
from stretchysnake.train.state import TrainState
from stretchysnake.whole_file import write_whole


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


def run_key(run: TrainRun, records: list) -> str:
    """The run's digest and a hash of its records (and of the file it starts from): equal keys, equal training."""
    listed = json.dumps([(record.path, record.label) for record in records])
    key = f"{run.digest()}-{hashlib.sha256(listed.encode()).hexdigest()[:8]}"
    if run.weights is None:
        return key
    if not Path(run.weights).is_file():
        raise ValueError(
            f"weights ({run.weights}) must be an existing file, or null to start from scratch"
        )
    return f"{key}-{sha256_of(Path(run.weights))[:8]}"


def finished_run(out: Path, key: str) -> TrainResult | None:
    """The result of the finished run of this key in `out`; None when there is no finished run.

    ValueError when `out` holds another run, finished or with checkpoints: neither is ever overwritten.
    """
    if not (out / "run.json").is_file():
        _refuse_another_unfinished(out, key)
        return None
    try:
        written = json.loads((out / "run.json").read_text())
        losses = [tuple(json.loads(line)) for line in (out / "loss.jsonl").read_text().splitlines()]
        found, result = written["digest"], written["result"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(
            f"out ({out}) holds a damaged run ({error}); remove it or choose another"
        ) from None
    if found != key:
        raise ValueError(
            f"out ({out}) already holds another finished run (digest {found}, this one is {key}); "
            "choose another folder"
        )
    if not (out / "weights.safetensors").is_file():
        return None
    return TrainResult(str(out / "weights.safetensors"), losses, **result)


def _refuse_another_unfinished(out: Path, key: str) -> None:
    if not checkpoints_in(out / "checkpoints"):
        return
    try:
        found = json.loads((out / "started.json").read_text())["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        found = "unknown"
    if found != key:
        raise ValueError(
            f"out ({out}) holds an unfinished run with other settings or data (digest {found}, this one is {key}); "
            f"finish it with `stretchysnake train --resume {out}`, or choose another folder"
        )


def write_started(out: Path, run: TrainRun, key: str) -> None:
    """Write started.json: the resolved run, from which `train --resume` begins."""
    started = {"run": asdict(run), "digest": key, "environment": environment()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "started.json", json.dumps(started, indent=1))
    except OSError as error:
        raise ValueError(
            f"out ({out}) must be a folder that can be written: {error.strerror}; choose another"
        ) from None


def started_run(out: Path) -> TrainRun:
    """The run that was started in `out`, as it was; ValueError where there is none."""
    try:
        values = json.loads((out / "started.json").read_text())["run"]
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"resume ({out}) must be the folder of a started training: started.json is not in it"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"resume ({out}): started.json is damaged ({error})") from None
    # The folder may have been moved since.
    return TrainRun.from_dict({**values, "out": str(out)})


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
    weights: dict[str, Tensor],
    average: dict[str, Tensor] | None,
    data: dict,
) -> TrainResult:
    """Write the weights, the loss series and, last, run.json with `data` (what was read) inside; returns the result."""
    result = result_of(out, state)
    write_whole(out / "loss.jsonl", "".join(json.dumps(pair) + "\n" for pair in state.losses))
    metadata, config = weights_metadata(run, key), state.model.config
    if average is not None:
        path = out / "weights_ema.safetensors"
        save_weights(path, average, config, **metadata, ema_decay=run.ema_decay)
    save_weights(result.weights, weights, config, **metadata)
    written = {
        "run": asdict(run),
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


def weights_metadata(run: TrainRun, key: str) -> dict:
    """What every weights file of a run says about itself."""
    return {"variant": run.variant, "sets": asdict(run.sets), "seed": run.seed, "digest": key}


class RunLog:
    """log.jsonl: what happened, one JSON object a line, appended. Steps done twice after a kill are there twice."""

    def __init__(self, path: Path | None):
        self.path = path

    def __call__(self, event: str, **values) -> None:
        if self.path is not None:
            line = {"event": event, **values, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            with open(self.path, "a") as file:
                file.write(json.dumps(line) + "\n")
