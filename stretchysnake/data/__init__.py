"""Video file -> clip -> batch.

Names are imported on first use, so that `stretchysnake train --help` answers without loading torch.
"""

import importlib

_HOMES = {
    "Augmentation": "clips.augmentation",
    "BENCHMARKS": "benchmarks",
    "Batch": "clips.loader",
    "CachedClips": "clips.loader",
    "DecodeError": "decode_error",
    "DecodedClips": "clips.loader",
    "DecodingLimits": "clips.loader",
    "FrameCache": "clips.frame_cache",
    "Sampling": "clips.frame_choice",
    "VideoRecord": "records",
    "benchmark_info": "benchmarks",
    "evaluation_batches": "clips.loader",
    "find_videos": "records",
    "load_benchmark": "benchmarks",
    "probe": "decoding.video",
    "read_frames": "decoding.video",
    "read_frames_at": "decoding.video",
    "read_records": "records",
    "read_with_shared_labels": "records",
    "training_batches": "clips.loader",
    "verify": "decoding.video",
    "write_records": "records",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'stretchysnake.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"stretchysnake.data.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
