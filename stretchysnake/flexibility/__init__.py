"""Which scale a batch has: the paper's five ways of flexing a video model, and vanilla (paper §3.3).

A Scale is (T frames, S pixels, P patch size). A variant draws one Scale per training batch; the draw
depends on (seed, step) alone, so every rank agrees without talking, a resumed run repeats it, and any
step can be redrawn in a test. To add a variant: write one function, add one entry to VARIANTS.

    >>> scale_at("static_tokens", seed=0, step=1)
    Scale(num_frames=64, size=224, patch_size=16)
    >>> eval_scale("static_tokens", num_frames=16, size=96)
    Scale(num_frames=16, size=98, patch_size=7)
"""

from stretchysnake.flexibility.draws import DRAWS, num_scales, scale_at, scales_at
from stretchysnake.flexibility.scales import NANO, PAPER, Scale, ScaleSets, sets_around
from stretchysnake.flexibility.variants import (
    VARIANTS,
    Variant,
    eval_scale,
    flex_all,
    flexivit,
    size_message,
    static_patch,
    static_tokens,
    temporal,
    vanilla,
    variant_named,
)

__all__ = [
    "DRAWS", "NANO", "PAPER", "VARIANTS", "Scale", "ScaleSets", "Variant", "eval_scale", "flex_all", "flexivit",
    "num_scales", "scale_at", "scales_at", "sets_around", "size_message", "static_patch", "static_tokens", "temporal",
    "vanilla", "variant_named",
]  # fmt: skip
