"""What a test sees of a video's picture: all of it squashed to a square, or squares cut out of it.

| picture  | the frames of a clip                                             |
|----------|------------------------------------------------------------------|
| `whole`  | the whole picture resized to S x S, whatever its shape; with `fit` keep to one near its own |
| `centre` | the short side resized to S, then the middle S x S, as official weights were tested |

`fit` (decoding/fit.py) says it of training and test alike, and `crop` is `centre`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from stretchysnake.data.clips.transforms import center_crop, short_side_size, three_crops
from stretchysnake.data.decoding.fit import checked_fit, fitted_size
from stretchysnake.data.decoding.picture import Size
from stretchysnake.data.decoding.video import read_frames
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale

PICTURES = ("whole", "centre")


def checked_picture(
    picture: str | None, *, num_crops: int = 1, cache: object = None, fit: str = "square"
) -> str | None:
    """The same, or the one that `fit` decides; ValueError where it is not one of PICTURES or None, or where fit, crops
    or a cache of squares forbid it."""
    if picture is not None and picture not in PICTURES:
        raise ValueError(f"picture ({picture!r}) must be one of: {', '.join(PICTURES)}.")
    if num_crops not in (1, 3):
        raise ValueError(f"num_crops ({num_crops}) must be 1 or 3.")
    decided = {"keep": "whole", "crop": "centre"}.get(checked_fit(fit), picture)
    if picture not in (None, decided):
        raise ValueError(
            f"picture ({picture}) and fit ({fit}), which shows the {decided} one, contradict each other; leave one out."
        )
    if num_crops == 3 and decided == "whole":
        what = (
            "fit (keep) shows it whole"
            if fit == "keep"
            else "picture (whole), as an asked fit (square), squashes it into one"
        )
        raise ValueError(
            f"num_crops (3) cuts squares out of the picture, and {what}; use num_crops 1, or picture centre."
        )
    if cache is not None and decided == "centre" and fit != "crop":
        raise ValueError(
            f"picture (centre) needs the picture's own shape, and cache ({cache}) holds squares; leave the cache "
            "out, or use picture whole or fit crop."
        )
    return decided


def shown_fit(picture: str | None, fit: str) -> str:
    """How pictures of a source are fitted at test: its `fit`, but crop where it shows the centre, whichever said so."""
    return "crop" if picture == "centre" else fit


def read_size(scale: Scale, fit: str) -> Size:
    """What the frames of a clip are read at, as `read_frames` takes it; see `fitted`."""
    if fit == "square":
        return scale.size, scale.size
    if fit == "crop":
        return partial(short_side_size, size=scale.size)
    return partial(fitted_size, scale=scale, fit=fit)


def fitted(frames: Tensor, scale: Scale, fit: str) -> Tensor:
    """Of frames (..., H, W, 3) read at `read_size`, those of the clip: all, or the middle square."""
    return center_crop(frames, scale.size) if fit == "crop" else frames


def seen_crops(
    record: VideoRecord,
    indices: Callable[[int, float], Sequence[int]],
    scale: Scale,
    *,
    picture: str,
    num_crops: int = 1,
    decoder: str = "pyav",
    fit: str = "square",
) -> Tensor:
    """Return uint8 frames (num_crops, T, S, S, 3) of a video: the whole picture, its middle, or three squares.

    With `fit` keep, the whole picture is (1, T, H, W, 3) in a shape near its own.

    `indices` says which frames, by how many there are and how many a second.
    """
    checked_picture(picture, num_crops=num_crops, fit=fit)
    frames = torch.from_numpy(
        read_frames(
            record.path,
            indices,
            size=read_size(scale, "crop" if picture == "centre" else fit),
            start_seconds=record.start,
            end_seconds=record.end,
            decoder=decoder,
            with_fps=True,
        )
    )
    if picture == "whole":
        return frames[None]
    size = scale.size
    return three_crops(frames, size) if num_crops == 3 else center_crop(frames, size)[None]
