"""One training step: this rank's share of a batch, in parts, to one update or to none."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.data.clips.bad_clips import counts_of
from stretchysnake.data.clips.loader import Batch, MixedBatch, groups_of
from stretchysnake.data.clips.seeds import DROP_PATH, DROPOUT, seed_of, uniforms
from stretchysnake.data.clips.training_order import share_of
from stretchysnake.flexibility import Scale
from stretchysnake.models.sequences.packed import packs_clips
from stretchysnake.ranks import Runtime
from stretchysnake.train.batch_norm import (
    average_over_ranks,
    copies_of,
    put_back,
    running_statistics,
)
from stretchysnake.train.checkpoints.sharding import is_sharded, whole
from stretchysnake.train.checkpoints.state import TrainState, update_average
from stretchysnake.train.loss_scale import after_overflow, after_step
from stretchysnake.train.optim import set_lr
from stretchysnake.train.parallel_model import unsynchronised
from stretchysnake.train.run import TrainRun

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class StepOutcome(NamedTuple):
    """What a step gave; the same on every rank."""

    loss: float
    """Mean over the global batch."""
    gradient_norm: float
    """Before clipping."""
    clips: int
    """Over all ranks; 0 where every clip of the step was bad, and then nothing is done."""
    replaced: int = 0
    """Clips that could not be had and whose place another took, over all ranks."""
    left_out: int = 0
    news: bool = False
    """Whether some rank has news of a file."""
    stop: bool = False
    """Whether some rank was asked to stop."""
    save: bool = False
    """Whether rank 0 finds it time for a checkpoint."""
    overflow: bool = False
    """Whether the gradient overflowed under a loss scale, which was then halved."""

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def largest_share(batch: Batch, run: TrainRun, runtime: Runtime) -> int:
    """Clips of the step's largest share, as asked for; no rank has more. Of a group of one shape, those here."""
    if batch.asked is None:
        return len(batch.labels)
    return most_clips(batch.asked, run, runtime)


def most_clips(clips: int, run: TrainRun, runtime: Runtime) -> int:
    """Clips of the largest of the shares of so many `clips`."""
    unit, world_size = run.unit, runtime.world_size
    return max(
        len(share_of(clips, rank=rank, world_size=world_size, unit=unit))
        for rank in range(world_size)
    )


