"""A part of the picture asked of the reader is, bit for bit, that part of the frames read whole."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numbered_video import write_numbered

from stretchysnake.data.clips.transforms import Box, crop_resize
from stretchysnake.data.decoding import video_track
from stretchysnake.data.decoding.video import read_frames

BOXES = [Box(0, 0, 120, 160), Box(3, 5, 50, 71), Box(60, 81, 60, 79), Box(119, 159, 1, 1)]


def written(path, *, pixel_format="yuv420p", size=(160, 120), **colours):
    """Six frames of noise that no two pixels share, so that a shift by one is seen."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "4"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        for _ in range(6):
            pixels = rng.integers(0, 256, (size[1] // 2, size[0] // 2, 3), dtype=np.uint8)
            pixels = pixels.repeat(2, 0).repeat(2, 1)
            pixels = np.pad(pixels, ((0, size[1] % 2), (0, size[0] % 2), (0, 0)), "edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


@pytest.mark.parametrize(
    ("options", "is_cut"),
    [
        ({}, True),
        ({"colorspace": 1}, True),  # BT.709
        ({"pixel_format": "yuvj420p", "color_range": 2}, True),
        ({"pixel_format": "yuv444p"}, False),
        ({"pixel_format": "yuv420p10le"}, False),
        ({"size": (162, 122)}, True),
    ],
    ids=["plain", "bt709", "full-range", "444", "10-bit", "not-of-eight"],
)
def test_parts_are_those_of_whole_frames(tmp_path, monkeypatch, options, is_cut):
    path, cuts, whole = written(tmp_path / "v.mp4", **options), [], video_track._cut

    def noting(frame, *box):
        found = whole(frame, *box)
        cuts.append(found[0] is not frame)
        return found

    monkeypatch.setattr(video_track, "_cut", noting)
    frames = torch.from_numpy(read_frames(path, [4, 0, 2]))
    assert cuts == []
    for worth in (0, 10**9):
        monkeypatch.setattr(video_track, "_WORTH_CUTTING", worth)
        for box in BOXES:
            found = read_frames(path, [4, 0, 2], size=(24, 24), part=lambda *_, box=box: box)
            assert np.array_equal(found, crop_resize(frames, box, 24).numpy())
    assert any(cuts) == is_cut


def test_a_picture_that_changes_its_size_is_cut_after_all(tmp_path):
    """Two sizes one after the other, joined as raw H.264: frames get the first one's, and then the part."""
    joined = tmp_path / "v.h264"
    parts = [
        written(tmp_path / f"{n}.h264", size=size) for n, size in enumerate([(160, 120), (96, 64)])
    ]
    joined.write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    box, asked = Box(10, 21, 60, 90), []

    def part(height, width):
        asked.append((height, width))
        return box

    frames = torch.from_numpy(read_frames(str(joined), [1, 9]))
    assert frames.shape == (2, 120, 160, 3)
    found = read_frames(str(joined), [1, 9], size=(24, 24), part=part)
    assert np.array_equal(found, crop_resize(frames, box, 24).numpy())
    assert set(asked) == {(120, 160)}


def test_a_part_of_a_turned_picture_is_of_the_picture_shown(tmp_path):
    from stretchysnake.data.decoding.picture import Orientation

    path = write_numbered(tmp_path / "v.mp4", 5)
    with pytest.MonkeyPatch.context() as patch:
        turned = Orientation(transposed=True, mirrored=True)
        patch.setattr(video_track, "orientation_reader", lambda: lambda frame: turned)
        frames = torch.from_numpy(read_frames(path, [3]))
        box = Box(1, 2, frames.shape[1] - 3, frames.shape[2] - 9)
        found = read_frames(path, [3], size=(16, 16), part=lambda *_: box)
    assert np.array_equal(found, crop_resize(frames, box, 16).numpy())
