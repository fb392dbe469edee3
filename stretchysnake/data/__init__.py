"""Video file -> clip -> batch."""

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
from stretchysnake.data.records import VideoRecord, find_videos, read_records, write_records

__all__ = [
    "Augmentation",
    "Batch",
    "CachedClips",
    "DecodeError",
    "DecodedClips",
    "FrameCache",
    "VideoRecord",
    "evaluation_batches",
    "find_videos",
    "read_records",
    "training_batches",
    "write_records",
]
