"""Where a NaN came from: the first bad weight, clip, layer or gradient of a step, in words."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stretchysnake.data.clips.loader import Batch
from stretchysnake.ranks import Runtime
from stretchysnake.train.checkpoints.state import TrainState, plain_model
from stretchysnake.train.run import TrainRun
from stretchysnake.train.step import StepOutcome, compute_logits, drop_draws_of


def describe(
    state: TrainState,
    batch: Batch,
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
    model, clips = plain_model(state), len(batch.labels)
    places = range(clips) if batch.places is None else batch.places
    names = [files[place] for place in places] if files else []
    where = f"step {batch.step} at T={batch.scale.num_frames} S={batch.scale.size} P={batch.scale.patch_size}"
    what = "loss" if not torch.isfinite(torch.tensor(outcome.loss)) else "gradient"
    bad = [name for name, p in model.named_parameters() if not p.isfinite().all()]
    if bad:
        return f"{where}: {what} not finite; weight {bad[0]} holds non-finite values"
    if not clips:
        return f"{where}: {what} not finite, on another rank"
    rows_bad = ~batch.video.isfinite().flatten(1).all(1)
    if rows_bad.any():
        return f"{where}: {what} not finite; non-finite pixels in {_listed(names, rows_bad)}"
    device = next(model.parameters()).device
    layer, logits = _first_bad_layer(model, batch.video.to(device), batch, run)
    if layer:
        rows_bad = ~logits.isfinite().all(1).cpu()
        return f"{where}: {what} not finite; first bad layer {layer}, {_listed(names, rows_bad)}"
    grads = [
        name
        for name, p in model.named_parameters()
        if p.grad is not None and not p.grad.isfinite().all()
    ]
    if grads:  # backward runs from the last parameter to the first
        everything = torch.ones(clips, dtype=torch.bool)
        return f"{where}: {what} not finite; first bad gradient {grads[-1]}, {_listed(names, everything)}"
    return f"{where}: {what} not finite, not in this rank's share or not repeatable"


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
