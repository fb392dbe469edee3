"""The classes of any videos, by any classifier: probabilities averaged over views × crops, and the frames looked at."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.data.clips.clip_source import DecodedClips, DecodingLimits
from stretchysnake.data.clips.frame_choice import Sampling
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.records import VideoRecord
from stretchysnake.eval.features.passes import features_of
from stretchysnake.eval.protocols.classifier import Classifier


class VideoClasses(NamedTuple):
    """What one video shows, as far as the classifier can tell."""

    path: str
    probabilities: Tensor
    """(K,) fp64, the mean over views and crops."""
    clips: Tensor
    """(views * crops, T, S, S, 3) uint8: all that was looked at; with fit keep (.., T, H, W, 3)."""


def classes_of(
    classifier: Classifier,
    paths: Sequence[str],
    *,
    num_views: int = 1,
    num_crops: int = 1,
    picture: str | None = None,
    sampling: Sampling | None = None,
    batch_size: int | None = None,
    limits: DecodingLimits | None = None,
    progress: Callable[[str], None] | None = None,
) -> Iterator[VideoClasses | DecodeError]:
    """Yield for each path, in order, its classes at the classifier's scale, or why there are none.

    Views, crops, `picture` and `sampling` are those of the test of a trained head (`DecodedClips.views`); the
    probabilities are averaged, as there. The model computes where it is placed, batch_size clips in a pass (None: all
    of a video).
    """
    scale, model = classifier.scale, classifier.model
    records = [VideoRecord(path, 0) for path in paths]
    clips = DecodedClips(
        records,
        sampling=sampling,
        picture=picture,
        fit=classifier.fit,
        limits=limits or DecodingLimits(),
    )
    drawn = clips.draw_views(range(len(records)), scale, num_views=num_views, num_crops=num_crops)
    for number, (path, views) in enumerate(zip(paths, drawn, strict=True), 1):
        if progress:
            progress(f"classified {number}/{len(paths)} videos")
        if isinstance(views, DecodeError):
            yield views
            continue
        at_once = batch_size or len(views)
        features = features_of(model, scale, torch.as_tensor(views).numpy(), batch_size=at_once)
        found = classifier.probabilities(torch.from_numpy(features)).mean(0).cpu()
        if not found.isfinite().all():
            reason = "its class scores are not finite; the weights are damaged or it shows nothing."
            yield DecodeError("corrupt", path, reason)
            continue
        yield VideoClasses(path, found, views)
