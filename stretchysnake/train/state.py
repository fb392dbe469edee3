"""Everything a run changes while it trains, and its way into a checkpoint and back, bit for bit.

Random numbers need no place in it: the scale, the samples, their augmentation and drop path depend on (seed, step)
and the place of a clip in it, so any step can be drawn again at any time.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from stretchysnake.models.videomamba import VideoMamba
from stretchysnake.train.checkpoint import (
    SLICES,
    TRAINING,
    WEIGHTS,
    CheckpointDamaged,
    read_state,
    read_tensors,
    write_checkpoint,
)
from stretchysnake.train.loss_scale import FIRST_SCALE
from stretchysnake.train.optim import build_optimizer
from stretchysnake.train.run import TrainRun
from stretchysnake.train.runtime import SINGLE, Runtime
from stretchysnake.train.sharding import (
    is_sharded,
    load_slices,
    local,
    save_slices,
    shared_out_like,
    stored_slices,
    whole,
)

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
COUNTS = {
    "step": int, "clips": int, "tokens": int, "rollbacks": int, "bad_in_a_row": int,
    "seconds": float, "lr_factor": float, "loss_scale": float, "loss_scale_age": int,
}  # fmt: skip


@dataclass(kw_only=True)
class TrainState:
    """A run after `step` steps (done or skipped)."""

    model: VideoMamba
    optimizer: torch.optim.AdamW
    average: dict[str, Tensor] | None
    """Moving average of the weights, by name; None when it is off."""
    step: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss) of every step done."""
    clips: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Training time, over all sittings."""
    lr_factor: float = 1.0
    rollbacks: int = 0
    bad_in_a_row: int = 0
    loss_scale: float = 1.0
    """Factor on the loss in the backward pass (fp16); see loss_scale.py."""
    loss_scale_age: int = 0
    """Steps done since it changed."""


def new_state(model: VideoMamba, run: TrainRun, *, runtime: Runtime = SINGLE) -> TrainState:
    """The state before the first step; freezes what the run does not train, compiles and slices as the run says."""
    if run.trainable == "head":
        if model.config.num_classes == 0:
            raise ValueError("trainable (head) needs a head; model.num_classes must be more than 0")
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    if run.compile:
        for block in model.layers:
            block.compile(dynamic=True)
    runtime.share_out(model, next(model.parameters()).device, parallel=run.parallel)
    average = None
    if run.ema_decay:
        average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return TrainState(
        model=model,
        optimizer=build_optimizer(model, run.optim),
        average=average,
        loss_scale=FIRST_SCALE if run.precision == "fp16" else 1.0,
    )


def whole_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The whole of each tensor, on the CPU; all ranks must ask together."""
    return {name: whole(tensor).detach().cpu() for name, tensor in weights.items()}


def plain_model(state: TrainState) -> VideoMamba:
    """The model to look into: itself, or a whole and uncompiled copy where it is sliced or compiled (all ranks ask)."""
    model = state.model
    compiled = any(block._compiled_call_impl is not None for block in model.layers)
    if not (is_sharded(model) or compiled):
        return model
    first = next(model.parameters())
    with torch.random.fork_rng(devices=[]):
        copy = VideoMamba(model.config).to(first.device, first.dtype).train(model.training)
    copy.load_state_dict(whole_weights(model.state_dict()))
    for parameter, own in zip(copy.parameters(), model.parameters(), strict=True):
        parameter.grad = None if own.grad is None else whole(own.grad)
    return copy


@torch.no_grad()
def update_average(state: TrainState, decay: float) -> None:
    """Move the average towards the weights; early on faster, by (1 + n) / (10 + n) after n steps, as is usual."""
    if state.average is None:
        return
    done = len(state.losses)
    decay = min(decay, (1 + done) / (10 + done))
    current = state.model.state_dict()
    torch._foreach_lerp_(
        list(state.average.values()), [current[name] for name in state.average], 1 - decay
    )


