"""FeatureSet: frozen [CLS] features of a list of clips at one scale, the waist of every protocol."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stretchysnake.data.clips.loader import shaped_batches
from stretchysnake.data.clips.seen_picture import shown_fit
from stretchysnake.eval.features.placed_model import inference, precision_of
from stretchysnake.eval.features.shapes import features_in_order
from stretchysnake.eval.features.shares import agree_on_failure, own_share, put_together
from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import config_to_dict
from stretchysnake.models.backbone import Backbone, pixels_of
from stretchysnake.ranks import SINGLE, Runtime


@dataclass(frozen=True)
class FeatureSet:
    """features (n, C) fp32 with, row by row, labels (n,) int64, groups and paths; and the scale they have."""

    features: Tensor
    labels: Tensor
    groups: list[str]
    """Clips that must not meet in a group-safe protocol share a group; "" belongs to none."""
    paths: list[str]
    scale: Scale
    num_expected: int
    """Videos asked for; more than len(paths) when some could not be read."""
    model: str = ""
    """`model_hash` of the weights; "" where it is not known."""
    segments: list[tuple[float | None, float | None]] = field(default_factory=list)
    """(start, end) of each in seconds, None for the video's own; empty: all are whole videos."""
    fit: str = "square"
    """How the pictures were fitted (data/decoding/fit.py); the picture "centre" is crop."""
    precision: str = "fp32"
    """In which the model computed, as in Placement."""

    def __post_init__(self):
        n = len(self.features)
        if self.segments and len(self.segments) != n:
            raise ValueError(f"segments ({len(self.segments)}) must be as many as features ({n})")
        if not (len(self.labels) == len(self.groups) == len(self.paths) == n):
            raise ValueError(
                f"features ({n}), labels ({len(self.labels)}), groups ({len(self.groups)}) and paths "
                f"({len(self.paths)}) must be equally many"
            )
        if not self.features.isfinite().all():
            bad = int((~self.features.flatten(1).isfinite().all(1)).nonzero()[0])
            raise ValueError(
                f"features at {self.scale} hold non-finite values, first in row {bad} "
                f"({self.paths[bad]}); the weights are damaged"
            )


def model_hash(model: Backbone, *, head: bool = False) -> str:
    """16 hex digits that name the weights and the configuration that `features` depends on; with `head`, logits."""
    digest = hashlib.sha256(json.dumps(config_to_dict(model.config), sort_keys=True).encode())
    state = model.state_dict(keep_vars=True)
    of_head = {id(tensor) for tensor in model.head.state_dict(keep_vars=True).values()}
    in_head = {name for name, tensor in state.items() if id(tensor) in of_head}
    for name, tensor in sorted(state.items()):
        if name in in_head and not head:
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def extract(
    model: Backbone,
    clips,
    scale: Scale,
    *,
    batch_size: int = 32,
    num_views: int = 1,
    progress: Callable[[str], None] | None = None,
    weights: str | None = None,
    runtime: Runtime = SINGLE,
) -> FeatureSet:
    """The features of every clip, in order, with uniform frames and no augmentation; model in eval mode.

    clips is a source from data/clips/loader.py. Videos that cannot be read are absent from the set and counted
    in num_expected, never replaced. `weights` is the model_hash where the caller knows it. With several
    ranks each computes its share, and all hold the whole set, equal to that of one process. Of several views of a
    video, each of other frames, the features are averaged; the source must show the whole picture (`picture`).
    """
    if batch_size < 1:
        raise ValueError(f"batch_size ({batch_size}) must be at least 1")
    if num_views > 1 and clips.picture != "whole":
        raise ValueError(
            f'num_views ({num_views}) of features needs clips that show the "whole" picture, not {clips.picture}; open '
            'them with picture="whole" or from a frame cache'
        )
    model.eval()
    places, features, trouble = [], [torch.empty(0, model.config.feature_dim)], None
    mine = own_share(len(clips), batch_size, runtime)
    try:
        with inference(model):
            options = {"indices": mine, "pixels": pixels_of(model.config), "num_views": num_views}
            for indices, parts in shaped_batches(clips, scale, batch_size, **options):
                found = features_in_order(model, parts, scale.patch_size)
                features.append(found.unflatten(0, (len(indices), -1)).mean(1))
                places.extend(int(i) for i in indices)
                if progress:
                    progress(
                        f"features at T={scale.num_frames} S={scale.size}: {len(places)} videos"
                    )
    except (MemoryError, RuntimeError) as error:
        trouble = error
    agree_on_failure(trouble, runtime)
    places, values = put_together(clips, places, torch.cat(features).clone(), runtime)
    records = [clips.records[i] for i in places]
    return FeatureSet(
        values,
        torch.tensor([record.label for record in records], dtype=torch.int64),
        [record.group for record in records],
        [record.path for record in records],
        scale,
        len(clips.records) + len(clips.failures),
        weights or model_hash(model),
        [(record.start, record.end) for record in records],
        shown_fit(clips.picture, clips.fit),
        precision_of(model),
    )


def check_comparable(gallery: FeatureSet, queries: FeatureSet) -> None:
    """ValueError, with the reason, where comparing the two sets would give a number without meaning."""
    if gallery.scale != queries.scale:
        raise ValueError(
            f"gallery is at {gallery.scale}, queries at {queries.scale}; extract both at one scale"
        )
    if gallery.fit != queries.fit:
        raise ValueError(
            f"gallery has fit {gallery.fit}, queries {queries.fit}; extract both with one fit"
        )
    if gallery.model != queries.model:
        raise ValueError(
            f"gallery features are of model {gallery.model or '(unknown)'}, queries of "
            f"{queries.model or '(unknown)'}; extract both with the same weights"
        )
    if gallery.precision != queries.precision:
        raise ValueError(
            f"gallery features are of precision {gallery.precision}, queries of {queries.precision}; extract both in "
            "the same"
        )
    for name, features in (("queries", queries), ("gallery", gallery)):
        if not features.paths:
            raise ValueError(
                f"{name} (0 of {features.num_expected} videos) must hold at least one; check the list"
            )
    if gallery.features.shape[1] != queries.features.shape[1]:
        raise ValueError(
            f"gallery features have {gallery.features.shape[1]} numbers, queries "
            f"{queries.features.shape[1]}; extract both with the same weights"
        )
    check_labels(gallery.labels.tolist(), queries.labels.tolist())


def check_labels(gallery: list[int], queries: list[int]) -> None:
    """ValueError when the gallery has one class, or lacks classes of the queries."""
    classes = set(gallery)
    if len(classes) == 1:
        raise ValueError(
            f"gallery holds one class (label {classes.pop()}), so every answer would be the same; "
            "give a gallery with two classes or more"
        )
    lost = [label for label in queries if label not in classes]
    if lost:
        names = ", ".join(map(str, sorted(set(lost))[:8]))
        raise ValueError(
            f"labels ({names}) of {len(lost)} queries occur in no gallery video, so these queries "
            "can never be right; add gallery videos of these classes or leave the queries out"
        )
