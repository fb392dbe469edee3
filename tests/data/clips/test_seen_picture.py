"""What training and tests see of a picture that is no square: by hand, and the same pixels in both."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from painted_video import circle, colours_of, quarters, width_and_height_of, write_painted

from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.frame_choice import Sampling
from stretchysnake.data.clips.loader import DecodedClips, open_clips
from stretchysnake.data.clips.transforms import resize_frames
from stretchysnake.data.decoding.video import read_frames
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale

SCALE = Scale(num_frames=2, size=48, patch_size=8)


def clips_of(path, **options):
    return DecodedClips([VideoRecord(path=str(path), label=0)], **options)


@pytest.fixture(scope="module")
def disc(tmp_path_factory):
    return write_painted(
        tmp_path_factory.mktemp("disc") / "v.mp4", circle(4)
    )  # 90 x 160, 60 px across


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """16:9 and noisy, so that every pixel counts."""
    noise = np.random.default_rng(0).integers(-60, 60, (4, 90, 160, 3))
    frames = (quarters(4, height=90, width=160) + noise).clip(0, 255).astype(np.uint8)
    return write_painted(tmp_path_factory.mktemp("coloured") / "v.mp4", frames)


def test_whole_squashes_and_centre_keeps_the_shape(disc):
    squashed = clips_of(disc, picture="whole").clip(0, SCALE)[0].numpy()
    width, height = width_and_height_of(squashed)
    assert abs(width - 18) <= 1 and abs(height - 32) <= 1  # 60 * 48 / 160, 60 * 48 / 90
    width, height = width_and_height_of(clips_of(disc, picture="centre").clip(0, SCALE)[0].numpy())
    assert abs(width - 32) <= 1 and abs(height - 32) <= 1


def test_centre_is_the_short_side_resized_and_its_middle_cut_out(coloured):
    frames = torch.from_numpy(read_frames(coloured, [1, 3]))  # centres of two segments of four
    by_hand = resize_frames(frames, (48, 85))[
        :, :, 18:66
    ]  # 48 * 160 / 90 = 85.3; (85 - 48) / 2 = 18.5
    assert torch.equal(clips_of(coloured, picture="centre").clip(0, SCALE), by_hand)
    views = clips_of(coloured).views(0, SCALE, num_views=1)  # a trained head's test, as it was
    assert torch.equal(views[0], by_hand)
    assert colours_of(by_hand[0].numpy()) == "RGBW"


def test_a_heads_test_may_see_the_whole_picture(coloured):
    clips = clips_of(coloured, picture="whole")
    assert torch.equal(clips.views(0, SCALE, num_views=1)[0], clips.clip(0, SCALE))
    with pytest.raises(ValueError, match=r"num_crops \(3\) cuts squares .* use num_crops 1"):
        clips.views(0, SCALE, num_views=1, num_crops=3)


@pytest.mark.parametrize("size", [24, 48, 100])
def test_training_without_augmentation_sees_the_pixels_of_the_test_bit_for_bit(coloured, size):
    scale = replace(SCALE, size=size)
    tested = clips_of(coloured).clip(0, scale)
    nothing = Augmentation(jitter=False, crop_scale=(1, 1))
    drawn = clips_of(coloured, augmentation=nothing)
    assert torch.equal(drawn.clip(0, scale, generator=torch.Generator().manual_seed(0)), tested)
    # the crop's own way: the decoder's whole frames, resized by torch in one go
    frames = torch.from_numpy(read_frames(coloured, [1, 3]))
    assert torch.equal(resize_frames(frames, size), tested)


def test_colours_come_in_the_order_red_green_blue(coloured):
    assert colours_of(clips_of(coloured).clip(0, SCALE)[0].numpy()) == "RGBW"


def test_the_official_sampling_reaches_the_clip(coloured):
    clips = clips_of(coloured, sampling=Sampling(rule="videomamba"))
    frames = torch.from_numpy(read_frames(coloured, [0, 2], size=(48, 48)))  # round(1.5 i) + 0
    assert torch.equal(clips.clip(0, SCALE), frames)
    assert [Sampling(rule="strided", stride=4).name, Sampling().name] == ["strided-4", "uniform"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"picture": "center"}, r"picture \('center'\) must be one of: whole, centre"),
        ({"picture": "centre", "cache": "c"}, r"picture \(centre\) .* leave the cache out"),
    ],
)
def test_what_cannot_be_shown_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        open_clips([VideoRecord(path="a.mp4", label=0)], **{"cache": None, **options})
