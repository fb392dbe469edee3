"""A model from weights: a file, a folder of save_pretrained, a published name, or a file on the Hub.

model, notes = load_model("videomamba-m-k400-f16")
model = from_pretrained("hf://org/name@revision")
"""

import os
import warnings

from stretchysnake.models.backbone import Backbone
from stretchysnake.models.weights.fitting import load_weights
from stretchysnake.models.weights.from_file import fill, model_of
from stretchysnake.models.weights.published.named import located

__all__ = ["from_pretrained", "load_model", "load_weights", "start_from"]


def load_model(
    weights: str | os.PathLike,
    *,
    part: str | None = None,
    clip: str | os.PathLike | None = None,
    **changes,
) -> tuple[Backbone, list[str]]:
    """A model in eval mode with these weights, and one note for each thing that was changed or left out.

    `weights`: a file; a folder of `save_pretrained`; a published name (`stretchysnake weights` lists them) or
    hf://org/name[/file][@revision], fetched once (published/named.py) and noted with source, revision and licence.
    The architecture and its config come from the file, by its header or by the names and shapes of its tensors;
    `changes` overrides fields of the config (num_frames=64, num_classes=101, …), and weights are then resized or, for
    the head alone, left at their initialisation: both are noted. `clip` is a file with CLIP's visual tower, for
    published files that leave it out (EVL); by default the file under its published name beside this one.
    """
    found = located(weights)
    model, notes = model_of(found.path, part=part, clip=clip, **changes)
    return model, [*filter(None, [found.said]), *notes]


def from_pretrained(weights: str | os.PathLike, **changes) -> Backbone:
    """The model of `load_model`, in eval mode; a warning for each thing that was changed or left out.

    What its file says of its training (variant, scale sets, classes) is in `model.trained`.
    """
    model, notes = model_of(located(weights).path, **changes)
    for note in notes:
        warnings.warn(f"weights ({weights}): {note}", stacklevel=2)
    return model


def start_from(weights: str | os.PathLike, model: Backbone) -> list[str]:
    """Load weights, named as for `load_model`, into a model made from a run's config, with the same notes.

    ValueError where they are of another architecture.
    """
    found = located(weights)
    return [*filter(None, [found.said]), *fill(found.path, model)]
