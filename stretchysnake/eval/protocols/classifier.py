"""A classifier of videos: a model with what turns its features into probabilities of named classes.

Of weights that bring a head (`classifier_of_weights`), or a folder that `finetune` wrote:

    folder/
      weights.safetensors      the backbone (with its head, where that was fine-tuned)
      classifier.safetensors   kind, class names, scale, fit and SHA-256 of the weights; the tensors of k-NN or probe

n videos, C width, K classes.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stretchysnake.data.decoding.fit import checked_fit
from stretchysnake.eval.features.head_names import BESIDE, head_names
from stretchysnake.eval.features.placed_model import device_of
from stretchysnake.eval.features.placement import ON_CPU, Placement
from stretchysnake.eval.features.shapes import check_fit
from stretchysnake.eval.features.subject import fit_of, read_subject
from stretchysnake.eval.protocols.nearest import nearest
from stretchysnake.eval.protocols.probe import LinearProbe
from stretchysnake.flexibility import Scale, eval_scale
from stretchysnake.models.backbone import Backbone
from stretchysnake.models.weights.loading import load_model
from stretchysnake.whole_file import sha256_of, unfinished_file

FORMAT = "stretchysnake-classifier-1"
WEIGHTS, CLASSIFIER = "weights.safetensors", "classifier.safetensors"
KINDS = ("knn", "probe", "finetune")
NEIGHBOURS = 3
"""Votes of k-NN; fewer where there are fewer training videos."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A model with what turns its features at `scale` into probabilities of `classes`."""

    model: Backbone
    kind: str
    """"knn" (votes of the nearest training videos), "probe" (logistic regression) or "finetune" (the model's head)."""
    classes: list[str]
    scale: Scale
    tensors: dict[str, Tensor]
    precision: str = "fp32"
    """In which the features were computed that the tensors are made of; of those of earlier versions, fp32."""
    fit: str = "square"
    """How pictures are fitted (data/decoding/fit.py); classifiers of earlier versions do not say, and are square."""

    def probabilities(self, features: Tensor) -> Tensor:
        """(n, K) fp64; those of k-NN are shares of votes, and a tie goes to the nearest."""
        if self.kind == "finetune":
            with torch.inference_mode():
                logits = self.model.head(features.to(device_of(self.model)))
                return logits.cpu().double().softmax(1)
        if self.kind == "probe":
            fields = {
                name: self.tensors[name] for name in ("classes", "weight", "bias", "mean", "scale")
            }
            shares = LinearProbe(**fields, strength=1.0).logits(features).softmax(1)
            spread = features.new_zeros(len(features), len(self.classes), dtype=torch.float64)
            spread[:, self.tensors["classes"]] = shares
            return spread
        gallery, labels = self.tensors["features"], self.tensors["labels"]
        rows = nearest(features, gallery, k=min(NEIGHBOURS, len(gallery)))
        votes = torch.zeros(len(features), len(self.classes), dtype=torch.float64)
        for place in range(rows.shape[1]):
            share = torch.full((len(features), 1), (1 - 1e-3 * place) / rows.shape[1]).double()
            votes.scatter_add_(1, labels[rows[:, place], None], share)
        return votes / votes.sum(1, keepdim=True)


def classifier_of_weights(
    weights: str | os.PathLike,
    *,
    classes: str | os.PathLike | None = None,
    num_frames: int | None = None,
    size: int | None = None,
    placement: Placement = ON_CPU,
) -> tuple[Classifier, str]:
    """The classifier that weights bring, at a scale (native unless given), and where its class names are from.

    `classes` as in `head_names`; outputs that nobody names are called by their numbers. ValueError for weights without
    a head.
    """
    model, variant, metadata = read_subject(weights, placement)
    outputs = model.config.num_classes
    if not outputs:
        raise ValueError(
            f"weights ({weights}) hold no classifier; give weights fine-tuned on classes, or make one of your own "
            f"with: stretchysnake finetune VIDEOS --weights {weights} -o FOLDER"
        )
    scale = eval_scale(variant, num_frames=num_frames, size=size)
    fit = fit_of(metadata)
    check_fit(model.config, [scale], fit=fit, way_out="choose other --frames or --size")
    found = head_names(weights, model, metadata, classes=classes)
    if found is None:
        names = [f"class {number}" for number in range(outputs)]
        source = (
            f"numbers: these weights do not say what their {outputs} outputs are called; give --classes FILE (one "
            f"name a line), or put that file beside them as {BESIDE}"
        )
    else:
        names, source = found
    made = Classifier(
        model=model,
        kind="finetune",
        classes=names,
        scale=scale,
        tensors={},
        precision=placement.precision,
        fit=fit,
    )
    return made, source


def precision_for(classifier: Classifier, wanted: str | None) -> str:
    """In which precision its features are to be computed: its own, or of a fine-tuned head the one that is wanted."""
    if wanted not in (None, classifier.precision) and classifier.kind != "finetune":
        raise ValueError(
            f"precision ({wanted}) must be that of the features this {classifier.kind} model was made of "
            f"({classifier.precision}); leave it out, or make the model with finetune --precision {wanted}"
        )
    return wanted or classifier.precision


def save_classifier(folder: str | os.PathLike, classifier: Classifier) -> None:
    """Write classifier.safetensors beside the weights, which must be there."""
    folder = Path(folder)
    header = {
        "format": FORMAT,
        "kind": classifier.kind,
        "classes": json.dumps(classifier.classes),
        "scale": json.dumps(asdict(classifier.scale)),
        "fit": classifier.fit,
        "weights_sha256": sha256_of(folder / WEIGHTS),
        "precision": classifier.precision,
    }
    tensors = {name: tensor.contiguous() for name, tensor in classifier.tensors.items()}
    with unfinished_file(folder / CLASSIFIER) as part:
        save_file(tensors or {"none": torch.zeros(1)}, part, metadata=header)


def load_classifier(folder: str | os.PathLike) -> Classifier:
    """The classifier of a folder; ValueError where it is none, damaged, or its weights are others."""
    folder = Path(folder)
    path = folder / CLASSIFIER
    if not path.is_file():
        raise ValueError(
            f"model ({folder}) holds no {CLASSIFIER}; make it with: stretchysnake finetune VIDEOS --weights W "
            f"-o {folder}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # copies: memory that looks into a file begins anywhere, which changes the last bits
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 not a dict
        if header.get("format") != FORMAT:
            raise ValueError(f"model ({folder}) is not of format {FORMAT}; fine-tune again")
        classes, scale = json.loads(header["classes"]), Scale(**json.loads(header["scale"]))
        fit = checked_fit(header.get("fit", "square"))
        if sha256_of(folder / WEIGHTS) != header["weights_sha256"]:
            raise ValueError(
                f"model ({folder}): {WEIGHTS} is not the one it was made with; fine-tune again"
            )
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"model ({folder}) is damaged ({error}); fine-tune again") from None
    model, _ = load_model(folder / WEIGHTS)
    return Classifier(
        model=model,
        kind=header["kind"],
        classes=classes,
        scale=scale,
        tensors=tensors,
        fit=fit,
        precision=header.get("precision", "fp32"),
    )
