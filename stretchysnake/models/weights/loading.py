"""A model from a file of weights, whoever wrote it: official files of every architecture, and our own.

model, notes = load_model("videomamba_t16_k400_f8_res224.pth")
"""

import os
import re
from pathlib import Path

import torch
from torch import Tensor

from stretchysnake.models.architectures import (
    ARCHITECTURES,
    build_model,
    config_from_dict,
    config_to_dict,
    model_class,
    names_of,
)
from stretchysnake.models.backbone import Backbone, BackboneConfig
from stretchysnake.models.weights.files import find_weights, read_clip_tower
from stretchysnake.models.weights.layout import FoundWeights


def load_model(
    path: str | os.PathLike,
    *,
    part: str | None = None,
    clip: str | os.PathLike | None = None,
    **changes,
) -> tuple[Backbone, list[str]]:
    """A model in eval mode with a file's weights, and one note for each thing that was changed or left out.

    The architecture and its config come from the file, by its header or by the names and shapes of its tensors;
    `changes` overrides fields of the config (num_frames=64, num_classes=101, …), and weights are then resized or, for
    the head alone, left at their initialisation: both are noted. `clip` is a file with CLIP's visual tower, for
    published files that leave it out (EVL); by default the file under its published name beside this one.
    """
    weights, metadata = find_weights(path, part=part)
    state, notes = _with_clip(weights, path, clip)
    if "config" in metadata:
        config = _trusted_config(metadata["config"], state, path)
        config = config_from_dict({**config_to_dict(config), **changes})
    else:
        try:
            config = model_class(weights.architecture).config_of(state, **changes)
        except ValueError as error:
            raise ValueError(
                f"checkpoint ({path}): {error}{_known(weights)}{_if_a_shard(path)}"
            ) from None
    with torch.random.fork_rng(
        devices=[]
    ):  # a fresh head is drawn without moving the caller's generator
        model = build_model(config)
    try:
        return model.eval(), [*weights.notes, *notes, *load_weights(model, state)]
    except ValueError as error:
        if hint := _if_a_shard(path):
            raise ValueError(f"{error}{hint}") from None
        raise


def start_from(path: str | os.PathLike, model: Backbone) -> list[str]:
    """Load a file's weights into a model made from a run's config, with the notes of `load_model`.

    ValueError where the file is of another architecture.
    """
    found, _ = find_weights(path)
    theirs, wanted = found.architecture, model.config.architecture
    is_other = found.is_known and theirs != wanted
    # one name alone, as VideoMamba's, may stand in files of others too: these are tried
    if is_other and all(len(names) > 1 for names in model_class(theirs).marks):
        raise ValueError(_of_another(path, theirs, wanted))
    state, notes = _with_clip(found, path, None)
    try:
        return [*notes, *load_weights(model, state)]
    except ValueError as error:
        if is_other:
            raise ValueError(_of_another(path, theirs, wanted)) from None
        raise ValueError(f"weights ({path}): {error}{_known(found)}") from None


def _of_another(path: str | os.PathLike, theirs: str, wanted: str) -> str:
    return (
        f"weights ({path}) are of {theirs}, and the model is {wanted}; give weights of {wanted}, or train "
        f"{theirs} (--model NAME; of {theirs}: {', '.join(names_of(theirs))})"
    )


def _known(found: FoundWeights) -> str:
    """Advice where a file is of no architecture that we know."""
    return "" if found.is_known else f"; models that are known: {', '.join(ARCHITECTURES)}"


def _with_clip(
    found: FoundWeights, path: str | os.PathLike, clip: str | os.PathLike | None
) -> tuple[dict[str, Tensor], list[str]]:
    """(the weights with CLIP's tower from `clip`, or from the file beside `path` that they leave out; notes)."""
    notes = []
    left_out = getattr(model_class(found.architecture), "left_out", None)
    if clip is None and left_out is not None and (name := left_out(found.state)):
        beside = Path(path).with_name(name)
        if beside.is_file():
            clip = beside
            notes.append(f"CLIP's visual tower taken from {beside}, beside it")
    if clip is None:
        return found.state, notes
    return {**found.state, **read_clip_tower(clip)}, notes


def _if_a_shard(path: str | os.PathLike) -> str:
    """Advice where a file's name says that it is one of several."""
    named = re.search(r"\d+-of-0*(\d+)\b|mp_rank_\d+|rank_?\d+", Path(path).name)
    return (
        "; by its name it is a part of the weights: join all parts into one file first"
        if named
        else ""
    )


def _trusted_config(
    values: dict, state: dict[str, Tensor], path: str | os.PathLike
) -> BackboneConfig:
    """The config written in a file, once its sizes are those of the file's tensors."""
    # Before a model is built: a false config could ask for any amount of memory.
    try:
        claimed = config_from_dict(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"checkpoint ({path}): its config is not valid ({error})") from None
    shapes = model_class(claimed.architecture).config_of(state)
    for name in claimed.shaped:
        if getattr(claimed, name) != getattr(shapes, name):
            raise ValueError(
                f"checkpoint ({path}): its config says {name} {getattr(claimed, name)}, its tensors "
                f"{getattr(shapes, name)}; the file is damaged or not what it claims to be"
            )
    return claimed


def load_weights(model: Backbone, state: dict[str, Tensor]) -> list[str]:
    """Load a flat state dict, strictly, after fitting it to the model; returns what was changed.

    Fitting means: the model's own names, stored sizes resized to the config's (see its `fitted`), and keeping the
    model's own head when the number of classes differs or the file has none. Any other missing, unexpected or
    wrongly shaped tensor, and any non-finite value, is a ValueError that names it.
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
