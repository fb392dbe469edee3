"""A state dict into a model, strictly: fitted to the model's sizes, and owned by it whoever read the file."""

import torch
from torch import Tensor, nn

from stretchysnake.models.backbone import Backbone

ALIGNED = 64
"""Bytes. Vectorised kernels sum in another order where memory begins elsewhere, which changes the last bits."""


def load_weights(model: Backbone, state: dict[str, Tensor]) -> list[str]:
    """Load a flat state dict, strictly, after fitting it to the model; returns what was changed.

    Fitting means: the model's own names, stored sizes resized to the config's (see its `fitted`), and keeping the
    model's own head when the number of classes differs or the file has none. Any other missing, unexpected or
    wrongly shaped tensor, and any non-finite value, is a ValueError that names it. The model's tensors are copies in
    memory of its own.
    """
    state, notes = model.fitted(state)
    target = model.state_dict()
    _fit_classifier(model.classifier, state, target, notes)
    _fit_dtype(state, target, notes)
    problems = [f"missing {name}" for name in target if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in target]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(target[name].shape)}"
        for name in target
        if name in state and state[name].shape != target[name].shape
    ]
    problems += [
        f"{name} holds {tensor.dtype} {tensor.layout} instead of dense floats or non-finite values"
        for name, tensor in state.items()
        if tensor.layout != torch.strided
        or (target[name].is_floating_point() if name in target else True)
        != tensor.is_floating_point()
        or (tensor.is_floating_point() and not tensor.isfinite().all())
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"weights do not fit the model: {'; '.join(problems[:5])}{more}")
    model.load_state_dict(state, strict=True)
    own_weights(model)
    return notes


def _fit_classifier(
    classifier: str, state: dict[str, Tensor], target: dict[str, Tensor], notes: list[str]
) -> None:
    names = weight, _ = f"{classifier}.weight", f"{classifier}.bias"
    if weight not in target:
        if state.pop(weight, None) is not None:
            notes.append("head dropped (num_classes is 0)")
        state.pop(names[1], None)
    elif weight not in state or state[weight].shape[0] != target[weight].shape[0]:
        before = f"of {state[weight].shape[0]} classes not used" if weight in state else "absent"
        notes.append(
            f"head {before}: a fresh one of {target[weight].shape[0]} classes must be trained"
        )
        state.update({name: target[name] for name in names if name in target})


def _fit_dtype(state: dict, target: dict, notes: list[str]) -> None:
    """Convert to the model's dtype, and say of each other dtype what that changed."""
    changes: dict[tuple, list[float]] = {}
    for name, tensor in state.items():
        wanted = target.get(name)
        if wanted is None or tensor.layout != torch.strided or not tensor.is_floating_point():
            continue  # named by whoever checks
        if tensor.dtype != wanted.dtype:
            state[name] = tensor.to(wanted.dtype)
            change = (state[name].double() - tensor.double()).abs()
            changes.setdefault((tensor.dtype, wanted.dtype), []).append(
                float(change.max()) if change.numel() else 0.0
            )
    for (before, after), largest in changes.items():
        words = f"{len(largest)} tensors of {before} ".replace("torch.", "")
        to = str(after).removeprefix("torch.")
        if max(largest) == 0:
            notes.append(f"{words}held as {to}: no value changed")
        else:
            notes.append(f"{words}rounded to {to}: largest change {max(largest):.1e}")


def own_weights(model: nn.Module) -> nn.Module:
    """The model, every parameter and buffer in memory of its own that begins at a multiple of 64 bytes.

    torch allocates so; tensors that look into a file (safetensors, torch.load with mmap, load_state_dict with assign)
    begin anywhere, and features then differ in the last bits. Changes the model in place; values and dtypes stay.
    """
    for owner in model.modules():
        for tensors in (owner._parameters, owner._buffers):
            for name, tensor in tensors.items():
                if tensor is None or tensor.is_meta or tensor.data_ptr() % ALIGNED == 0:
                    continue
                own = tensor.detach().clone()
                if isinstance(tensor, nn.Parameter):
                    tensor.data = own  # the same parameter, for whoever holds it
                else:
                    tensors[name] = own
    return model