def save_state(
    state: TrainState,
    folder: Path,
    *,
    metadata: dict,
    extra: dict,
    since: int,
    runtime: Runtime = SINGLE,
) -> Path | None:
    """Write the state as a checkpoint; None, and nothing written, when a weight is not finite.

    Rank 0 writes, and every rank its slices where there are any; all ranks call. `since` is the number of losses at
    the checkpoint before; the mean of the later ones ranks this checkpoint.
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
    recent = [value for _, value in state.losses[since:]]
    counts = {name: getattr(state, name) for name in COUNTS}
    mean_loss = sum(recent) / len(recent) if recent else None
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
            state={**extra, **counts, "mean_loss": mean_loss},
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


@torch.no_grad()
def restore_state(state: TrainState, path: Path) -> None:
    """Set the state to what a verified checkpoint holds; CheckpointDamaged, and nothing changed, if it does not fit.

    A checkpoint of sliced weights serves a run of whole ones and the other way round, over any number of ranks.
    """
    weights, training, counts = (
        read_tensors(path, WEIGHTS),
        read_tensors(path, TRAINING),
        {"loss_scale": 1.0, "loss_scale_age": 0, **read_state(path)},  # older ones have none
    )
    own = state.model.state_dict()
    _check(path, WEIGHTS, weights, own)
    series = {name: training.pop(name, torch.empty(0)) for name in ("losses.step", "losses.value")}
    steps, values = series["losses.step"], series["losses.value"]
    if steps.dtype != torch.int64 or values.dtype != torch.float64 or steps.shape != values.shape:
        raise CheckpointDamaged(f"checkpoint {path.name}: the loss series has no valid form")
    trained = {n: p for n, p in state.model.named_parameters() if p.requires_grad}
    wanted = {f"average.{name}": own[name] for name in state.average or {}}
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
        found = counts.get(name)
        if isinstance(found, bool) or not isinstance(found, kind | int) or not 0 <= found < 2**62:
            raise CheckpointDamaged(
                f"checkpoint {path.name}: {name} ({found!r}) in state.json is not valid"
            )

    for name, tensor in own.items():
        tensor.copy_(shared_out_like(weights[name], tensor))
    for name in state.average or {}:
        state.average[name].copy_(training[f"average.{name}"])
    state.optimizer.state.clear()
    for name, parameter in trained.items():
        if f"optimizer.{name}.step" in training:
            state.optimizer.state[parameter] = {
                moment: training[f"optimizer.{name}.{moment}"] for moment in MOMENTS
            }
    state.losses = list(zip(steps.tolist(), values.tolist(), strict=True))
    for name, kind in COUNTS.items():
        setattr(state, name, kind(counts[name]))


def _read_slices(path: Path, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sliced tensors of a checkpoint, in the form of those wanted."""
    try:
        stored = stored_slices(path / SLICES)
        _check_forms(path, SLICES, stored, wanted)
        found = {name: torch.empty_like(pattern) for name, pattern in wanted.items()}
        load_slices(found, path / SLICES)
    except CheckpointDamaged:
        raise
    except Exception as error:  # whatever a file made on purpose sets off in there
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointDamaged(
            f"checkpoint {path.name}: {SLICES} cannot be read ({reason[0][:200]})"
        ) from None
    _check_finite(path, SLICES, found)
    return found


def _check(path: Path, file: str, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    forms = {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()}
    _check_forms(path, file, forms, wanted)
    _check_finite(path, file, found)


def _check_forms(path: Path, file: str, found: dict, wanted: dict[str, Tensor]) -> None:
    """`found` holds shape and type by name."""
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is unexpected" for name in found if name not in wanted]
    for name in found.keys() & wanted.keys():
        (shape, dtype), pattern = found[name], wanted[name]
        if (shape, dtype) != (pattern.shape, pattern.dtype):
            problems.append(
                f"{name} is {dtype} {tuple(shape)}, expected {pattern.dtype} {tuple(pattern.shape)}"
            )
    _refuse(path, file, problems)


def _check_finite(path: Path, file: str, found: dict[str, Tensor]) -> None:
    bad = [name for name, tensor in found.items() if not local(tensor).isfinite().all()]
    _refuse(path, file, [f"{name} holds non-finite values" for name in bad])


def _refuse(path: Path, file: str, problems: list[str]) -> None:
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointDamaged(f"checkpoint {path.name}: {file}: {'; '.join(problems[:3])}{more}")
