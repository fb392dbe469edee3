"""Whether a model takes a scale, asked of the model itself on tensors without content: before anything is decoded.

H W pixels of a frame, S of a square one's side.
"""

from collections.abc import Iterable
from functools import lru_cache

import torch

from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import build_model
from stretchysnake.models.backbone import Backbone, BackboneConfig

MOST_PIXELS = 2**32
"""Of a clip. Far more cannot be counted in 64 bits, nor their frames be listed, and torch says so in its own words."""


def check_scales(config: BackboneConfig, scales: Iterable[Scale], *, way_out: str) -> None:
    """ValueError, with the model's own words and then the way out, for the first scale that it cannot take.

    The native scale is what the weights were stored for and is not asked: tensors without content have torch load its
    compiler, 2.5 s of processor time in a command that may take 5.
    """
    for scale in scales:
        if scale != config.native and (refusal := refusal_of(config, scale)):
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
    if scale.num_frames * height * width > MOST_PIXELS:
        return f"a clip may have at most {MOST_PIXELS:,} pixels, which are 48 GiB in fp32"
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
