"""What each augmentation does to pixels, read off pictures that say where they are from; and through both sources."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numbered_video import read_numbers, write_numbered

from stretchysnake.data.clips import training_order
from stretchysnake.data.clips.augment import DrawnBox, augmented, mixed, partners_of
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.clips.loader import CachedClips, DecodedClips, training_batches
from stretchysnake.data.clips.rand_augment import rand_augment
from stretchysnake.data.clips.transforms import random_erase, resize_frames
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale

PLAIN = Augmentation(jitter=False, crop_scale=(1, 1), crop_ratio=(1, 1))
SCALE = Scale(4, 32, 8)


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def places(height=96, width=96, num_frames=4):
    """Frames (T, H, W, 3) whose red is the column and green the row, as shares of 255; blue is 100."""
    x = np.linspace(0, 255, width).round()[None, None, :]
    y = np.linspace(0, 255, height).round()[None, :, None]
    shape = (num_frames, height, width)
    channels = [np.broadcast_to(c, shape) for c in (x, y, np.float64(100))]
    return torch.from_numpy(np.stack(channels, -1).astype(np.uint8))


def extent(clip, *, height=96, width=96):
    """(left, right, top, bottom) of the part of `places` that a clip shows, in pixels, to about one."""
    red, green = clip[0, :, :, 0].float(), clip[0, :, :, 1].float()
    half_x, half_y = (
        (red[0, -1] - red[0, 0]) / 62,
        (green[-1, 0] - green[0, 0]) / 62,
    )  # of 32 pixels
    left, right = red[0, 0] - half_x, red[0, -1] + half_x
    top, bottom = green[0, 0] - half_y, green[-1, 0] + half_y
    return [
        float(v) / 255 * n
        for v, n in ((left, width), (right, width), (top, height), (bottom, height))
    ]


def test_without_any_augmentation_the_whole_picture_is_resized_once():
    for generator in (None, drawn(0)):
        clip = augmented(places(), SCALE, PLAIN, generator)
        assert torch.equal(clip, resize_frames(places(), 32))
        assert extent(clip) == pytest.approx([0, 96, 0, 96], abs=1.5)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("share", [0.2, 0.4])
def test_crop_keeps_this_share_of_the_area_at_this_ratio_of_width_to_height(share, ratio):
    settings = replace(PLAIN, crop_scale=(share, share), crop_ratio=(ratio, ratio))
    corners = set()
    for seed in range(12):
        clip = augmented(places(90, 160), SCALE, settings, drawn(seed))
        left, right, top, bottom = extent(clip, height=90, width=160)
        assert left > -2 and top > -2 and right < 162 and bottom < 92
        # a box taller than the picture is cut to it
        wanted = min(90, (share * 160 * 90 / ratio) ** 0.5)
        assert bottom - top == pytest.approx(wanted, abs=3)
        assert right - left == pytest.approx((share * 160 * 90 * ratio) ** 0.5, abs=3)
        corners.add((round(left), round(top)))
    assert len({left for left, _ in corners}) > 8
    assert len({top for _, top in corners}) > (8 if wanted < 90 else 0)


@pytest.mark.parametrize(("height", "width"), [(160, 90), (90, 160), (91, 64), (90, 90)])
def test_crops_of_a_middle_are_those_of_a_square_picture_that_lies_there(height, width):
    side = min(height, width)
    down, across = round((height - side) / 2), round((width - side) / 2)
    boxes = set()
    for seed in range(12):
        top, left, *size = DrawnBox(Augmentation(), drawn(seed))(side, side)
        box = DrawnBox(Augmentation(), drawn(seed), fit="crop")(height, width)
        assert box == (top + down, left + across, *size)
        boxes.add(box)
    assert len(boxes) == 12


def test_flip_mirrors_half_of_the_clips_left_to_right():
    wanted = resize_frames(places(), 32)
    settings = replace(PLAIN, flip=True)
    mirrored = []
    for seed in range(60):
        clip = augmented(places(), SCALE, settings, drawn(seed))
        assert torch.equal(clip, wanted) or torch.equal(clip, wanted.flip(2))
        mirrored.append(torch.equal(clip, wanted.flip(2)))
        assert torch.equal(augmented(places(), SCALE, PLAIN, drawn(seed)), wanted)
    assert 18 <= sum(mirrored) <= 42


def test_rand_augment_changes_most_clips_and_all_frames_alike():
    settings = replace(PLAIN, rand_augment=(2, 20))
    wanted, still = resize_frames(places(), 32), 0
    for seed in range(20):
        clip = augmented(places(), SCALE, settings, drawn(seed))
        assert (clip == clip[:1]).all()
        still += torch.equal(clip, wanted)
    assert still <= 4


def test_erasing_puts_new_noise_into_every_frame_and_leaves_the_rest():
    settings = replace(PLAIN, erase=1.0)
    wanted = resize_frames(places(), 32)
    changed = augmented(places(), SCALE, settings, drawn(1)) != wanted
    inside = changed.any(-1).any(0)
    assert 0.01 < inside.float().mean() < 0.4
    noise = random_erase(torch.zeros(3, 40, 40, 3, dtype=torch.uint8), drawn(0), probability=1.0)
    hit = (noise > 0).any(-1).any(0)
    first, second, third = noise[:, hit].float()
    for one, other in ((first, second), (second, third)):
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.3
    assert 110 < noise[:, hit].float().mean() < 130  # ImageNet's mean
    hits = sum(
        not torch.equal(augmented(places(), SCALE, replace(PLAIN, erase=0.3), drawn(s)), wanted)
        for s in range(60)
    )
    assert 8 <= hits <= 30


def test_partners_are_neighbours_by_their_place_in_the_batch():
    assert partners_of([0, 1, 2, 3]) == [1, 0, 3, 2]
    assert partners_of([4, 5, 6]) == [1, 0, 2]  # 7 is missing
    assert partners_of([1, 2, 3]) == [0, 2, 1]


def test_mixup_and_cutmix_are_chosen_by_chance_and_each_alone_where_the_other_is_off():
    video = torch.arange(2.0).view(2, 1, 1, 1, 1).expand(2, 3, 2, 16, 16)

    def kinds(**alphas):
        found = []
        for seed in range(30):
            clip = mixed(video, video[[1, 0]], Augmentation(**alphas), drawn(seed))
            pixels = clip.video[0].unique()
            found.append("cutmix" if set(pixels.tolist()) <= {0.0, 1.0} else "mixup")
            assert float(clip.video[0].mean()) == pytest.approx(1 - clip.share, abs=1e-5)
        return found

    assert set(kinds(mixup=0.8)) == {"mixup"} and set(kinds(cutmix=1.0)) == {"cutmix"}
    assert 6 <= kinds(mixup=0.8, cutmix=1.0).count("mixup") <= 24


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Three numbered videos of 24, 12 and 6 frames."""
    folder = tmp_path_factory.mktemp("numbered")
    return [
        VideoRecord(write_numbered(folder / f"{i}.mp4", n), i) for i, n in enumerate((24, 12, 6))
    ]


