import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stretchysnake.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Box,
    crop_resize,
    flip_frames,
    normalise,
    random_box,
    resize_frames,
)


def frames(num_frames=3, height=20, width=28):
    return torch.randint(0, 256, (num_frames, height, width, 3), dtype=torch.uint8)


def test_resize_frames_at_the_same_size_is_identity():
    clip = frames()
    assert resize_frames(clip, (20, 28)) is clip


def test_resize_frames_by_half_averages():
    clip = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    clip[:, :, ::2] = (
        200  # stripes thinner than the new pixels: without antialiasing they would alias
    )
    small = resize_frames(clip, 4)
    assert small.shape == (1, 4, 4, 3) and (small[:, :, 1:-1].float() - 100).abs().max() <= 1


def test_normalise_gives_channels_first_with_imagenet_statistics():
    clip = frames()
    video = normalise(clip)
    assert video.shape == (3, 3, 20, 28) and video.dtype == torch.float32 and video.is_contiguous()
    expected = (clip.float() / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(video, expected.permute(3, 0, 1, 2), atol=1e-5, rtol=1e-5)


def test_normalise_of_a_batch_is_normalise_of_each_clip():
    batch = torch.stack([frames(), frames()])
    each = torch.stack([normalise(clip) for clip in batch])
    assert torch.equal(normalise(batch), each)


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    seed=st.integers(0, 2**32),
    low=st.floats(0.05, 1),
)
def test_random_box_lies_inside_the_frame(height, width, seed, low):
    box = random_box(height, width, torch.Generator().manual_seed(seed), scale=(low, 1))
    assert box.top >= 0 and box.left >= 0 and box.height >= 1 and box.width >= 1
    assert box.top + box.height <= height and box.left + box.width <= width


def test_crop_resize_takes_the_same_rectangle_of_every_frame():
    clip = frames()
    cropped = crop_resize(clip, Box(2, 5, 10, 12), (10, 12))
    assert torch.equal(cropped, clip[:, 2:12, 5:17])


def test_flip_frames_mirrors_left_and_right():
    clip = frames()
    assert torch.equal(flip_frames(clip)[:, :, 0], clip[:, :, -1])


@pytest.mark.parametrize("size", [12, 33])
def test_resize_frames_keeps_leading_axes(size):
    assert resize_frames(torch.stack([frames()] * 2), size).shape == (2, 3, size, size, 3)
