"""Video file -> clip -> batch."""

from stretchysnake.data.benchmarks import BENCHMARKS, benchmark_info, load_benchmark
from stretchysnake.data.clips import Sampling
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.frame_cache import FrameCache
from stretchysnake.data.loader import (
    Augmentation,
    Batch,
    CachedClips,
    DecodedClips,
    DecodingLimits,
    TimedBatches,
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
from stretchysnake.data.video import probe, read_frames, read_frames_at, verify

__all__ = [
    "BENCHMARKS",
    "Augmentation",
    "Batch",
    "CachedClips",
    "DecodeError",
    "DecodedClips",
    "DecodingLimits",
    "FrameCache",
    "Sampling",
    "TimedBatches",
    "VideoRecord",
    "benchmark_info",
    "evaluation_batches",
    "find_videos",
    "load_benchmark",
    "probe",
    "read_frames",
    "read_frames_at",
    "read_records",
    "read_with_shared_labels",
    "training_batches",
    "verify",
    "write_records",
]
