"""What the outputs of a head are called: by the user, the weights, a file beside them, or who published them."""

import os
from pathlib import Path

from stretchysnake.data.benchmarks.class_names.orders import (
    ORDERS,
    ClassNames,
    given_names,
    names_in_order,
    order_of_published,
)
from stretchysnake.eval.features.subject import class_names
from stretchysnake.models.backbone import Backbone

BESIDE = "classes.txt"
"""The file in the folder of the weights that names their outputs, one a line."""


def head_names(
    weights: str | os.PathLike,
    model: Backbone,
    metadata: dict,
    *,
    classes: str | os.PathLike | None = None,
) -> ClassNames | None:
    """Names of the head's outputs and where they are from; None where nobody says, for an order is never guessed.

    `classes` is a file or the name of a list (`given_names`). Without it: the header that a training of ours writes,
    then `classes.txt` beside the weights, then the order of a published file, known by its name or that of the file it
    was converted from. ValueError for names of another number than the head's outputs.
    """
    outputs = model.config.num_classes
    if classes is not None:
        return given_names(classes, outputs)
    if not outputs:
        return None
    if (held := class_names(model, metadata)) is not None:
        return ClassNames(held, "the weights' header")
    at = Path(weights)  # a published name is neither a file nor a folder
    beside = at / BESIDE if at.is_dir() else at.with_name(BESIDE)
    if at.exists() and beside.is_file():
        return given_names(beside, outputs)
    card = metadata.get("card", {})
    order = order_of_published(
        [os.fspath(weights), *(str(card.get(key, "")) for key in ("file", "source"))], outputs
    )
    if order is None or "variant" in metadata:  # a training of ours numbers its own classes
        return None
    return ClassNames(list(names_in_order(order)), f"{order}: {ORDERS[order]}")
