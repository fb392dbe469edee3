"""Test of a trained classifier head: views × crops of every video, class scores averaged (paper §4.3, Fig. 4).

For fine-tuned weights, and for a linear probe trained by SGD with augmentation (`trainable: head`).
Paper does not say how many views and crops; we take them as arguments. Paper does not say what is averaged;
we use the classes' probabilities, because that is the usual test of the models it compares with.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.data.clips.augment import by_shape
from stretchysnake.data.clips.loading.evaluation import normalised
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.eval.features.placed_model import device_of, inference
from stretchysnake.eval.features.shares import agree_on_failure, own_share, put_together
from stretchysnake.flexibility import Scale
from stretchysnake.models.backbone import Backbone, pixels_of
from stretchysnake.models.sequences.packed import in_order
from stretchysnake.ranks import SINGLE, Runtime


class Answers(NamedTuple):
    """Whether each video that could be read was classified rightly, and which videos these are."""

    right: Tensor
    """(n,) bool"""
    paths: list[str]
    labels: Tensor
    num_expected: int
    segments: list[tuple[float | None, float | None]]
    """(start, end) of each, as in a FeatureSet"""


def check_head(model: Backbone, labels: Tensor) -> None:
    """ValueError when the weights hold no classifier of these labels (n,)."""
    classes = model.config.num_classes
    highest = int(labels.max()) if len(labels) else 0
    if classes <= highest:
        raise ValueError(
            f"weights classify {classes} classes, and the queries have labels up to {highest}; "
            "give weights fine-tuned on this data set's training list"
        )


def classify(
    model: Backbone,
    clips,
    scale: Scale,
    *,
    num_views: int = 1,
    num_crops: int = 1,
    batch_size: int = 32,
    wanted: Sequence[int] | None = None,
    progress: Callable[[str], None] | None = None,
    runtime: Runtime = SINGLE,
) -> Answers:
    """The answers for every video of a clip source, in order; batch_size clips (not videos) at a time.

    `wanted` is the output of the head that is right for each video (`head_labels`); without it, the label.
    """
    right = clips.labels if wanted is None else torch.tensor(wanted, dtype=torch.int64)
    check_head(model, right)
    device = device_of(model)
    model.eval()
    at_once = max(1, batch_size // (num_views * num_crops))
    mine = own_share(len(clips), at_once, runtime)
    indices, scores, waiting, trouble = [], [torch.empty(0, model.config.num_classes)], [], None

    def score() -> None:
        parts = by_shape(waiting)  # one, but where pictures keep their shape
        found = []
        for part in parts:
            views = [view for i in part for view in waiting[i]]
            video = normalised(views, pixels_of(model.config)).to(device)
            logits = model(video, scale.patch_size, grid="floor").float().cpu()
            found.append(logits.softmax(1).unflatten(0, (len(part), -1)).mean(1))
        scores.append(in_order(torch.cat(found), parts))
        waiting.clear()
        if progress:
            progress(f"classified at T={scale.num_frames} S={scale.size}: {len(indices)} videos")

    try:
        with inference(model):
            counts = {"num_views": num_views, "num_crops": num_crops}
            drawn = clips.draw_views(mine, scale, **counts, num_kept=at_once)
            for index, views in zip(mine, drawn, strict=True):
                if isinstance(views, DecodeError):
                    continue
                indices.append(index)
                waiting.append(torch.as_tensor(views))
                del views  # its memory is needed for those ahead
                if len(waiting) == at_once:
                    score()
            if waiting:
                score()
    except (MemoryError, RuntimeError) as error:
        trouble = error
    agree_on_failure(trouble, runtime)
    indices, values = put_together(clips, indices, torch.cat(scores), runtime)
    paths, expected = [clips.records[i].path for i in indices], len(clips) + len(clips.failures)
    if not indices:
        raise ValueError(f"queries (0 of {expected} videos) must hold at least one; check the list")
    if not values.isfinite().all():
        bad = int((~values.isfinite().all(1)).nonzero()[0])
        raise ValueError(
            f"class scores at {scale} hold non-finite values, first of {paths[bad]}; the weights are damaged"
        )
    segments = [(clips.records[i].start, clips.records[i].end) for i in indices]
    hits = values.argmax(1) == right[indices]
    return Answers(hits, paths, clips.labels[indices], expected, segments)
