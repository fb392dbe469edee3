"""What a test sees of a video's picture: all of it squashed to a square, or squares cut out of it.

| picture  | the frames of a clip                                             |
|----------|------------------------------------------------------------------|
| `whole`  | the whole picture resized to S x S, whatever its shape           |
| `centre` | the short side resized to S, then the middle S x S, as official weights were tested |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from stretchysnake.data.clips.transforms import center_crop, short_side_size, three_crops
from stretchysnake.data.decoding.video import read_frames
from stretchysnake.data.records import VideoRecord

PICTURES = ("whole", "centre")


def checked_picture(picture: str | None, *, num_crops: int = 1, cache: object = None) -> str | None:
    """The same; ValueError where it is not one of PICTURES or None, or where crops or a cache of squares forbid it."""
    if picture is not None and picture not in PICTURES:
        raise ValueError(f"picture ({picture!r}) must be one of: {', '.join(PICTURES)}.")
    if num_crops not in (1, 3):
        raise ValueError(f"num_crops ({num_crops}) must be 1 or 3.")
    if num_crops == 3 and picture == "whole":
        raise ValueError(
            "num_crops (3) cuts squares out of the picture, and picture (whole) squashes it into one; "
            "use num_crops 1, or picture centre."
        )
    if cache is not None and picture == "centre":
        raise ValueError(
            f"picture (centre) needs the picture's own shape, and cache ({cache}) holds squares; leave the cache "
            "out, or use picture whole."
        )
    return picture


def seen_crops(
    record: VideoRecord,
    indices: Callable[[int, float], Sequence[int]],
    size: int,
    *,
    picture: str,
    num_crops: int = 1,
    decoder: str = "pyav",
) -> Tensor:
    """Return uint8 frames (num_crops, T, size, size, 3) of a video: the whole picture, its middle, or three squares.

    `indices` says which frames, by how many there are and how many a second.
    """
    checked_picture(picture, num_crops=num_crops)
    frames = torch.from_numpy(
        read_frames(
            record.path,
            indices,
            size=(size, size) if picture == "whole" else partial(short_side_size, size=size),
            start_seconds=record.start,
            end_seconds=record.end,
            decoder=decoder,
            with_fps=True,
        )
    )
    if picture == "whole":
        return frames[None]
    return three_crops(frames, size) if num_crops == 3 else center_crop(frames, size)[None]
