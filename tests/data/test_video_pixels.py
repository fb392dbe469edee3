"""What a picture shows once it is read: which channel is which, where left and top are, no aliasing when it shrinks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numbered_video import read_numbers, write_numbered

from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.clip_source import CachedClips, DecodedClips
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.clips.loader import evaluation_batches
from stretchysnake.data.clips.transforms import IMAGENET_MEAN, IMAGENET_STD
from stretchysnake.data.decoding.video import (
    read_frames,
    read_frames_at,
    stream_frames,
    write_video,
)
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale

COLOURS = np.array([[200, 40, 60], [50, 180, 30], [40, 60, 210]])
"""Of the left, middle and right third."""


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """Eight frames of 16:9, in thirds of one colour each."""
    path = tmp_path_factory.mktemp("colours") / "v.mp4"
    frames = np.empty((8, 72, 128, 3), np.uint8)
    for third, colour in enumerate(COLOURS):
        frames[:, :, 128 * third // 3 : 128 * (third + 1) // 3] = colour
    write_video(path, frames, options={"crf": "8"})
    return str(path)


def thirds(frame):
    """The colour in the middle of each third of a frame (H, W, 3)."""
    height, width, _ = frame.shape
    return np.array([frame[height // 2, int((i + 0.5) * width / 3)] for i in range(3)]).astype(int)


def source_of(kind, records, folder, **options):
    if kind == "decoded":
        return DecodedClips(records)
    return CachedClips(FrameCache.build(records, folder, size=64, num_workers=0, **options))


@pytest.mark.parametrize("size", [None, (36, 64), (48, 48)], ids=str)
def test_colours_are_red_green_and_blue_in_this_order(coloured, size):
    for frame in (
        read_frames(coloured, [5], size=size)[0],
        read_frames_at(coloured, [0.1], size=size)[0],
        *([] if size is None else stream_frames(coloured, [2], size=size)),
    ):
        assert np.abs(thirds(frame) - COLOURS).max() < 20


@pytest.mark.parametrize("kind", ["decoded", "cached"])
def test_clips_of_a_wide_picture_show_all_of_it_in_its_colours(kind, coloured, tmp_path):
    clips = source_of(kind, [VideoRecord(coloured, 0)], tmp_path)
    frame = clips.clip(0, Scale(4, 48, 8)).numpy()[2]
    assert np.abs(thirds(frame) - COLOURS).max() < 20
    edges = [
        int(np.abs(np.diff(frame[24].astype(int), axis=0)).sum(1)[a:b].argmax()) + a
        for a, b in ((0, 24), (24, 47))
    ]
    assert edges == pytest.approx([15, 31], abs=1)  # the thirds of all 128 columns
    ((_, video),) = evaluation_batches(clips, Scale(4, 48, 8), 1)
    shown = video[0, :, 2].permute(1, 2, 0) * torch.tensor(IMAGENET_STD) + torch.tensor(
        IMAGENET_MEAN
    )
    assert np.abs(thirds(255 * shown.numpy()) - COLOURS).max() < 20


def test_crops_of_a_wide_picture_are_left_middle_and_right(coloured):
    clips = DecodedClips([VideoRecord(coloured, 0)])
    (one,) = clips.views(0, Scale(2, 36, 12), num_views=1, num_crops=1).numpy().astype(int)
    assert np.abs(one[0, 18, 18] - COLOURS[1]).max() < 20  # one crop is the middle
    crops = clips.views(0, Scale(2, 36, 12), num_views=2, num_crops=3).reshape(2, 3, 2, 36, 36, 3)
    for view in crops:
        left, middle, right = view[:, 0].numpy().astype(int)
        assert np.abs(left[18, 10] - COLOURS[0]).max() < 20
        assert np.abs(middle[18, 18] - COLOURS[1]).max() < 20
        assert np.abs(right[18, 26] - COLOURS[2]).max() < 20


def test_left_and_top_stay_where_they_are(tmp_path):
    frames = np.zeros((3, 48, 80, 3), np.uint8)
    frames[:, :16, :24] = 220  # top left
    write_video(tmp_path / "v.mp4", frames)
    clips = DecodedClips([VideoRecord(str(tmp_path / "v.mp4"), 0)])
    for picture in (
        read_frames(tmp_path / "v.mp4", [1])[0],
        read_frames(tmp_path / "v.mp4", [1], size=(24, 40))[0],
        clips.clip(0, Scale(2, 32, 8)).numpy()[0],
    ):
        height, width, _ = picture.shape
        bright = picture.mean(-1) > 110
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        assert (rows[0], columns[0]) == (0, 0)
        assert (rows[-1] + 1) / height == pytest.approx(1 / 3, abs=0.06)
        assert (columns[-1] + 1) / width == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("kind", ["decoded", "cached"])
@pytest.mark.parametrize("axis", [1, 2], ids=["rows", "columns"])
def test_stripes_finer_than_the_new_pixels_become_grey(kind, axis, tmp_path):
    """A picture resized by nearest neighbour shows one kind of stripe, or a pattern that is not there."""
    place = np.arange(128) % 2 * 255
    frames = np.broadcast_to(
        place.reshape([1, -1, 1, 1] if axis == 1 else [1, 1, -1, 1]), (4, 128, 128, 3)
    )
    write_video(tmp_path / "v.mp4", frames.astype(np.uint8), options={"crf": "4"})
    clips = source_of(
        kind, [VideoRecord(str(tmp_path / "v.mp4"), 0)], tmp_path / "cache", num_frames=4
    )
    clip = clips.clip(0, Scale(2, 24, 8)).float()[:, 2:-2, 2:-2]
    assert (clip - 127.5).abs().max() < 40
    training = clips.clip(0, Scale(2, 24, 8), generator=torch.Generator().manual_seed(0)).float()
    assert (training[:, 2:-2, 2:-2] - 127.5).abs().max() < 60


@pytest.mark.parametrize("kind", ["decoded", "cached"])
def test_clips_behind_a_bad_file_are_their_own(kind, tmp_path):
    """Videos of 10, none, 20 and 30 frames: the last frame tells them apart."""
    records = [
        VideoRecord(write_numbered(tmp_path / f"{n}.mp4", n), label)
        for label, n in ((0, 10), (2, 20), (3, 30))
    ]
    (tmp_path / "bad.mp4").write_bytes(b"")
    records.insert(1, VideoRecord(str(tmp_path / "bad.mp4"), 1))
    clips = source_of(kind, records, tmp_path / "cache", num_frames=4)
    found = {}
    for indices, video in evaluation_batches(clips, Scale(4, 32, 8), 2):
        frames = (video > 0).permute(0, 2, 3, 4, 1).numpy() * 255
        for index, clip in zip(indices, frames, strict=True):
            found[clips.records[index].label] = read_numbers(clip)
            assert clips.labels[index] == clips.records[index].label
    assert found == {0: [1, 3, 6, 8], 2: [2, 7, 12, 17], 3: [3, 11, 18, 26]}


def test_a_segment_of_a_video_is_all_that_its_clips_show(tmp_path):
    """30 frames a second: from 0.5 s to 1.5 s are frames 15 to 44."""
    record = VideoRecord(write_numbered(tmp_path / "v.mp4", 60), 0, start=0.5, end=1.5)
    for kind in ("decoded", "cached"):
        clips = source_of(kind, [record], tmp_path / "cache", num_frames=5)
        assert read_numbers(clips.clip(0, Scale(5, 32, 8)).numpy()) == [18, 24, 30, 36, 42]
    plain = Augmentation(jitter=False, crop_scale=(1, 1))
    for augmentation in (plain, replace(plain, jitter=True)):
        clips = DecodedClips([record], augmentation=augmentation)
        drawn = clips.clip(0, Scale(5, 32, 8), generator=torch.Generator().manual_seed(0))
        numbers = read_numbers(drawn.numpy())
        assert numbers == [18, 24, 30, 36, 42] or augmentation.jitter
        assert all(15 + 6 * i <= number < 21 + 6 * i for i, number in enumerate(numbers))
