"""A model from a file of weights, whoever wrote it: official files of every architecture, and our own.

model, notes = model_of("videomamba_t16_k400_f8_res224.pth")
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
from stretchysnake.models.weights.fitting import load_weights
from stretchysnake.models.weights.layout import FoundWeights


def model_of(
    path: str | os.PathLike,
    *,
    part: str | None = None,
    clip: str | os.PathLike | None = None,
    **changes,
) -> tuple[Backbone, list[str]]:
    """`load_model` of a file; the model's `trained` is what the file's header says of its training."""
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
    model.trained = _trained(metadata.get("run"), changes)
    try:
        return model.eval(), [*weights.notes, *notes, *load_weights(model, state)]
    except ValueError as error:
        if hint := _if_a_shard(path):
            raise ValueError(f"{error}{hint}") from None
        raise


def _trained(run: object, changes: dict) -> dict:
    """What a header says of a training, as far as it holds for a model with other fields."""
    said = dict(run) if isinstance(run, dict) else {}
    if "num_classes" in changes:
        said.pop("classes", None)
    return said


def fill(path: str | os.PathLike, model: Backbone) -> list[str]:
    """`start_from` of a file."""
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
