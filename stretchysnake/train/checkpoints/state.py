"""Everything a run changes while it trains; saving.py writes it as a checkpoint, restoring.py reads it back.

Random numbers need no place in it: the scale, the samples, their augmentation and drop path depend on (seed, step)
and the place of a clip in it, so any step can be drawn again at any time.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.data.clips.bad_clips import BadFile
from stretchysnake.models.architectures import build_model
from stretchysnake.models.backbone import Backbone
from stretchysnake.ranks import SINGLE, Runtime
from stretchysnake.train.checkpoints.sharding import (
    is_sharded,
    shard,
    whole,
)
from stretchysnake.train.loss_scale import FIRST_SCALE
from stretchysnake.train.optim import build_optimizer
from stretchysnake.train.run import TrainRun

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
COUNTS = {
    "step": int, "clips": int, "tokens": int, "rollbacks": int, "bad_in_a_row": int,
    "seconds": float, "lr_factor": float, "loss_scale": float, "loss_scale_age": int,
    "replaced": int, "left_out": int,
}  # fmt: skip


class HeldOutScore(NamedTuple):
    """What the weights after `step` steps do on the held-out list (held_out.py)."""

    step: int
    top1: float
    loss: float
    num_clips: int
    """That could be read."""

    @classmethod
    def of(cls, values: object) -> "HeldOutScore":
        """The score that JSON made these values from; ValueError for anything else."""
        match values:
            case [int(), int() | float(), int() | float(), int()]:
                return cls(*values)
        raise ValueError(f"{values!r:.80} is no held-out score")


@dataclass(kw_only=True)
class TrainState:
    """A run after `step` steps (done or skipped)."""

    model: Backbone
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
    replaced: int = 0
    """Clips that could not be had and whose place another took, over all ranks."""
    left_out: int = 0
    """Clips that could not be had and whose place stayed empty."""
    held_out: list[HeldOutScore] = field(default_factory=list)
    bad_files: dict[int, BadFile] = field(default_factory=dict)
    """Files of the list found bad so far, by their place in it; the same on every rank."""


def new_state(model: Backbone, run: TrainRun, *, runtime: Runtime = SINGLE) -> TrainState:
    """The state before the first step; freezes what the run does not train, compiles and slices as the run says."""
    if run.trainable == "head":
        if model.config.num_classes == 0:
            raise ValueError("trainable (head) needs a head; model.num_classes must be more than 0")
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    if run.compile:
        for block in model.stages():
            block.compile(dynamic=True)
    if run.parallel == "fsdp" and runtime.world_size > 1:
        shard(model, next(model.parameters()).device)
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


def plain_model(state: TrainState) -> Backbone:
    """The model to look into: itself, or a whole and uncompiled copy where it is sliced or compiled (all ranks ask)."""
    model = state.model
    compiled = any(block._compiled_call_impl is not None for block in model.stages())
    if not (is_sharded(model) or compiled):
        return model
    first = next(model.parameters())
    with torch.random.fork_rng(devices=[]):
        copy = build_model(model.config).to(first.device, first.dtype).train(model.training)
    copy.load_state_dict(whole_weights(model.state_dict()))
    for parameter, original in zip(copy.parameters(), model.parameters(), strict=True):
        parameter.grad = None if original.grad is None else whole(original.grad)
    return copy


@torch.no_grad()
def update_average(state: TrainState, decay: float) -> None:
    """Move the average towards the weights; early on faster, by (1 + n) / (10 + n) after n steps, as is usual."""
    if state.average is None:
        return
    done = len(state.losses)
    decay = min(decay, (1 + done) / (10 + done))
    current = state.model.state_dict()
    moving = [name for name, tensor in state.average.items() if tensor.is_floating_point()]
    for name in state.average.keys() - set(moving):  # counters of batch norm
        state.average[name].copy_(current[name])
    # of a sliced model the parameters are slices and the running statistics whole: no one call takes both
    parameters = dict(state.model.named_parameters()).keys()
    for names in (
        [n for n in moving if n in parameters],
        [n for n in moving if n not in parameters],
    ):
        if names:
            torch._foreach_lerp_(
                [state.average[name] for name in names],
                [current[name] for name in names],
                1 - decay,
            )
