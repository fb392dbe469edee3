"""Video file -> clip -> batch.

Names are imported on first use, so that `stretchysnake train --help` answers without loading torch.
"""

import importlib

_HOMES = {
    "Augmentation": "augmentation",
    "BENCHMARKS": "benchmarks",
    "Batch": "loader",
    "CachedClips": "loader",
    "DecodeError": "decode_error",
    "DecodedClips": "loader",
    "DecodingLimits": "loader",
    "FrameCache": "frame_cache",
    "Sampling": "clips",
    "TimedBatches": "loader",
    "VideoRecord": "records",
    "benchmark_info": "benchmarks",
    "evaluation_batches": "loader",
    "find_videos": "records",
    "load_benchmark": "benchmarks",
    "probe": "video",
    "read_frames": "video",
    "read_frames_at": "video",
    "read_records": "records",
    "read_with_shared_labels": "records",
    "training_batches": "loader",
    "verify": "video",
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