@pytest.fixture(params=["cached", "decoded"])
def source(request, numbered, tmp_path):
    """Clips with an augmentation, and how many frames there are to choose from in the first video."""

    def made(augmentation):
        if request.param == "decoded":
            return DecodedClips(numbered, augmentation=augmentation)
        cache = FrameCache.build(numbered, tmp_path, num_frames=24, size=64, num_workers=0)
        return CachedClips(cache, augmentation=augmentation)

    return made


def test_jitter_draws_one_frame_of_each_segment_and_without_it_the_centre(source):
    jittered, still = source(replace(PLAIN, jitter=True)), source(PLAIN)
    seen = [set(), set(), set(), set()]
    for seed in range(15):
        for place, number in enumerate(
            read_numbers(jittered.clip(0, SCALE, generator=drawn(seed)).numpy())
        ):
            seen[place].add(number)
        assert read_numbers(still.clip(0, SCALE, generator=drawn(seed)).numpy()) == [3, 9, 15, 21]
    for place, numbers in enumerate(seen):
        assert numbers <= set(range(6 * place, 6 * place + 6)) and len(numbers) > 3
    assert read_numbers(jittered.clip(0, SCALE).numpy()) == [
        3,
        9,
        15,
        21,
    ]  # no generator: evaluation


def test_pixels_of_a_source_are_augmented_only_with_a_generator(source):
    settings = replace(PLAIN, flip=True, crop_scale=(0.3, 0.6), rand_augment=(2, 20), erase=1.0)
    strong, plain = source(settings), source(PLAIN)
    assert torch.equal(strong.clip(2, SCALE), plain.clip(2, SCALE))
    for seed in range(5):
        found = strong.clip(2, SCALE, generator=drawn(seed))
        assert found.shape == (4, 32, 32, 3) and not torch.equal(found, plain.clip(2, SCALE))


def test_training_batches_hold_the_frames_of_the_videos_they_name(source):
    """The frames chosen tell the three videos apart."""
    run = {"variant": "vanilla", "batch_size": 3, "seed": 1, "steps": 4}
    centres = {0: [3, 9, 15, 21], 1: [1, 4, 7, 10], 2: [0, 2, 3, 5]}
    clips, labels = source(PLAIN), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_order, "scales_at", lambda *_, **__: (SCALE,))
        for batch in training_batches(clips, **run):
            bright = (batch.video > 0).permute(0, 2, 3, 4, 1).to(torch.uint8) * 255
            for label, clip in zip(batch.labels.tolist(), bright.numpy(), strict=True):
                assert read_numbers(clip) == centres[label]
                labels.append(label)
    assert sorted(labels) == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("num_ops", [1, 3])
@pytest.mark.parametrize("magnitude", [4, 27])
def test_rand_augment_has_the_operations_and_the_magnitude_asked_for(num_ops, magnitude):
    settings = replace(PLAIN, rand_augment=(num_ops, magnitude))
    for seed in range(8):
        generator = drawn(seed)
        torch.rand(4, generator=generator, dtype=torch.float64)  # the box
        whole = resize_frames(places(), 32)
        wanted = rand_augment(whole, generator, num_ops=num_ops, magnitude=magnitude)
        assert torch.equal(augmented(places(), SCALE, settings, drawn(seed)), wanted)


def test_every_place_of_a_batch_and_every_step_has_a_draw_of_its_own(numbered, monkeypatch):
    """One video three times in each batch, cropped: all clips differ."""
    monkeypatch.setattr(training_order, "scales_at", lambda *_, **__: (SCALE,))
    clips = DecodedClips(numbered[:1], augmentation=replace(PLAIN, crop_scale=(0.2, 0.8)))
    run = {"variant": "vanilla", "batch_size": 3, "seed": 1, "steps": 2}
    shown = torch.cat([batch.video for batch in training_batches(clips, **run)])
    other = torch.cat([batch.video for batch in training_batches(clips, **{**run, "seed": 2})])
    everything = [*shown, *other]
    for place, clip in enumerate(everything):
        assert not any(torch.equal(clip, later) for later in everything[place + 1 :])
