"""Clips of several shapes, where pictures keep their own: whether a model takes them, and their features in order."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from stretchysnake.data.clips.loader import ClipsOfShape
from stretchysnake.data.decoding.fit import fitted_size
from stretchysnake.eval.features.placed_model import device_of
from stretchysnake.flexibility import Scale
from stretchysnake.models.accepted_scales import check_scales, refusal_of
from stretchysnake.models.backbone import Backbone, BackboneConfig
from stretchysnake.models.sequences.packed import features_packed, in_order

TRIED = ((9, 16), (16, 9), (3, 4), (4, 3), (100, 239), (1, 20), (20, 1))
"""(height, width) of the pictures whose shapes a model is asked for: films, phones, television, strips."""


def features_in_order(model: Backbone, parts: Sequence[ClipsOfShape], patch_size: int) -> Tensor:
    """(n, C) fp32 on the CPU: the features of the clips of all parts, by their positions.

    Several shapes are one pass of a model that packs clips, three quarters of the time of a pass for each (Ti 5/6;
    benchmarks/packed.py), else a pass for each.
    """
    device = device_of(model)
    if len(parts) == 1:
        return model.features(parts[0].video.to(device), patch_size, grid="floor").float().cpu()
    clips = [clip for part in parts for clip in part.video.to(device)]
    features = features_packed(model, clips, [patch_size] * len(clips), grid="floor")
    return in_order(features, [part.positions for part in parts]).float().cpu()


def check_fit(config: BackboneConfig, scales: Iterable[Scale], *, fit: str, way_out: str) -> None:
    """`check_scales`; with fit keep ValueError also where the model cannot take pictures in their own shape.

    Which shapes the videos have is not known before they are decoded: some are tried at every scale.
    """
    scales = list(scales)
    check_scales(config, scales, way_out=way_out)
    if fit != "keep":
        return
    for scale in scales:
        for shown in TRIED:
            size = fitted_size(*shown, scale=scale, fit=fit)
            if refusal := refusal_of(config, scale, size):
                raise ValueError(
                    f"fit (keep) gives clips of {size[0]} x {size[1]} at S={scale.size} with patch {scale.patch_size}, "
                    f"which {config.architecture} cannot take: {refusal}; use fit square or crop"
                )
