"""Video file -> clip -> batch."""

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
from stretchysnake.data.records import VideoRecord, find_videos, read_records, write_records
from stretchysnake.data.video import probe, read_frames, read_frames_at, verify

__all__ = [
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
    "evaluation_batches",
    "find_videos",
    "probe",
    "read_frames",
    "read_frames_at",
    "read_records",
    "training_batches",
    "verify",
    "write_records",
]
