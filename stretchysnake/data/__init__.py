"""Video file -> clip -> batch."""

from stretchysnake.data.benchmarks import BENCHMARKS, benchmark_info, load_benchmark
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.frame_cache import FrameCache
from stretchysnake.data.loader import (
    Augmentation,
    Batch,
    CachedClips,
    DecodedClips,
    evaluation_batches,
    training_batches,
)
from stretchysnake.data.records import (
    VideoRecord,
    find_videos,
    read_records,
    read_with_shared_labels,
    write_records,
)

__all__ = [
    "BENCHMARKS",
    "Augmentation",
    "Batch",
    "CachedClips",
    "DecodeError",
    "DecodedClips",
    "FrameCache",
    "VideoRecord",
    "benchmark_info",
    "evaluation_batches",
    "find_videos",
    "load_benchmark",
    "read_records",
    "read_with_shared_labels",
    "training_batches",
    "write_records",
]
