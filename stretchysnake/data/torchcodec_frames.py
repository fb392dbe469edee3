"""The frames of a file, decoded with torchcodec (an extra). Which frames there are stays the packet index's to say."""

from __future__ import annotations

import numpy as np

from stretchysnake.data.decode_error import DecodeError, damaged_file, reason_of
from stretchysnake.data.packet_index import PacketIndex


def torchcodec_frames(
    path: str, index: PacketIndex, wanted: list[int], size: tuple[int, int] | None
) -> dict[int, np.ndarray]:
    """Frame index -> upright uint8 RGB (H, W, 3) of the wanted frames, each checked by its time stamp.

    RuntimeError with the command to run where torchcodec or its FFmpeg is missing; DecodeError for the file's faults.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        raise RuntimeError(
            f"decoder='torchcodec' is not available ({reason_of(error)}): pip install 'stretchysnake[torchcodec]', "
            "and FFmpeg 4 to 8 as shared libraries (Debian: apt install ffmpeg); or use decoder='pyav'."
        ) from None
    if not wanted:
        return {}
    if index.ordinal:
        reason = "its frames are found by counting alone, and torchcodec goes by time stamps; use decoder='pyav'."
        raise DecodeError("corrupt", path, reason)
    try:
        decoder = VideoDecoder(
            path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
        )
        batch = decoder.get_frames_at(wanted)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = f"torchcodec cannot decode it ({reason_of(error)}); try decoder='pyav'."
        raise damaged_file(path, reason) from error
    begin = decoder.metadata.begin_stream_seconds or 0.0
    tolerance = 0.5 * float(index.time_base) + 1e-6
    for i, found in zip(wanted, batch.pts_seconds.tolist(), strict=True):
        if abs(found - begin - index.seconds(i)) > tolerance:
            reason = (
                f"torchcodec gives the frame of {found:.3f} s as frame {i}; use decoder='pyav'."
            )
            raise DecodeError("corrupt", path, reason)
    pixels = batch.data if size is None else _resized(batch.data, size)
    return {i: frame.numpy() for i, frame in zip(wanted, pixels, strict=True)}


def _resized(frames, size: tuple[int, int]):
    """Area averaging where both sides shrink, bilinear where one grows; PyAV's scaler differs by rounding."""
    import torch.nn.functional as F

    pixels = frames.permute(0, 3, 1, 2).float()
    grows = size[0] > pixels.shape[2] or size[1] > pixels.shape[3]
    options = {"mode": "bilinear", "antialias": True} if grows else {"mode": "area"}
    return F.interpolate(pixels, size, **options).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
