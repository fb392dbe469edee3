"""ModelUnderTest: the model whose numbers are taken, and what identifies it in the rows."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from stretchysnake.eval.features.extraction import model_hash
from stretchysnake.eval.features.head_names import head_names
from stretchysnake.eval.features.placed_model import (
    device_name,
    device_of,
    placed,
    precision_of,
)
from stretchysnake.eval.features.placement import ON_CPU, Placement
from stretchysnake.eval.features.subject import fit_of, read_subject
from stretchysnake.eval.protocols.protocol import HEADS, Protocol
from stretchysnake.flexibility import Variant
from stretchysnake.models.architectures import build_model
from stretchysnake.models.backbone import Backbone
from stretchysnake.ranks import SINGLE, Runtime
from stretchysnake.results.rows import environment


@dataclass(frozen=True, kw_only=True)
class ModelUnderTest:
    """The trained model under test and what identifies it in the rows."""

    model: Backbone
    variant: Variant
    seed: int
    run_id: str
    name: str | None = None
    """What the rows call the model; None means its variant."""
    classes: Sequence[str] | None = None
    """Names of the head's outputs, in order; None where the weights do not say."""
    fit: str = "square"
    """How pictures were fitted when it was trained."""
    patch_resize: str | None = None
    """How patch kernels are resized, where the model under test does it otherwise than it was trained."""
    commit: str = ""
    device: str = ""

    @cached_property
    def weights(self) -> str:
        """The model_hash of its weights, computed once."""
        return model_hash(self.model)

    @cached_property
    def weights_and_head(self) -> str:
        """The same with the head, which two trainings on one backbone differ in."""
        return model_hash(self.model, head=True)

    @property
    def precision(self) -> str:
        """The field `precision` of its rows."""
        return precision_of(self.model)

    @property
    def row_model(self) -> str:
        """The field `model` of its rows."""
        return self.name or self.variant.name

    def row_weights(self, protocol: Protocol) -> str:
        """The field `weights` of its rows: of what decides the number."""
        return self.weights_and_head if protocol.kind in HEADS else self.weights


def model_under_test(
    weights: str | os.PathLike,
    *,
    variant: Variant | None = None,
    name: str | None = None,
    suffix: str = "",
    patch_resize: str | None = None,
    placement: Placement = ON_CPU,
    runtime: Runtime = SINGLE,
) -> ModelUnderTest:
    """The model of a weights file, with the seed and (`suffix` behind it) the run_id of its training.

    `variant` replaces that of the file, by whose rules it is tested; `patch_resize` the way in which its patch kernels
    are resized (its rows then say so). Commit and device are those of this process: the name of its GPU where the model
    is on one, else of the processor.
    """
    model, trained_variant, metadata = read_subject(weights, placement, runtime=runtime)
    if patch_resize == getattr(model.config, "patch_resize", None):
        patch_resize = None
    if patch_resize is not None:
        model = placed(_resizing(model, patch_resize), placement, runtime=runtime)
    named = head_names(weights, model, metadata)
    here = environment()
    return ModelUnderTest(
        model=model,
        variant=variant or trained_variant,
        seed=metadata.get("seed", 0),
        run_id=metadata.get("digest", "") + suffix,
        name=name,
        classes=None if named is None else named.names,
        fit=fit_of(metadata),
        patch_resize=patch_resize,
        commit=here.get("commit", ""),
        device=device_name(device_of(model)) or here.get("cpu", ""),
    )


def _resizing(model: Backbone, patch_resize: str) -> Backbone:
    """The same weights in a model that resizes its patch kernels so, in eval mode."""
    config = model.config
    if not hasattr(config, "patch_resize"):
        raise ValueError(
            f"patch_resize ({patch_resize}) needs a patch kernel that is resized, and {config.architecture} has none; "
            "leave it out"
        )
    other = build_model(replace(config, patch_resize=patch_resize))
    other.load_state_dict(model.state_dict())
    return other.eval()
