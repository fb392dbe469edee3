"""Frames in, video files and images out, through PyAV."""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np


def write_video(
    path: str | os.PathLike,
    frames: np.ndarray,
    *,
    fps: int = 30,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> None:
    """Write uint8 RGB frames (T, H, W, 3), H and W even, as yuv420p; the container follows the file's extension.

    Frames (T, H * 3 // 2, W) are taken as yuv420p already. One encoder thread, so the same frames give the same bytes.
    """
    import av

    pixel_format = "rgb24" if frames.ndim == 4 else "yuv420p"
    num_frames, height, width = frames.shape[:3]
    if pixel_format == "yuv420p":
        height = height * 2 // 3
    if height % 2 or width % 2:
        raise ValueError(
            f"frame size ({height}x{width}) must be even for yuv420p; crop or pad by one pixel."
        )
    if codec == "libx264" and options is None:
        options = {"preset": "ultrafast", "crf": "23"}
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for i in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frames[i], format=pixel_format)))
        container.mux(stream.encode())


def write_image(path: str | os.PathLike, pixels: np.ndarray) -> None:
    """Write uint8 RGB pixels (H, W, 3) as PNG."""
    with open(path, "wb") as file:
        file.write(png_bytes(pixels))


def png_bytes(pixels: np.ndarray) -> bytes:
    """The PNG of uint8 RGB pixels (H, W, 3)."""
    import av

    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = pixels.shape[:2]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
