import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stretchysnake.data.clips.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Box,
    center_crop,
    crop_resize,
    cutmix,
    flip_frames,
    mixup,
    normalise,
    random_box,
    random_erase,
    resize_frames,
    short_side_size,
    three_crops,
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


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(20, 28, (10, 14)), (28, 20, (14, 10)), (10, 10, (10, 10))]
)
def test_short_side_size_keeps_the_proportion(height, width, expected):
    clip = frames(height=height, width=width)
    assert short_side_size(height, width, size=10) == expected
    assert resize_frames(clip, expected).shape[1:3] == expected


@pytest.mark.parametrize(("height", "width"), [(20, 31), (31, 20), (20, 20)])
def test_three_crops_are_the_ends_and_the_middle_of_the_longer_side(height, width):
    clip = frames(height=height, width=width)
    first, middle, last = three_crops(clip, 20)
    assert torch.equal(first, clip[:, :20, :20]) and torch.equal(last, clip[:, -20:, -20:])
    assert torch.equal(middle, center_crop(clip, 20))
    long = max(height, width)
    place = round((long - 20) / 2)
    shown = clip[:, place : place + 20] if height > width else clip[:, :, place : place + 20]
    assert torch.equal(middle, shown)


def test_three_crops_are_centred_on_the_shorter_side():
    clip = frames(height=20, width=30)
    assert torch.equal(three_crops(clip, 10)[0], clip[:, 5:15, :10])
    with pytest.raises(ValueError, match=r"size \(21\) must not exceed the frame \(20x30\)"):
        three_crops(clip, 21)


def test_a_random_crop_takes_one_box_for_all_frames():
    clip = frames(num_frames=1).expand(4, -1, -1, -1)
    one, other = (random_box(*clip.shape[1:3], torch.Generator().manual_seed(n)) for n in (3, 4))
    found = crop_resize(clip, one, 12)
    assert found.shape == (4, 12, 12, 3) and (found == found[:1]).all()
    assert not torch.equal(found, crop_resize(clip, other, 12))


def test_random_erase_replaces_one_rectangle_in_all_frames():
    clip = torch.zeros(6, 40, 50, 3, dtype=torch.uint8)
    for seed in range(10):
        changed = (random_erase(clip, torch.Generator().manual_seed(seed), probability=1) > 0).any(
            -1
        )
        rows, columns = changed.any(0).any(1).nonzero(), changed.any(0).any(0).nonzero()
        box = changed[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.float().mean() > 0.9  # noise may be black here and there
        assert changed.sum() == box.sum() and 0.01 < changed.float().mean() < 0.36


def test_random_erase_happens_as_often_as_asked_and_leaves_its_input():
    clip = torch.zeros(1, 20, 20, 3, dtype=torch.uint8)
    hits = [
        bool(random_erase(clip, torch.Generator().manual_seed(seed), probability=0.25).any())
        for seed in range(400)
    ]
    assert 60 < sum(hits) < 140 and not clip.any()


def test_random_erase_is_normal_after_normalise():
    clip = torch.zeros(16, 64, 64, 3, dtype=torch.uint8)
    erased = random_erase(clip, torch.Generator().manual_seed(0), probability=1)
    noise = normalise(erased)[:, (erased > 0).all(-1)]
    assert noise.mean().abs() < 0.1 and 0.85 < noise.std() < 1.05  # bytes cut the tails


def batch(size=4):
    video = torch.arange(size).float().view(size, 1, 1, 1, 1).expand(size, 3, 2, 16, 20).clone()
    return video, torch.arange(size)


@pytest.mark.parametrize("mix", [mixup, cutmix])
@pytest.mark.parametrize("seed", range(5))
def test_mixed_shares_are_those_of_the_pixels(mix, seed):
    video, labels = batch()
    mixed = mix(video, video.flip(0), generator=torch.Generator().manual_seed(seed))
    # clip i is all i: the mean of a mixture is that of its labels by their shares
    wanted = labels * mixed.share + labels.flip(0) * (1 - mixed.share)
    torch.testing.assert_close(mixed.video.mean((1, 2, 3, 4)), wanted)
    assert torch.equal(video, batch()[0])


def test_cutmix_puts_one_rectangle_in_all_frames_and_mixup_none():
    video, _ = batch()
    cut = cutmix(video, video.flip(0), generator=torch.Generator().manual_seed(1)).video
    assert set(cut[0].unique().tolist()) == {0.0, 3.0}
    assert (cut == cut[:, :1, :1]).all()
    mixed = mixup(video, video.flip(0), generator=torch.Generator().manual_seed(1)).video
    assert all(len(clip.unique()) == 1 for clip in mixed)


def test_mixing_shares_follow_alpha():
    video, _ = batch(2)

    def shares(alpha):
        draws = (torch.Generator().manual_seed(seed) for seed in range(200))
        return [mixup(video, video, generator=draw, alpha=alpha).share for draw in draws]

    even = torch.tensor(shares(1.0))
    assert 0.4 < even.mean() < 0.6 and 0.25 < even.std() < 0.33  # uniform
    assert torch.tensor(shares(0.1)).std() > 0.4  # almost all or nothing
    with pytest.raises(ValueError, match=r"alpha \(0\) must be more than 0"):
        shares(0)
