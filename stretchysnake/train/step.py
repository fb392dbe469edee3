"""One training step: this rank's share of a batch, in parts, to one update or to none."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.data.loader import Batch
from stretchysnake.flexibility import Scale
from stretchysnake.train.optim import set_lr
from stretchysnake.train.run import TrainRun
from stretchysnake.train.runtime import Runtime
from stretchysnake.train.state import TrainState, draw_again, update_average


class StepOutcome(NamedTuple):
    """What a step gave; the same on every rank."""

    loss: float
    """Mean over the global batch."""
    gradient_norm: float
    """Before clipping."""
    stop: bool
    """Whether some rank was asked to stop."""

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def share_of(num_clips: int, runtime: Runtime) -> range:
    """The places of the global batch that this rank computes: contiguous, sizes differing by at most one."""
    return range(
        num_clips * runtime.rank // runtime.world_size,
        num_clips * (runtime.rank + 1) // runtime.world_size,
    )


def parts_of(share: range, scale: Scale, run: TrainRun) -> list[range]:
    """The share cut into the parts computed one after the other (gradient accumulation)."""
    count = run.accumulate
    if run.tokens_per_pass is not None:
        most = max(1, run.tokens_per_pass // scale.num_tokens)
        count = max(count, math.ceil(len(share) / most))
    count = max(1, min(count, len(share)))
    cuts = [share.start + len(share) * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in pairwise(cuts)]


def compute_logits(model: nn.Module, video: Tensor, scale: Scale, run: TrainRun) -> Tensor:
    """Logits (B, num_classes) in at least fp32 of a clip batch on the model's device."""
    with torch.autocast(video.device.type, torch.bfloat16, enabled=run.precision == "bf16"):
        logits = model(video, scale.patch_size, grid="floor")
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def take_step(
    state: TrainState,
    model: nn.Module,
    batch: Batch,
    run: TrainRun,
    *,
    lr: float,
    runtime: Runtime,
    stop: Callable[[], bool] = lambda: False,
) -> StepOutcome:
    """Forward, backward and, when loss and gradient are finite, the update; otherwise nothing is changed.

    `model` is state.model or its data-parallel wrap. The gradient is the mean over the global batch however it is
    cut into ranks and parts; ranks agree on the outcome, and on `stop`,
    asked of each after its backward pass, before any of them updates.
    """
    device = next(state.model.parameters()).device
    draw_again(run.seed, batch.step, runtime.rank)
    state.optimizer.zero_grad(set_to_none=True)
    num_clips = len(batch.labels)
    share = share_of(num_clips, runtime)
    parts = parts_of(share, batch.scale, run)
    local = torch.zeros(2, dtype=torch.float64)  # (sum of losses, ranks that want to stop)
    for number, part in enumerate(parts, 1):
        rows = (
            slice(part.start, part.stop) if len(part) else slice(0, 1)
        )  # no clip: one of weight 0
        video, labels = batch.video[rows].to(device), batch.labels[rows].to(device)
        whole = number == len(parts)
        with torch.enable_grad(), _sync_when(whole, model, runtime):
            logits = compute_logits(model, video, batch.scale, run)
            loss = F.cross_entropy(logits, labels, label_smoothing=run.label_smoothing)
            (loss * (len(part) / num_clips * runtime.world_size)).backward()
        if len(part):
            local[0] += loss.item() * (len(part) / num_clips)
    local[1] = float(stop())
    total = runtime.sum(local)
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    outcome = StepOutcome(total[0].item(), norm.item(), bool(total[1]))
    if not outcome.is_finite:
        return outcome
    if run.optim.clip_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, run.optim.clip_norm, norm)
    set_lr(state.optimizer, lr)
    state.optimizer.step()
    state.losses.append((batch.step, outcome.loss))
    state.clips += num_clips
    state.tokens += num_clips * batch.scale.num_tokens
    update_average(state, run.ema_decay)
    return outcome


def _sync_when(last: bool, model: nn.Module, runtime: Runtime):
    return nullcontext() if last else runtime.unsynchronised(model)
