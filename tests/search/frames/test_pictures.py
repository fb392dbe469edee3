"""Pictures of a part of a video: the preview shows its middle at its own speed."""

import numpy as np
import pytest

from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import probe, read_frames, write_video
from stretchysnake.search.frames.pictures import PREVIEW_FPS, pictures_of


@pytest.fixture(scope="module")
def brightening(tmp_path_factory):
    """Ten seconds at 10 frames a second, 24 x 40 px; second s has brightness 20 s + 20."""
    path = str(tmp_path_factory.mktemp("pictures") / "brightening.mp4")
    seconds = np.repeat(np.arange(10), 10)
    frames = np.broadcast_to((20 * seconds + 20)[:, None, None, None], (100, 24, 40, 3))
    write_video(path, frames.astype(np.uint8), fps=10)
    return path


@pytest.mark.parametrize(
    ("start", "end", "preview"),
    [
        (0.0, None, (3.0, 7.0)),
        (2.0, 4.0, (2.0, 4.0)),
        (6.0, 99.0, (6.0, 10.0)),
        (9.5, None, (9.5, 10.0)),
    ],
)
def test_the_preview_is_the_middle_of_the_part_at_its_own_speed(
    brightening, tmp_path, start, end, preview
):
    (made,) = pictures_of([(brightening, start, end)], num_workers=0)
    assert (made.preview_start, made.preview_end) == pytest.approx(preview)
    (tmp_path / "p.mp4").write_bytes(made.preview_mp4)
    info = probe(tmp_path / "p.mp4")
    length = preview[1] - preview[0]
    assert (info.num_frames, info.height, info.width) == (round(length * PREVIEW_FPS), 108, 180)
    assert info.duration_seconds == pytest.approx(length, abs=0.02)
    shown = read_frames(tmp_path / "p.mp4", range(info.num_frames)).mean((1, 2, 3))
    times = preview[0] + (np.arange(info.num_frames) + 0.5) / PREVIEW_FPS
    np.testing.assert_allclose(shown, 20 * np.floor(times) + 20, atol=6)


def test_a_file_that_became_shorter_says_so(brightening):
    (made,) = pictures_of([(brightening, 12.0, 14.0)], num_workers=0)
    assert isinstance(made, DecodeError) and "is now shorter than 12 s" in str(made)