def parts_of(
    share: range, scale: Scale, run: TrainRun, *, largest: int | None = None
) -> list[range]:
    """The share cut into the parts computed one after the other (gradient accumulation).

    As many as the `largest` share of all ranks needs, so that every rank has the same number; some may be empty.
    """
    largest = len(share) if largest is None else largest
    count = run.accumulate
    if run.tokens_per_pass is not None:
        most = max(1, run.tokens_per_pass // scale.num_tokens)
        count = max(count, math.ceil(largest / most))
    count = max(1, min(count, largest))
    cuts = [share.start + len(share) * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in pairwise(cuts)]


def passes_of(
    parts: list[tuple[Batch, range]], run: TrainRun, *, packs: bool
) -> list[list[tuple[Batch, range]]]:
    """The parts of a step's groups that one forward pass takes together: as many as tokens_per_pass allows.

    Where the model packs them, several scales cost what one does; otherwise, or where `accumulate` asks for parts, each
    part is a pass.
    """
    if not packs or run.accumulate > 1:
        return [[part] for part in parts]
    passes, tokens = [[]], 0
    most = math.inf if run.tokens_per_pass is None else run.tokens_per_pass
    for group, part in parts:
        own = len(part) * group.scale.num_tokens
        if passes[-1] and tokens + own > most:
            passes.append([])
            tokens = 0
        passes[-1].append((group, part))
        tokens += own
    return passes


def packs_groups(model: nn.Module, batch: Batch | MixedBatch, run: TrainRun) -> bool:
    """Whether the groups of a step are packed: by a model that can, whole on every rank and not compiled."""
    several = len(groups_of(batch)) > 1
    return several and packs_clips(model) and not (is_sharded(model) or run.compile)


def drop_draws_of(batch: Batch, run: TrainRun, num_draws: int) -> Tensor | None:
    """(B, num_draws): the numbers that decide drop path, of (run seed, step, place in the whole step, number) alone.

    So a batch cut into parts or shared out over ranks drops what the whole drops. None where nothing is dropped.
    """
    if not run.model.drop_path:
        return None
    places = range(len(batch.labels)) if batch.places is None else batch.places
    draws = uniforms(run.seed, DROP_PATH, batch.step, rows=places, columns=num_draws)
    return torch.from_numpy(draws).float()


@contextmanager
def dropout_seeded(run: TrainRun, *place: int, device: torch.device) -> Iterator[None]:
    """Within, torch's generators are those of (run seed, place) alone, so that a resumed run drops out the same.

    Nothing else draws from them in a step. The generators of before come back behind it. torch.manual_seed would seed
    every kind of device and, where CUDA is not begun, note the stack each time: 0.5 ms of a step.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        number = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[number])
    before = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed_of(run.seed, DROPOUT, *place))
    try:
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def compute_logits(
    model: nn.Module, video: Tensor, scale: Scale, run: TrainRun, drop_draws: Tensor | None = None
) -> Tensor:
    """Logits (B, num_classes) in at least fp32 of a clip batch on the model's device."""
    options = {} if drop_draws is None else {"drop_draws": drop_draws}
    return _in_precision(
        lambda: model(video, scale.patch_size, grid="floor", **options), run, video.device
    )


def _in_precision(logits_of: Callable[[], Tensor], run: TrainRun, device: torch.device) -> Tensor:
    dtype = AUTOCAST.get(run.precision)
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        logits = logits_of()
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def compute_packed_logits(
    model: nn.Module,
    videos: list[Tensor],
    scales: list[Scale],
    run: TrainRun,
    drop_draws: list[Tensor] | None = None,
) -> list[Tensor]:
    """`compute_logits` of several clip batches, each of a scale of its own, in one pass of a model that packs them."""
    clips = [clip for video in videos for clip in video]
    counts = [len(video) for video in videos]
    patches = [scale.patch_size for scale, n in zip(scales, counts, strict=True) for _ in range(n)]
    options = {} if drop_draws is None else {"drop_draws": torch.cat(drop_draws)}
    logits = _in_precision(  # model(...), not model.forward_packed: what wraps it is to know
        lambda: model(clips, patches, grid="floor", **options), run, clips[0].device
    )
    return list(logits.split(counts))


def loss_of(logits: Tensor, batch: Batch, rows: slice, run: TrainRun) -> Tensor:
    """Mean cross-entropy of some clips of a batch; of mixed clips, the losses for both labels mixed alike."""
    smoothing = run.label_smoothing
    labels = batch.labels[rows].to(logits.device)
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    if batch.others is None:
        return loss
    others = batch.others[rows].to(logits.device)
    other = F.cross_entropy(logits, others, label_smoothing=smoothing)
    return batch.share * loss + (1 - batch.share) * other


def _losses(
    model: nn.Module,
    together: list[tuple[Batch, range]],
    draws_of: dict[int, Tensor | None],
    run: TrainRun,
    device: torch.device,
) -> list[Tensor]:
    """The loss of every part of one pass."""
    rows = [slice(part.start, part.stop) for _, part in together]
    groups = [group for group, _ in together]
    videos = [group.video[own].to(device) for group, own in zip(groups, rows, strict=True)]
    draws = [draws_of[id(group)] for group in groups]
    drawn = [None if d is None else d[own] for d, own in zip(draws, rows, strict=True)]
    scales = [group.scale for group in groups]
    if len(together) == 1:
        logits = [compute_logits(model, videos[0], scales[0], run, drawn[0])]
    else:
        several = None if drawn[0] is None else drawn
        logits = compute_packed_logits(model, videos, scales, run, several)
    return [
        loss_of(own, group, cut, run) for own, group, cut in zip(logits, groups, rows, strict=True)
    ]


def take_step(
    state: TrainState,
    model: nn.Module,
    batch: Batch | MixedBatch,
    run: TrainRun,
    *,
    lr: float,
    runtime: Runtime,
    ask: Callable[[], tuple[bool, bool]] = lambda: (False, False),
) -> StepOutcome:
    """Forward, backward and, when loss and gradient are finite, the update; otherwise nothing is changed.

    `model` is state.model or its data-parallel wrap; `batch` is this rank's share of the step. The gradient is the
    mean over the global batch however it is cut into scales, ranks and parts. Ranks agree on the outcome, on whether
    to stop and (rank 0 alone) to save: `ask` tells both, after the backward pass, before any of them updates.
    """
    device = next(state.model.parameters()).device
    state.optimizer.zero_grad(set_to_none=True)
    statistics = running_statistics(state.model)
    before = copies_of(statistics)
    groups = groups_of(batch)
    clips = sum(len(group.labels) for group in groups)
    wanted_clips = clips if batch.asked is None else batch.asked
    parts = [
        (group, part)
        for group in groups
        for part in parts_of(
            range(len(group.labels)), group.scale, run, largest=largest_share(group, run, runtime)
        )
    ]
    if not is_sharded(state.model):  # otherwise every forward pass needs all ranks
        parts = [(group, part) for group, part in parts if part] or parts[:1]
    elif run.fit == "keep":  # a rank has as many passes as shapes, and does not know the others'
        empty = (groups[0], range(0))
        parts += [empty] * (runtime.most(len(parts)) - len(parts))
    draws = [drop_draws_of(g, run, state.model.num_drop_draws(g.scale)) for g in groups]
    draws_of = {id(group): drawn for group, drawn in zip(groups, draws, strict=True)}
    passes = passes_of(parts, run, packs=packs_groups(state.model, batch, run))
    # sum of losses; clips, replaced, left out; news, stop, save; tokens
    local = torch.zeros(8, dtype=torch.float64)
    for number, together in enumerate(passes, 1):
        last = number == len(passes)
        group, part = together[0]
        place = (batch.step, runtime.rank, number)
        with (
            torch.enable_grad(),
            dropout_seeded(run, *place, device=device),
            nullcontext() if last else unsynchronised(model),
        ):
            if part:
                losses = _losses(model, together, draws_of, run, device)
            else:  # one black clip, of no weight, so that this rank takes part
                video = torch.zeros(1, *group.video.shape[1:], device=device)
                seen = copies_of(statistics)
                losses = [compute_logits(model, video, group.scale, run).sum()]
            weights = [len(part) / max(1, wanted_clips) for _, part in together]
            weighted = [
                loss * (weight * runtime.world_size * state.loss_scale)
                for loss, weight in zip(losses, weights, strict=True)
            ]
            sum(weighted[1:], start=weighted[0]).backward()
        if part:
            for loss, weight in zip(losses, weights, strict=True):
                local[0] += loss.item() * weight
        else:
            put_back(statistics, seen)
    local[1:4] = torch.tensor([clips, *counts_of(batch.bad)])
    local[4:7] = torch.tensor([bool(batch.news), *ask()])
    local[7] = sum(group.num_tokens for group in groups)
    total = runtime.sum(local).tolist()
    read_clips, replaced, left_out = (round(count) for count in total[1:4])
    told = dict(zip(("news", "stop", "save"), (number > 0 for number in total[4:7]), strict=True))
    told |= {"replaced": replaced, "left_out": left_out}
    if not read_clips:
        put_back(statistics, before)
        return StepOutcome(0.0, 0.0, 0, **told)
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    gradients = [p.grad for p in parameters if p.grad is not None]
    # bad clips that were left out make the batch smaller than was asked for
    factor = wanted_clips / read_clips / state.loss_scale
    if factor != 1.0:
        torch._foreach_mul_(gradients, factor)
    norm = whole(torch.nn.utils.get_total_norm(gradients))
    outcome = StepOutcome(total[0] * wanted_clips / read_clips, norm.item(), read_clips, **told)
    if not outcome.is_finite:
        put_back(statistics, before)
        if math.isfinite(outcome.loss) and state.loss_scale > 1:
            state.loss_scale, state.loss_scale_age = after_overflow(state.loss_scale), 0
            return outcome._replace(overflow=True)
        return outcome
    if run.optim.clip_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, run.optim.clip_norm, norm)
    average_over_ranks(statistics, clips=clips, runtime=runtime)
    set_lr(state.optimizer, lr)
    state.optimizer.step()
    if run.precision == "fp16":
        state.loss_scale, state.loss_scale_age = after_step(state.loss_scale, state.loss_scale_age)
    state.losses.append((batch.step, outcome.loss))
    state.clips += read_clips
    state.tokens += round(total[7])
    update_average(state, run.ema_decay)
    return outcome
