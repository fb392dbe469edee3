"""The model under test, read from its weights file together with how it was trained."""

import os
import warnings

from stretchysnake.data.decoding.fit import checked_fit
from stretchysnake.eval.features.placed_model import placed
from stretchysnake.eval.features.placement import ON_CPU, Placement
from stretchysnake.flexibility import ScaleSets, Variant, sets_around, variant_named
from stretchysnake.models.backbone import Backbone
from stretchysnake.models.weights.from_file import model_of
from stretchysnake.models.weights.published.named import weights_file
from stretchysnake.ranks import SINGLE, Runtime


def read_subject(
    weights: str | os.PathLike, placement: Placement = ON_CPU, *, runtime: Runtime = SINGLE
) -> tuple[Backbone, Variant, dict]:
    """(model in eval mode, its variant bound to its scale sets, the training metadata) of weights, as for load_model.

    Our own files name their variant. Others (official checkpoints) are taken as vanilla with the grid
    their shapes show. A warning for each thing that was changed or left out on reading. The model is where
    `placement` says; with "auto" or "cuda" each rank has a GPU of its own.
    """
    runtime.device(placement.device)  # absent: said before a large file is read
    model, notes = model_of(weights_file(weights))
    metadata = dict(model.trained)
    model = placed(model, placement, runtime=runtime)
    for note in notes:
        warnings.warn(f"weights ({weights}): {note}", stacklevel=2)
    if "variant" in metadata:
        sets = ScaleSets.from_dict(metadata["sets"])
        return model, variant_named(metadata["variant"]).using(sets), metadata
    return model, variant_named("vanilla").using(sets_around(model.config.native)), metadata


def class_names(model: Backbone, metadata: dict) -> list[str] | None:
    """Names of the head's outputs, in order; None where the file does not say, or says one name twice."""
    names = metadata.get("classes")
    if names is None:
        return None
    outputs = model.config.num_classes
    if (
        not isinstance(names, list)
        or len(names) != outputs
        or not all(isinstance(n, str) for n in names)
    ):
        raise ValueError(
            f"weights: the header's classes ({str(names)[:80]}) must be a list of {outputs} names, one for each "
            "output of the head; the file is damaged or was not written by stretchysnake"
        )
    return names if len(set(names)) == len(names) else None


def fit_of(metadata: dict) -> str:
    """How pictures were fitted when these weights were trained; "square" where they do not say."""
    return checked_fit(metadata.get("fit", "square"))
