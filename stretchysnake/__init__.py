"""One video backbone for any length, any resolution, any budget.

Names are imported on first use, so that `stretchysnake --help` answers without loading torch.
"""

import importlib

_HOMES = {
    "NANO": "flexibility",
    "PAPER": "flexibility",
    "Placement": "eval.features.placement",
    "Scale": "flexibility",
    "ScaleSets": "flexibility",
    "VARIANTS": "flexibility",
    "Variant": "flexibility",
    "VideoMamba": "models.videomamba",
    "VideoMambaConfig": "models.config",
    "VideoRecord": "data.records",
    "create_model": "models.architectures",
    "embed": "search.embed",
    "eval_scale": "flexibility",
    "features_of_frames": "search.frames.features_of_frames",
    "from_pretrained": "models.weights.loading",
    "keep_freed_memory": "cli.allocator",
    "load_model": "models.weights.loading",
    "long_features": "eval.long_video",
    "open_weights": "search.embed",
    "read_records": "data.records",
    "save_model": "models.weights.files",
    "scale_at": "flexibility",
    "selective_scan": "ops.selective_scan.scan",
}

__version__ = "0.1.0"
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'stretchysnake' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"stretchysnake.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
