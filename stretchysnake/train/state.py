"""Everything a run changes while it trains, and its way into a checkpoint and back, bit for bit.

Random numbers need no place in it: the scale, the samples, their augmentation and the model's own draws (drop path)
depend on (seed, step), the last also on the rank, so any step can be drawn again at any time.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from stretchysnake.models.videomamba import VideoMamba
from stretchysnake.train.checkpoint import (
    TRAINING,
    WEIGHTS,
    CheckpointDamaged,
    read_state,
    read_tensors,
    write_checkpoint,
)
from stretchysnake.train.optim import build_optimizer
from stretchysnake.train.run import TrainRun

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
COUNTS = {
    "step": int, "clips": int, "tokens": int, "rollbacks": int, "bad_in_a_row": int,
    "seconds": float, "lr_factor": float,
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


def new_state(model: VideoMamba, run: TrainRun) -> TrainState:
    """The state before the first step; freezes what the run does not train."""
    if run.trainable == "head":
        if model.config.num_classes == 0:
            raise ValueError("trainable (head) needs a head; model.num_classes must be more than 0")
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    average = None
    if run.ema_decay:
        average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return TrainState(model=model, optimizer=build_optimizer(model, run.optim), average=average)


def draw_again(seed: int, step: int, rank: int) -> None:
    """Set torch's generators to what they are at this step on this rank."""
    torch.manual_seed(random.Random(f"{seed}/{step}/{rank}").getrandbits(63))


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
    state: TrainState, folder: Path, *, metadata: dict, extra: dict, since: int
) -> Path | None:
    """Write the state as a checkpoint; None, and nothing written, when a weight is not finite.

    `since` is the number of losses at the checkpoint before; the mean of the later ones ranks this checkpoint.
    """
    if not all(tensor.isfinite().all() for tensor in state.model.state_dict().values()):
        return None
    training = {
        f"optimizer.{name}.{moment}": state.optimizer.state[parameter][moment]
        for name, parameter in state.model.named_parameters()
        if parameter in state.optimizer.state
        for moment in MOMENTS
    }
    for name, tensor in (state.average or {}).items():
        training[f"average.{name}"] = tensor
    training["losses.step"] = torch.tensor([step for step, _ in state.losses], dtype=torch.int64)
    training["losses.value"] = torch.tensor([v for _, v in state.losses], dtype=torch.float64)
    recent = [value for _, value in state.losses[since:]]
    counts = {name: getattr(state, name) for name in COUNTS}
    mean_loss = sum(recent) / len(recent) if recent else None
    return write_checkpoint(
        folder,
        state.step,
        model=state.model,
        metadata=metadata,
        training=training,
        state={**extra, **counts, "mean_loss": mean_loss},
    )


def restore_state(state: TrainState, path: Path) -> None:
    """Set the state to what a verified checkpoint holds; CheckpointDamaged, and nothing changed, if it does not fit."""
    weights, training, counts = (
        read_tensors(path, WEIGHTS),
        read_tensors(path, TRAINING),
        read_state(path),
    )
    own = state.model.state_dict()
    _check(path, WEIGHTS, weights, own)
    trained = {n: p for n, p in state.model.named_parameters() if p.requires_grad}
    wanted = {f"average.{name}": own[name] for name in state.average or {}}
    if any(name.startswith("optimizer.") for name in training):
        for name, parameter in trained.items():
            wanted[f"optimizer.{name}.step"] = torch.zeros(())
            wanted[f"optimizer.{name}.exp_avg"] = wanted[f"optimizer.{name}.exp_avg_sq"] = parameter
    series = {name: training.pop(name, torch.empty(0)) for name in ("losses.step", "losses.value")}
    _check(path, TRAINING, training, wanted)
    steps, values = series["losses.step"], series["losses.value"]
    if steps.dtype != torch.int64 or values.dtype != torch.float64 or steps.shape != values.shape:
        raise CheckpointDamaged(f"checkpoint {path.name}: the loss series has no valid form")
    for name, kind in COUNTS.items():
        found = counts.get(name)
        if isinstance(found, bool) or not isinstance(found, kind | int) or not 0 <= found < 2**62:
            raise CheckpointDamaged(
                f"checkpoint {path.name}: {name} ({found!r}) in state.json is not valid"
            )

    state.model.load_state_dict(weights, strict=True)
    for name in state.average or {}:
        state.average[name].copy_(training[f"average.{name}"])
    state.optimizer.state.clear()
    for name, parameter in trained.items():
        if f"optimizer.{name}.step" in training:
            held = {moment: training[f"optimizer.{name}.{moment}"] for moment in MOMENTS}
            state.optimizer.state[parameter] = {
                moment: tensor if moment == "step" else tensor.to(parameter.device)
                for moment, tensor in held.items()
            }
    state.losses = list(zip(steps.tolist(), values.tolist(), strict=True))
    for name, kind in COUNTS.items():
        setattr(state, name, kind(counts[name]))


def _check(path: Path, file: str, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is unexpected" for name in found if name not in wanted]
    for name, tensor in found.items():
        if name not in wanted:
            continue
        if (tensor.shape, tensor.dtype) != (wanted[name].shape, wanted[name].dtype):
            problems.append(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"expected {wanted[name].dtype} {tuple(wanted[name].shape)}"
            )
        elif not tensor.isfinite().all():
            problems.append(f"{name} holds non-finite values")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointDamaged(f"checkpoint {path.name}: {file}: {'; '.join(problems[:3])}{more}")
