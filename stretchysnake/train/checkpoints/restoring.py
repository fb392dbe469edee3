"""From a checkpoint back to the state of a run: at its start, and when it has to go back.

A checkpoint is believed only when every byte is as written (checkpoint.py) and every tensor and number fits.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from stretchysnake.data.clips.bad_clips import bad_file_of, changed_since, pass_over
from stretchysnake.data.clips.loader import Clips
from stretchysnake.ranks import Runtime
from stretchysnake.shown import first_line
from stretchysnake.train.checkpoints.checkpoint import (
    SLICES,
    TRAINING,
    WEIGHTS,
    newest_good,
    read_state,
    read_tensors,
)
from stretchysnake.train.checkpoints.saving import Saver
from stretchysnake.train.checkpoints.sharding import (
    load_slices,
    local,
    shared_out_like,
    stored_slices,
)
from stretchysnake.train.checkpoints.state import COUNTS, MOMENTS, HeldOutScore, TrainState
from stretchysnake.train.run import TrainRun
from stretchysnake.whole_file import Damaged

ABSENT_IN_OLDER = {
    "loss_scale": 1.0, "loss_scale_age": 0, "replaced": 0, "left_out": 0, "bad_files": [], "held_out": [],
}  # fmt: skip
"""What checkpoints of earlier versions do not hold, as it was in those runs."""


def restore_first(
    state: TrainState, saver: Saver, run: TrainRun, clips: Clips, *, runtime: Runtime
) -> None:
    """Go on from the newest good checkpoint, where there is one: its state, and the files it knows to be bad.

    A file that has changed since it was found bad (size or time) is tried again; rank 0 decides.
    """
    path = restore_newest(state, saver, run, runtime=runtime)
    if path is None:
        return
    changed = [file.index for file in changed_since(clips, state.bad_files.values())]
    for index in json.loads(runtime.from_first(json.dumps(changed))):
        file = state.bad_files.pop(index)
        runtime.say(f"{file.path}: has changed since it was found bad; it is tried again")
    pass_over(clips, state.bad_files.values())
    if state.bad_files:
        runtime.say(f"{len(state.bad_files)} files known to be bad are not tried again")
    holes = run.cache is None or clips.bad.quarantine
    if "bad_files" not in read_state(path) and holes:
        runtime.say(
            f"{path.name} is of an earlier version, whose order of clips followed the files that could be read when "
            f"the training was started; unless these were all {len(clips)} listed ones, other clips are drawn from "
            "here on"
        )


def restore_newest(
    state: TrainState, saver: Saver, run: TrainRun, *, runtime: Runtime
) -> Path | None:
    """Set the state to the newest good checkpoint and return its path; None where there is none."""
    path = None
    if runtime.is_first:
        path = newest_good(saver.folder, on_damaged=run.on_damaged, say=runtime.say)
    name = runtime.from_first(path.name if path else None)
    if name is None:
        return None
    if (digest := read_state(saver.folder / name).get("digest")) != saver.key:
        raise ValueError(
            f"checkpoint {name} in {saver.folder} is of another run (digest {digest}, this one is {saver.key}); "
            "choose another folder"
        )
    restore_state(state, saver.folder / name)
    saver.restored()
    runtime.say(f"going on from {saver.folder / name}, step {state.step}")
    saver.log("resumed", step=state.step)
    return saver.folder / name


def go_back(
    state: TrainState, saver: Saver | None, run: TrainRun, trouble: str, *, runtime: Runtime
) -> None:
    """Back to the newest good checkpoint with a lower learning rate; RuntimeError where the run must end instead."""
    config, factor, rollbacks = run.non_finite, state.lr_factor, state.rollbacks
    ending = (
        f"{config.patience} steps in a row were not finite; the last: {trouble}. "
        "Try a lower optim.lr or precision fp32, or look at the files named"
    )
    if config.then == "stop" or saver is None:
        raise RuntimeError(ending)
    if rollbacks >= config.max_rollbacks:
        raise RuntimeError(f"{ending} (went back {rollbacks} times, non_finite.max_rollbacks)")
    if restore_newest(state, saver, run, runtime=runtime) is None:
        raise RuntimeError(f"{ending} (there is no checkpoint yet to go back to)")
    state.lr_factor, state.rollbacks = factor * config.lr_factor, rollbacks + 1
    state.bad_in_a_row = 0
    runtime.say(f"learning rate times {state.lr_factor:g} from here on")
    saver.log("rollback", step=state.step, lr_factor=state.lr_factor)


@torch.no_grad()
def restore_state(state: TrainState, path: Path) -> None:
    """Set the state to what a verified checkpoint holds; Damaged, and nothing changed, if it does not fit.

    A checkpoint of sliced weights serves a run of whole ones and the other way round, over any number of ranks.
    """
    weights, training, counts = (
        read_tensors(path, WEIGHTS),
        read_tensors(path, TRAINING),
        {**ABSENT_IN_OLDER, **read_state(path)},
    )
    current = state.model.state_dict()
    _check(path, WEIGHTS, weights, current)
    series = {name: training.pop(name, torch.empty(0)) for name in ("losses.step", "losses.value")}
    steps, values = series["losses.step"], series["losses.value"]
    if steps.dtype != torch.int64 or values.dtype != torch.float64 or steps.shape != values.shape:
        raise Damaged(f"checkpoint {path.name}: the loss series has no valid form")
    trained = {n: p for n, p in state.model.named_parameters() if p.requires_grad}
    wanted = {f"average.{name}": current[name] for name in state.average or {}}
    if any(name.startswith("optimizer.") for name in training):
        for name, parameter in trained.items():
            wanted[f"optimizer.{name}.step"] = torch.zeros(())
            wanted[f"optimizer.{name}.exp_avg"] = wanted[f"optimizer.{name}.exp_avg_sq"] = parameter
    if (path / SLICES).is_dir():
        held = {name: t for name, t in wanted.items() if not name.endswith(".step")}
        _check(path, TRAINING, training, {n: t for n, t in wanted.items() if n not in held})
        training |= _read_slices(path, held)
    else:
        _check(path, TRAINING, training, wanted)
        training = {
            name: shared_out_like(tensor, wanted[name]) for name, tensor in training.items()
        }
    for name, kind in COUNTS.items():
        count = counts.get(name)
        if isinstance(count, bool) or not isinstance(count, kind | int) or not 0 <= count < 2**62:
            raise Damaged(f"checkpoint {path.name}: {name} ({count!r}) in state.json is not valid")
    try:
        bad_files = [bad_file_of(values) for values in counts["bad_files"]]
        held_out = [HeldOutScore.of(values) for values in counts["held_out"]]
    except (TypeError, ValueError) as error:
        raise Damaged(f"checkpoint {path.name}: state.json: {error}") from None

    for name, tensor in current.items():
        tensor.copy_(shared_out_like(weights[name], tensor))
    for name in state.average or {}:
        state.average[name].copy_(training[f"average.{name}"])
    state.optimizer.state.clear()
    for name, parameter in trained.items():
        if f"optimizer.{name}.step" in training:
            state.optimizer.state[parameter] = {
                moment: training[f"optimizer.{name}.{moment}"] for moment in MOMENTS
            }
    # what was found bad after this checkpoint stays known
    state.bad_files = {file.index: file for file in bad_files} | state.bad_files
    state.held_out = held_out
    state.losses = list(zip(steps.tolist(), values.tolist(), strict=True))
    for name, kind in COUNTS.items():
        setattr(state, name, kind(counts[name]))


def _read_slices(path: Path, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sliced tensors of a checkpoint, in the form of those wanted."""
    try:
        stored = stored_slices(path / SLICES)
        _check_forms(path, SLICES, stored, wanted)
        tensors = {name: torch.empty_like(pattern) for name, pattern in wanted.items()}
        load_slices(tensors, path / SLICES)
    except Damaged:
        raise
    except Exception as error:  # whatever a file made on purpose sets off in there
        raise Damaged(
            f"checkpoint {path.name}: {SLICES} cannot be read ({first_line(error, 200)})"
        ) from None
    _check_finite(path, SLICES, tensors)
    return tensors


def _check(path: Path, file: str, tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    forms = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    _check_forms(path, file, forms, wanted)
    _check_finite(path, file, tensors)


def _check_forms(path: Path, file: str, forms: dict, wanted: dict[str, Tensor]) -> None:
    """`forms` holds shape and type by name."""
    problems = [f"{name} is missing" for name in wanted if name not in forms]
    problems += [f"{name} is unexpected" for name in forms if name not in wanted]
    for name in forms.keys() & wanted.keys():
        (shape, dtype), pattern = forms[name], wanted[name]
        if (shape, dtype) != (pattern.shape, pattern.dtype):
            problems.append(
                f"{name} is {dtype} {tuple(shape)}, expected {pattern.dtype} {tuple(pattern.shape)}"
            )
    _refuse(path, file, problems)


def _check_finite(path: Path, file: str, tensors: dict[str, Tensor]) -> None:
    bad = [name for name, tensor in tensors.items() if not local(tensor).isfinite().all()]
    _refuse(path, file, [f"{name} holds non-finite values" for name in bad])


def _refuse(path: Path, file: str, problems: list[str]) -> None:
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise Damaged(f"checkpoint {path.name}: {file}: {'; '.join(problems[:3])}{more}")
