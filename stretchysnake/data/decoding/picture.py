"""How a video's picture is shown: of which track, which way up, with which pixels, at which size.

Nothing here knows a decoder: tracks, frames and display matrices are taken as the decoder gives them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from stretchysnake.data.clips.transforms import resize_frames

Part = Callable[[int, int], tuple[int, int, int, int]]
"""The (top, left, height, width) to keep of a picture shown as (height, width); of one size asked again, the same."""
Size = tuple[int, int] | Callable[[int, int], tuple[int, int]] | None
"""(height, width) asked for; or a function that makes it of those shown; None: those shown."""

_DEFAULT, _ATTACHED_PICTURE = 0x1, 0x400  # FFmpeg's AV_DISPOSITION_*
_SQUARE = 0.01
"""Pixels wider or narrower by less are square: encoders round widths to even numbers and note the rest as an aspect."""
_ABSURD = 10
"""A pixel so many times wider than high, or higher than wide, is a writer's mistake."""


def pictures_of(streams: Sequence) -> list:
    """The video tracks of a file that are videos, not the cover of a piece of music."""
    return [stream for stream in streams if not _flags(stream) & _ATTACHED_PICTURE]


def _flags(stream) -> int:
    return int(getattr(stream.disposition, "value", stream.disposition))  # PyAV 17 has a Flag here


def shown_track(tracks: Sequence):
    """The track that is shown: the one marked as default; of several marked, or none, the largest picture, the first
    of equals (as ffmpeg chooses). Tracks without frames, or of an unknown codec, only where there is nothing else."""
    for keep in (
        lambda track: track.codec_context is not None,
        lambda track: track.frames > 0,
        lambda track: _flags(track) & _DEFAULT,
    ):
        tracks = [track for track in tracks if keep(track)] or tracks
    return max(tracks, key=lambda track: track.width * track.height if track.codec_context else 0)


class Orientation(NamedTuple):
    """What has to be done to stored pixels, in this order, so that they stand upright."""

    transposed: bool = False
    """Rows become columns."""
    mirrored: bool = False
    """Left and right change places."""
    flipped: bool = False
    """Top and bottom change places."""
    degrees: int = 0
    """Turned clockwise inside the same frame, the corners black: what is no quarter turn."""


def orientation_of(frame) -> Orientation:
    """The orientation of a decoded frame, from the container or from the codec's own messages."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return orientation_by(np.frombuffer(data, np.int32).tolist())
    return Orientation()


def orientation_reader() -> Callable:
    """`orientation_of` for the frames of one stream, asked once for each angle of rotation.

    PyAV's side data and its frame hold each other until the garbage collector comes: asked of every frame, hundreds
    of them would stay, 12 MB each at 4K.
    """
    by_angle: dict[float, Orientation] = {}

    def orientation(frame) -> Orientation:
        angle = frame.rotation
        if angle not in by_angle:
            by_angle[angle] = orientation_of(frame)
        return by_angle[angle]

    return orientation


def orientation_by(matrix: Sequence[int]) -> Orientation:
    """What ffmpeg's autorotate does by this display matrix (a b u, c d v, x y w): turns by whole degrees, and mirrors
    in every matrix that has one and turns by quarters."""
    a, b, _, c, d = matrix[:5]
    columns = math.hypot(a, c), math.hypot(b, d)
    if not all(columns):
        return Orientation()
    degrees = round(math.degrees(math.atan2(b / columns[1], a / columns[0]))) % 360
    match degrees:
        case 0:
            return Orientation(flipped=d < 0)
        case 90:
            return Orientation(transposed=True, mirrored=c <= 0)
        case 180:
            return Orientation(mirrored=a < 0, flipped=d < 0)
        case 270:
            return Orientation(transposed=True, mirrored=c < 0, flipped=True)
        case 1:  # too little to turn by, as ffmpeg has it
            return Orientation()
        case _:
            return Orientation(degrees=degrees)


def upright(pixels: np.ndarray, orientation: Orientation) -> np.ndarray:
    """Stored pixels (H, W, 3) uint8 as they stand upright."""
    if orientation.transposed:
        pixels = pixels.swapaxes(0, 1)
    if orientation.mirrored:
        pixels = pixels[:, ::-1]
    if orientation.flipped:
        pixels = pixels[::-1]
    if orientation.degrees:
        pixels = _turned(pixels, math.radians(orientation.degrees))
    return np.ascontiguousarray(pixels)


def _turned(pixels: np.ndarray, angle: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    y = torch.arange(height, dtype=torch.float32)[:, None] - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float32)[None] - (width - 1) / 2
    cos, sin = math.cos(angle), math.sin(angle)
    sides = (
        (cos * x + sin * y) / ((width - 1) / 2 or 1),
        (cos * y - sin * x) / ((height - 1) / 2 or 1),
    )
    planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float()
    turned = F.grid_sample(planes, torch.stack(sides, -1)[None], align_corners=True)
    return turned[0].permute(1, 2, 0).round().byte().numpy()


def pixel_aspect(stream) -> Fraction:
    """Width over height of a stored pixel, by the container or else the codec; 1 where that is unknown or absurd.

    It is one number for the whole stream, so that every frame is shown alike however it is reached.
    """
    aspect = stream.sample_aspect_ratio
    if not aspect or not Fraction(1, _ABSURD) <= aspect <= _ABSURD or abs(aspect - 1) < _SQUARE:
        return Fraction(1)
    return aspect


def shown_size(
    height: int, width: int, orientation: Orientation, aspect: Fraction
) -> tuple[int, int]:
    """(height, width) on a screen of a picture stored as `height` x `width`: the stored height is kept."""
    width = max(1, round(width * aspect))
    return (width, height) if orientation.transposed else (height, width)


def size_asked(size: Size, shown: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) that `size` means for a picture shown as `shown`."""
    if size is None:
        return shown
    return size(*shown) if callable(size) else size


class PictureChanges(Exception):
    """Frames of one stream are shown in several sizes, and a part was asked of all alike."""


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (H, W, 3) uint8 at (height, width), by the resampler of training (transforms.resize_frames)."""
    if pixels.shape[:2] == size:
        return pixels
    return resize_frames(torch.from_numpy(pixels), size).numpy()
