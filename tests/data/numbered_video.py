"""Synthetic videos whose pixels encode the frame number, and the way to read it back."""

from fractions import Fraction

import av
import numpy as np

from stretchysnake.data.decoding.video import write_video

BITS = 8


def numbered_frames(num_frames, *, height=64, width=64, colours=((0, 0, 0), (255, 255, 255))):
    """Frames (T, H, W, 3): frame t shows the bits of t as columns in two colours, black and white unless given."""
    bits = (np.arange(num_frames)[:, None] >> np.arange(BITS)) & 1
    columns = np.array(colours, np.uint8)[bits[:, np.arange(width) * BITS // width]]  # (T, W, 3)
    return np.repeat(columns[:, None], height, 1)


def read_numbers(frames):
    """The numbers shown by frames (T, H, W, 3)."""
    width = frames.shape[2]
    centres = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    grey = frames[:, frames.shape[1] // 2, centres].astype(float).mean(-1)
    return [int(sum(1 << bit for bit in range(BITS) if row[bit] > 128)) for row in grey]


def write_numbered(path, num_frames=60, **options):
    write_video(path, numbered_frames(num_frames), **options)
    return str(path)


def write_timed(path, milliseconds):
    """Frame t, which shows its number, is shown at milliseconds[t]."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"preset": "ultrafast", "g": "30"})
        stream.width = stream.height = 64
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for t, picture in enumerate(numbered_frames(len(milliseconds))):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = milliseconds[t], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return str(path)


def write_standstill(path):
    """Two seconds of 30 frames each, a frame every 10 s for a minute, two seconds again; when each frame is shown."""
    moving = [1000 * t // 30 for t in range(60)]
    times = [*moving, *range(2000, 62000, 10000), *(62000 + t for t in moving)]
    write_timed(path, times)
    return [t / 1000 for t in times]


def turn_header(path, turn):
    """Write a rotation into the track header of an mp4 (its display matrix: 16.16 fixed point, rows (a b u)(c d v))."""
    with open(path, "rb") as file:
        content = bytearray(file.read())
    tkhd = content.index(b"tkhd")
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    for place, value in zip((0, 4, 12, 16), (cos, sin, -sin, cos), strict=True):
        at = tkhd + 4 + 4 + 36 + place
        content[at : at + 4] = (value * 0x10000).to_bytes(4, "big", signed=True)
    with open(path, "wb") as file:
        file.write(content)
