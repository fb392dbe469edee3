"""Videos of several shapes, for trainings that keep them."""

import numpy as np

from stretchysnake.data.decoding.video import write_video
from stretchysnake.data.records import VideoRecord, write_records

SIZES = [(48, 48), (36, 64), (64, 36), (64, 36), (36, 64)]
"""(height, width): at 32 px and patches of 8, grids of 4 x 4, 3 x 5 and 5 x 3."""
GRIDS = {(48, 48): (4, 4), (36, 64): (3, 5), (64, 36): (5, 3)}


def shape_of(index):
    return SIZES[index % len(SIZES)]


def write_shaped(folder, *, count=10, first=0):
    """A list of videos of three frames, their shapes in turn; three classes that differ in brightness."""
    rng, records = np.random.default_rng(first), []
    for index in range(first, first + count):
        frames = rng.integers(0, 60, (3, *shape_of(index), 3), dtype=np.uint8) + 60 * (index % 3)
        path = folder / f"shaped-{index}.mp4"
        write_video(path, frames.astype(np.uint8))
        records.append(VideoRecord(str(path), index % 3))
    write_records(folder / f"shaped-{first}.csv", records)
    return folder / f"shaped-{first}.csv"
