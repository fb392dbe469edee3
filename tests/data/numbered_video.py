"""Synthetic videos whose pixels encode the frame number, and the way to read it back."""

import numpy as np

from stretchysnake.data.video import write_video

BITS = 8


def numbered_frames(num_frames, *, height=64, width=64):
    """Frames (T, H, W, 3): frame t shows the bits of t as black and white columns."""
    bits = (np.arange(num_frames)[:, None] >> np.arange(BITS)) & 1
    columns = np.repeat(bits, width // BITS, axis=1).astype(np.uint8) * 255  # (T, W)
    return np.broadcast_to(columns[:, None, :, None], (num_frames, height, width, 3)).copy()


def read_numbers(frames):
    """The numbers shown by frames (T, H, W, 3)."""
    width = frames.shape[2]
    centres = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    grey = frames[:, frames.shape[1] // 2, centres].astype(float).mean(-1)
    return [int(sum(1 << bit for bit in range(BITS) if row[bit] > 128)) for row in grey]


def write_numbered(path, num_frames=60, **options):
    write_video(path, numbered_frames(num_frames), **options)
    return str(path)
