"""Several lists of frames of one file in one decoding: whole, or of each list a part; by the decoder asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain

import numpy as np

from stretchysnake.data.containers.packet_index import PacketIndex
from stretchysnake.data.decoding.file_index import decoded_in_order, file_index
from stretchysnake.data.decoding.picture import (
    Part,
    PictureChanges,
    Size,
    orientation_of,
    pixel_aspect,
    resized,
    size_asked,
)
from stretchysnake.data.decoding.pyav_frames import SeekMissed, frames_by_stamp
from stretchysnake.data.decoding.torchcodec_frames import torchcodec_decoder, torchcodec_frames
from stretchysnake.data.decoding.video_track import expected_sizes, opened, to_pixels

DECODERS = ("pyav", "torchcodec")


def checked_decoder(decoder: str, *, cache: object = None) -> str:
    """The same; ValueError for an unknown one, or where a frame cache forbids it; RuntimeError where it is missing."""
    if decoder not in DECODERS:
        raise ValueError(f"decoder ({decoder!r}) must be one of: {', '.join(DECODERS)}.")
    if decoder == "torchcodec":
        if cache is not None:
            raise ValueError(
                f"decoder (torchcodec) reads the files, and cache ({cache}) holds frames that pyav decoded; leave the "
                "cache out, or use decoder pyav."
            )
        torchcodec_decoder()
    return decoder


def frames_of_lists(
    path: str, choose: Callable, size: Size, decoder: str, parts: Sequence[Part | None]
) -> list[np.ndarray]:
    """The frames of each list of numbers that `choose` gives; `parts`, one for each, are all None or none is."""
    checked_decoder(decoder)
    with opened(path) as (container, stream):
        index = file_index(path, container, stream)
        chosen = choose(index)
        wanted, whole = sorted(set(chain(*chosen))), parts[0] is None
        if not wanted:
            return [np.empty((0, 0, 0, 3), np.uint8) for _ in chosen]
        if not whole and decoder == "pyav":
            pixels_of = _parts_of(size, stream, chosen, parts)
            with suppress(PictureChanges):
                frames = _decoded(path, container, stream, index, wanted, pixels_of)
                return [np.stack([frames[i][k] for i in one]) for k, one in enumerate(chosen)]
        given = size if whole else None
        pixels_of, expected = to_pixels(given, stream), expected_sizes(given, stream)
        if decoder == "torchcodec":
            number, aspect = stream.index, pixel_aspect(stream)
        else:
            frames = _decoded(path, container, stream, index, wanted, pixels_of)
    if decoder == "torchcodec":
        orientation = _first(path, index, lambda frame, _: orientation_of(frame))
        options = {"stream_index": number, "orientation": orientation, "aspect": aspect}
        frames = torchcodec_frames(path, index, wanted, given, **options)
    sizes = {frame.shape[:2] for frame in frames.values()}
    if len(sizes) > 1 or not sizes <= expected:  # the picture changes size; the first one's stays
        first = frames[0] if 0 in frames else _first(path, index, pixels_of)
        frames = {i: resized(frame, first.shape[:2]) for i, frame in frames.items()}
    if whole:
        return [np.stack([frames[i] for i in one]) for one in chosen]
    cut = []
    for one, part in zip(chosen, parts, strict=True):
        kept = {i: _part_resized(frames[i], part, size) for i in set(one)}
        cut.append(np.stack([kept[i] for i in one]))
    return cut


def _parts_of(
    size: Size, stream, chosen: Sequence[Sequence[int]], parts: Sequence[Part]
) -> Callable:
    """What makes of a frame the part of each of the lists that hold it: their number -> pixels."""
    ways = [
        (set(one), to_pixels(size, stream, part)) for one, part in zip(chosen, parts, strict=True)
    ]

    def pixels_of(frame, i: int) -> dict[int, np.ndarray]:
        return {k: way(frame, i) for k, (ours, way) in enumerate(ways) if i in ours}

    return pixels_of


def _decoded(path: str, container, stream, index: PacketIndex, wanted: list[int], pixels_of):
    """Frame index -> pixels of the wanted frames of an opened file."""
    if index.ordinal:  # no usable time stamps: go through in order
        return dict(decoded_in_order(path, index, wanted, pixels_of))
    with suppress(SeekMissed):
        return dict(frames_by_stamp(container, stream, index, wanted, pixels_of))
    return dict(decoded_in_order(path, index, wanted, pixels_of))


def _part_resized(pixels: np.ndarray, part: Part, size: Size) -> np.ndarray:
    shown = pixels.shape[:2]
    top, left, height, width = part(*shown)
    return resized(pixels[top : top + height, left : left + width], size_asked(size, shown))


def _first(path: str, index: PacketIndex, what_of: Callable):
    """`what_of` the first frame."""
    return dict(decoded_in_order(path, index, [0], what_of))[0]
