"""Which grid a picture gets that keeps its shape: found by hand, and against every grid there is."""

import math
from fractions import Fraction

import numpy as np
import pytest
from painted_video import circle, colours_of, quarters, width_and_height_of, write_painted

from stretchysnake.data.clips.clip_source import DecodedClips
from stretchysnake.data.decoding.fit import FITS, checked_fit, fitted_size, kept_grid
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale

PAPER = Scale(16, 224, 16)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (1080, 1920, (160, 288)),  # 10 x 18 of 196: 1.8 for 1.778
        (1920, 1080, (288, 160)),  # a phone
        (800, 1912, (144, 336)),  # cinema, 2.39: 9 x 21
        (480, 640, (192, 256)),  # 12 x 16 = 192
        (500, 1000, (144, 288)),  # 9 x 18 = 162, and not the 190 of 10 x 19
        (720, 720, (224, 224)),
        (100, 2000, (48, 960)),  # 3 x 60 = 180
    ],
)
def test_what_a_picture_becomes_at_224_and_16(height, width, size):
    assert fitted_size(height, width, scale=PAPER, fit="keep") == size
    for fit in ("square", "crop"):
        assert fitted_size(height, width, scale=PAPER, fit=fit) == (224, 224)


def test_no_side_is_less_than_a_patch_and_the_rest_of_a_size_is_left():
    nano = Scale(8, 32, 8)
    assert fitted_size(1000, 50, scale=nano, fit="keep") == (128, 8)  # 16 x 1 for 20 : 1
    assert fitted_size(1, 100_000, scale=PAPER, fit="keep") == (16, 196 * 16)
    # 100 px hold 6 patches of 16 a side: 36 of them, 5 x 7 for 4:3
    assert fitted_size(480, 640, scale=Scale(4, 100, 16), fit="keep") == (80, 112)


@pytest.mark.parametrize("most", [1, 4, 16, 49, 196])
def test_the_grid_is_the_best_of_all(most):
    """Every grid of at most so many patches, by numpy; a picture on its side has its grid on its side."""
    rows, columns = (side.ravel() for side in np.mgrid[1 : most + 1, 1 : most + 1])
    fits = rows * columns <= most
    rows, columns = rows[fits], columns[fits]
    for aspect in np.geomspace(1, 40, 60):
        height, width = 1000, round(1000 * aspect)
        losses = abs(np.log(columns / rows * height / width)) + np.log(most / rows / columns) / 4
        found = kept_grid(height, width, most)
        loss = abs(math.log(found[1] / found[0] * height / width))
        loss += math.log(most / found[0] / found[1]) / 4
        assert loss == pytest.approx(losses.min(), abs=2e-9)
        assert kept_grid(width, height, most) == found[::-1] or width == height


def clip_of(path, scale, fit):
    return DecodedClips([VideoRecord(str(path), 0)], fit=fit).clip(0, scale).numpy()


def test_the_shape_is_that_of_the_picture_on_a_screen(tmp_path):
    """Turned pictures and pixels that are no squares: the clip lies as the picture does, all of it."""
    scale = Scale(2, 32, 8)
    turned = write_painted(tmp_path / "turned.mp4", quarters(), matrix=(0, 1, -1, 0))
    assert clip_of(turned, scale, "keep").shape == (2, 40, 24, 3)  # 96 x 64: 5 x 3 of 16
    wide = write_painted(
        tmp_path / "wide.mp4", quarters(height=64, width=64), aspect=Fraction(2, 1)
    )
    assert clip_of(wide, scale, "keep").shape == (2, 16, 32, 3)  # 64 x 128: 2 x 4 of 16
    for path, colours in ((turned, "BRWG"), (wide, "RGBW")):
        for fit in FITS:
            clip = clip_of(path, scale, fit)
            assert fit == "keep" or clip.shape == (2, 32, 32, 3)
            assert colours_of(clip[1]) == colours, (path.name, fit)


def test_a_disc_stays_round_but_where_it_is_squashed(tmp_path):
    """16:9 is kept as 18 x 10: 1.25 % off. What a square of the whole picture makes of it is 9/16."""
    path = write_painted(tmp_path / "disc.mp4", circle(height=360, width=640))
    for fit, wanted in (("keep", 18 / 10 * 9 / 16), ("crop", 1.0), ("square", 9 / 16)):
        width, height = width_and_height_of(clip_of(path, PAPER, fit)[0])
        assert width / height == pytest.approx(wanted, abs=0.03), fit


def test_an_unknown_fit_is_told():
    with pytest.raises(ValueError, match=r"fit \('stretch'\) must be one of: square, keep, crop"):
        checked_fit("stretch")
