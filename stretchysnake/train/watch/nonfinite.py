"""Where a NaN came from: the first bad weight, clip, layer or gradient of a step, in words."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stretchysnake.data.clips.loader import Batch, MixedBatch, groups_of
from stretchysnake.ranks import Runtime
from stretchysnake.train.checkpoints.state import TrainState, plain_model
from stretchysnake.train.run import TrainRun
from stretchysnake.train.step import StepOutcome, compute_logits, drop_draws_of


def describe(
    state: TrainState,
    batch: Batch | MixedBatch,
    outcome: StepOutcome,
    run: TrainRun,
    *,
    runtime: Runtime,
    files: Sequence[str],
) -> str:
    """What was not finite in a step of this rank, where it began, and in which files; `files` are the step's.

    Looks at weights, pixels, the output of each layer (the forward pass is done again) and gradients, in this order.
    All ranks call it together.
    """
    model, groups = plain_model(state), groups_of(batch)
    what = "loss" if not torch.isfinite(torch.tensor(outcome.loss)) else "gradient"
    names_of = {id(group): _files_of(group, files) for group in groups}

    def said(group: Batch, text: str) -> str:
        s = group.scale
        where = f"step {group.step} at T={s.num_frames} S={s.size} P={s.patch_size}"
        return f"{where}: {what} not finite{text}"

    bad = [name for name, p in model.named_parameters() if not p.isfinite().all()]
    if bad:
        return said(groups[0], f"; weight {bad[0]} holds non-finite values")
    filled = [group for group in groups if len(group.labels)]
    if not filled:
        return said(groups[0], ", on another rank")
    device = next(model.parameters()).device
    for group in filled:
        rows_bad = ~group.video.to("cpu").isfinite().flatten(1).all(1)
        if rows_bad.any():
            return said(group, f"; non-finite pixels in {_listed(names_of[id(group)], rows_bad)}")
    for group in filled:
        layer, logits = _first_bad_layer(model, group.video.to(device), group, run)
        if layer:
            rows_bad = ~logits.isfinite().all(1).cpu()
            files_bad = _listed(names_of[id(group)], rows_bad)
            return said(group, f"; first bad layer {layer}, {files_bad}")
    grads = [
        name
        for name, p in model.named_parameters()
        if p.grad is not None and not p.grad.isfinite().all()
    ]
    if grads:  # backward runs from the last parameter to the first
        names = [name for group in filled for name in names_of[id(group)]]
        clips = sum(len(group.labels) for group in filled)
        everything = _listed(names, torch.ones(clips, dtype=torch.bool))
        return said(filled[0], f"; first bad gradient {grads[-1]}, {everything}")
    return said(groups[0], ", not in this rank's share or not repeatable")


def _files_of(group: Batch, files: Sequence[str]) -> list[str]:
    places = range(len(group.labels)) if group.places is None else group.places
    return [files[place] for place in places] if files else []


@torch.no_grad()
def _first_bad_layer(
    model: nn.Module, video: Tensor, batch: Batch, run: TrainRun
) -> tuple[str | None, Tensor]:
    layers: list[str] = []

    def watch(name: str):
        def hook(_module, _inputs, output):
            for tensor in output if isinstance(output, tuple) else (output,):
                if isinstance(tensor, Tensor) and not tensor.isfinite().all():
                    layers.append(name)
                    return

        return hook

    handles = [m.register_forward_hook(watch(n)) for n, m in model.named_modules() if n]
    try:
        draws = drop_draws_of(batch, run, model.num_drop_draws(batch.scale))
        logits = compute_logits(model, video, batch.scale, run, draws)
    finally:
        for handle in handles:
            handle.remove()
    if not layers and not logits.isfinite().all():
        layers.append("head")
    return (layers[0] if layers else None), logits


def _listed(names: Sequence[str], bad: Tensor) -> str:
    chosen = [name for name, is_bad in zip(names, bad.tolist(), strict=False) if is_bad] or list(
        names
    )
    if not chosen:
        return "files not known"
    more = f" and {len(chosen) - 4} more" if len(chosen) > 4 else ""
    return f"files {', '.join(chosen[:4])}{more}"
