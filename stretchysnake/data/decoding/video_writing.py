"""Frames in, video files and images out, through PyAV."""

from __future__ import annotations

import os
from fractions import Fraction
from io import BytesIO

import numpy as np


def write_video(
    path: str | os.PathLike | BytesIO,
    frames: np.ndarray,
    *,
    fps: int | Fraction = 30,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> None:
    """Write uint8 RGB frames (T, H, W, 3), H and W even, as yuv420p; the container follows the file's extension
    (into memory: mp4).

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
    in_memory = isinstance(path, BytesIO)
    where = (path, "w", "mp4") if in_memory else (os.fspath(path), "w")
    with av.open(*where) as container:
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


def mp4_bytes(frames: np.ndarray, *, fps: int | Fraction) -> bytes:
    """A small H.264 video of uint8 RGB frames (T, H, W, 3), H and W even, that a browser plays."""
    file = BytesIO()
    write_video(file, frames, fps=fps, options={"preset": "fast", "crf": "30", "profile": "main"})
    return file.getvalue()


def jpeg_bytes(pixels: np.ndarray) -> bytes:
    """The JPEG of uint8 RGB pixels (H, W, 3), H and W even."""
    import av

    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.height, encoder.width = pixels.shape[:2]
    encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 25)
    encoder.options = {"qmin": "3", "qmax": "3"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    frame = frame.reformat(format="yuvj420p")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
