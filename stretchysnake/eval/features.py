"""FeatureSet: frozen [CLS] features of a list of clips at one scale, the waist of every protocol."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stretchysnake.data.loader import evaluation_batches
from stretchysnake.flexibility import Scale
from stretchysnake.models.videomamba import VideoMamba


@dataclass(frozen=True)
class FeatureSet:
    """features (n, C) fp32 with, row by row, labels (n,) int64, groups and paths; and the scale they have."""

    features: Tensor
    labels: Tensor
    groups: list[str]
    paths: list[str]
    scale: Scale
    num_expected: int
    """Videos asked for; more than len(paths) when some could not be read."""

    def __post_init__(self):
        n = len(self.features)
        if not (len(self.labels) == len(self.groups) == len(self.paths) == n):
            raise ValueError(
                f"features ({n}), labels ({len(self.labels)}), groups ({len(self.groups)}) and paths "
                f"({len(self.paths)}) must be equally many"
            )
        if not self.features.isfinite().all():
            raise ValueError(
                f"features at {self.scale} hold non-finite values; the weights are damaged"
            )


def extract(
    model: VideoMamba,
    clips,
    scale: Scale,
    *,
    batch_size: int = 32,
    progress: Callable[[str], None] | None = None,
) -> FeatureSet:
    """The features of every clip, in order, with uniform frames and no augmentation; model in eval mode.

    clips is a source from data/loader.py. Videos that cannot be read are absent from the set and counted
    in num_expected, never replaced.
    """
    device = next(model.parameters()).device
    model.eval()
    kept, found = [], []
    with torch.inference_mode():
        for indices, video in evaluation_batches(clips, scale, batch_size):
            exact = "exact" if scale.size % scale.patch_size == 0 else "floor"
            found.append(
                model.features(video.to(device), scale.patch_size, grid=exact).float().cpu()
            )
            kept.extend(int(i) for i in indices)
            if progress:
                progress(f"features at T={scale.num_frames} S={scale.size}: {len(kept)} videos")
    records = [clips.records[i] for i in kept]
    return FeatureSet(
        torch.cat(found).clone() if found else torch.empty(0, model.config.embed_dim),
        torch.tensor([record.label for record in records], dtype=torch.int64),
        [record.group for record in records],
        [record.path for record in records],
        scale,
        len(clips.records) + len(clips.failures),
    )
