"""Whether a model takes a scale, asked of the model itself on tensors without content: before anything is decoded."""

from collections.abc import Iterable
from functools import lru_cache

import torch

from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import build_model
from stretchysnake.models.backbone import Backbone, BackboneConfig


def check_scales(config: BackboneConfig, scales: Iterable[Scale], *, way_out: str) -> None:
    """ValueError, with the model's own words and then the way out, for the first scale that it cannot take."""
    for scale in scales:
        if refusal := refusal_of(config, scale):
            raise ValueError(
                f"{config.architecture} cannot take T={scale.num_frames} S={scale.size} with patch "
                f"{scale.patch_size}: {refusal}; {way_out}"
            )


@lru_cache(maxsize=4096)
def refusal_of(config: BackboneConfig, scale: Scale, size: tuple[int, int] | None = None) -> str:
    """What the model says of clips of this scale where it cannot take them; "" where it can.

    `size` is (H, W) of clips that are no squares of S: of these no pixel may go unused.
    """
    height, width = size or (scale.size, scale.size)
    try:
        with torch.no_grad():
            video = torch.empty((1, 3, scale.num_frames, height, width), device="meta")
            grid = "floor" if size is None else "exact"
            _without_content(config).features(video, scale.patch_size, grid=grid)
    except ValueError as error:
        return str(error)
    return ""


@lru_cache(maxsize=16)
def _without_content(config: BackboneConfig) -> Backbone:
    with torch.device("meta"):
        return build_model(config).eval()
