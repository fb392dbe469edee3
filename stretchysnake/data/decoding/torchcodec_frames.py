"""The frames of a file, decoded with torchcodec (an extra). Which frames there are stays the packet index's to say."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from stretchysnake.data.containers.packet_index import PacketIndex
from stretchysnake.data.decode_error import DecodeError, damaged_file
from stretchysnake.data.decoding.picture import (
    Orientation,
    Size,
    resized,
    shown_size,
    size_asked,
    upright,
)
from stretchysnake.shown import reason_of


def torchcodec_decoder() -> type:
    """torchcodec's VideoDecoder; RuntimeError with the command to run where it or its FFmpeg is missing."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        raise RuntimeError(
            f"decoder='torchcodec' is not available ({reason_of(error)}): pip install 'stretchysnake[torchcodec]', "
            "and FFmpeg 4 to 8 as shared libraries (Debian: apt install ffmpeg); or use decoder='pyav'."
        ) from None
    return VideoDecoder


def torchcodec_frames(
    path: str,
    index: PacketIndex,
    wanted: list[int],
    size: Size,
    *,
    stream_index: int,
    orientation: Orientation,
    aspect: Fraction,
) -> dict[int, np.ndarray]:
    """Frame index -> upright uint8 RGB (H, W, 3) of the wanted frames of a stream, each checked by its time stamp.

    DecodeError for the file's faults.
    """
    decoder_class = torchcodec_decoder()
    if index.ordinal:
        reason = "its frames are found by counting alone, and torchcodec goes by time stamps; use decoder='pyav'."
        raise DecodeError("corrupt", path, reason)
    try:
        options = {"dimension_order": "NHWC", "num_ffmpeg_threads": 1, "seek_mode": "exact"}
        decoder = decoder_class(path, stream_index=stream_index, **options)
        frames, seconds = _decoded(decoder, wanted)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = f"torchcodec cannot decode it ({reason_of(error)}); try decoder='pyav'."
        raise damaged_file(path, reason) from error
    begin = decoder.metadata.begin_stream_seconds or 0.0
    tolerance = 0.5 * float(index.time_base) + 1e-6
    for i, time in zip(wanted, seconds, strict=True):
        if abs(time - begin - index.seconds(i)) > tolerance:
            reason = f"torchcodec gives the frame of {time:.3f} s as frame {i}; use decoder='pyav'."
            raise DecodeError("corrupt", path, reason)
    # by the angle alone, whatever is mirrored
    turned = round((decoder.metadata.rotation or 0) / 90)

    def pixels_of(frame: np.ndarray) -> np.ndarray:
        stored = np.rot90(frame, -turned)
        shown = shown_size(*stored.shape[:2], orientation, aspect)
        return resized(upright(stored, orientation), size_asked(size, shown))

    return {i: pixels_of(frame.numpy()) for i, frame in zip(wanted, frames, strict=True)}


def _decoded(decoder, wanted: list[int]) -> tuple[list, list[float]]:
    try:
        batch = decoder.get_frames_at(wanted)
        return list(batch.data), batch.pts_seconds.tolist()
    except RuntimeError:  # a picture that changes its size fits into no batch
        frames = [decoder.get_frame_at(i) for i in wanted]
        return [frame.data for frame in frames], [frame.pts_seconds for frame in frames]
