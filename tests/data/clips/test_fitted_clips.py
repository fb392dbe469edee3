"""Clips that keep their picture's shape, or its middle: in training, from the frame cache, by shape in a batch."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_video import numbered_frames
from painted_video import circle, quarters, write_painted

from stretchysnake.data.clips.augment import augmented, by_shape
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.clip_source import CachedClips, DecodedClips
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.clips.loader import evaluation_batches, shaped_batches
from stretchysnake.data.clips.open_clips import open_clips
from stretchysnake.data.clips.seen_picture import checked_picture
from stretchysnake.data.decoding.video import read_frames, write_video
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale

SCALE = Scale(2, 32, 8)
ROUND = Augmentation(crop_ratio=(1, 1))


@pytest.fixture
def records(tmp_path):
    """Three shapes, each twice, mixed: 3 x 5, 5 x 3 and 4 x 4 patches."""
    sizes = [(54, 96), (96, 54), (64, 64), (96, 54), (54, 96), (64, 64)]
    paths = [
        write_painted(tmp_path / f"{i}.mp4", quarters(height=height, width=width))
        for i, (height, width) in enumerate(sizes)
    ]
    return [VideoRecord(str(path), i % 2) for i, path in enumerate(paths)]


@pytest.mark.parametrize("cached", [False, True])
def test_clips_of_a_batch_are_together_by_shape(records, tmp_path, cached):
    clips = open_clips(records, cache=tmp_path / "cache" if cached else None, fit="keep")
    ((indices, parts),) = shaped_batches(clips, SCALE, 6)
    assert indices == list(range(6))
    assert [part.positions for part in parts] == [[0, 4], [1, 3], [2, 5]]
    shapes = [(2, 3, 2, 24, 40), (2, 3, 2, 40, 24), (2, 3, 2, 32, 32)]
    assert [tuple(part.video.shape) for part in parts] == shapes
    flat = list(evaluation_batches(clips, SCALE, 4))  # four, then two
    assert [one for one, _ in flat] == [[0], [1, 3], [2], [4], [5]]
    assert torch.equal(flat[3][1][0], parts[0].video[1])


def test_by_shape_goes_by_the_first_of_each():
    sizes = [(2, 3), (1, 3), (2, 3), (3, 2)]
    assert by_shape([torch.zeros(size) for size in sizes]) == [[0, 2], [1], [3]]


@pytest.mark.parametrize(("fit", "wanted"), [("keep", 18 / 10 * 9 / 16), ("crop", 1.0)])
def test_a_random_crop_of_training_keeps_what_is_round(tmp_path, fit, wanted):
    path = write_painted(tmp_path / "disc.mp4", circle(height=360, width=640))
    clips = DecodedClips([VideoRecord(str(path), 0)], augmentation=ROUND, fit=fit)
    scale, boxes = Scale(1, 224, 16), set()
    for seed in range(4):
        clip = clips.clip(0, scale, generator=torch.Generator().manual_seed(seed))
        assert clip.shape == ((1, 160, 288, 3) if fit == "keep" else (1, 224, 224, 3))
        across, down = (clip[0].float().mean(-1) > 127).nonzero().T.flip(0)
        sides = [int(place.max() - place.min() + 1) for place in (across, down)]
        assert sides[0] / sides[1] == pytest.approx(wanted, abs=0.04)
        boxes.add(tuple(sides))
    assert len(boxes) > 1  # other parts of the picture


def test_without_a_crop_training_sees_all_that_a_test_sees(records):
    still = Augmentation(jitter=False, crop_scale=(1, 1))
    for fit in ("keep", "crop"):
        clips = DecodedClips(records[:2], augmentation=still, fit=fit)
        for index in range(2):
            drawn = clips.clip(index, SCALE, generator=torch.Generator().manual_seed(0))
            assert torch.equal(drawn, clips.clip(index, SCALE))


def test_a_square_picture_is_drawn_alike_by_all_three(tmp_path):
    path = tmp_path / "v.mp4"
    write_video(path, numbered_frames(4, height=64, width=64))
    drawn = [
        DecodedClips([VideoRecord(str(path), 0)], fit=fit).clip(
            0, SCALE, generator=torch.Generator().manual_seed(3)
        )
        for fit in ("square", "keep", "crop")
    ]
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])


def test_crop_ratio_is_that_of_a_crop_to_its_picture():
    """Half the width of a picture twice as wide as high, where the ratio is a half: a square of pixels."""
    frames = torch.arange(64).repeat(1, 32, 1)[..., None].expand(1, 32, 64, 3).to(torch.uint8)
    settings = Augmentation(crop_scale=(0.5, 0.5), crop_ratio=(0.5, 0.5))
    clip = augmented(frames, SCALE, settings, torch.Generator().manual_seed(0), kept=(32, 32))
    steps = clip[0, 0, :, 0].int().diff()
    assert (steps == 1).all()  # 32 columns of the 64, as they are


def test_a_cache_of_another_fit_is_another_and_squares_are_found_again(records, tmp_path):
    found = {
        fit: FrameCache.build(
            records, tmp_path / "c", num_frames=2, size=16, fit=fit, num_workers=0
        )
        for fit in ("square", "keep", "crop")
    }
    assert len({cache.key for cache in found.values()}) == 3
    digest = hashlib.sha1(b"3 2 16")  # as earlier versions had it
    for record in records:
        digest.update(hashlib.sha1(Path(record.path).read_bytes()).digest() + b"None None")
    assert found["square"].key == digest.hexdigest()[:20]
    again = FrameCache.build(
        records, tmp_path / "c", num_frames=2, size=16, fit="keep", num_workers=0,
        progress=lambda text: pytest.fail("decoded again"),
    )  # fmt: skip
    assert again.shown == {
        0: (54, 96),
        1: (96, 54),
        2: (64, 64),
        3: (96, 54),
        4: (54, 96),
        5: (64, 64),
    }
    for row, record in enumerate(records):
        frames = again.frames_of(row)
        assert np.array_equal(frames, read_frames(record.path, [0, 2], size=frames.shape[1:3]))
        assert frames.shape[1] * frames.shape[2] <= 256
    assert again.frames_of(0).shape[1:3] == (12, 21)  # 252 of 256 pixels, 1.75 for 1.778


def test_cached_clips_are_those_of_their_files_where_nothing_is_resized_twice(tmp_path):
    path = tmp_path / "v.mp4"
    write_video(path, numbered_frames(8, height=64, width=128))
    records, scale = [VideoRecord(str(path), 0)], Scale(4, 32, 8)
    cached = open_clips(records, cache=tmp_path / "c", num_frames=8, size=32, fit="crop")
    decoded = DecodedClips(records, fit="crop")
    assert (cached.picture, decoded.picture, cached.fit) == ("centre", "centre", "crop")
    assert torch.equal(cached.clip(0, scale), decoded.clip(0, scale))
    kept = CachedClips(
        FrameCache.build(records, tmp_path / "c", num_frames=8, size=64, fit="keep", num_workers=0)
    )
    clip = kept.clip(0, scale)
    assert clip.shape == (4, 16, 32, 3)  # 2 x 4 patches
    ((views,),) = (list(kept.draw_views([0], scale, num_views=2)),)
    assert views.shape == (2, 4, 16, 32, 3)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"picture": "centre", "fit": "keep"}, r"picture \(centre\) and fit \(keep\), which shows the whole one"),
        ({"picture": "whole", "fit": "crop"}, r"picture \(whole\) and fit \(crop\), which shows the centre one"),
        ({"num_crops": 3, "picture": None, "fit": "keep"}, r"num_crops \(3\) cuts .*, and fit \(keep\) shows it whole"),
        ({"picture": None, "fit": "fill"}, r"fit \('fill'\) must be one of"),
        ({"picture": "centre", "cache": "c"}, r"picture \(centre\) needs .* use picture whole or fit crop"),
    ],
)  # fmt: skip
def test_what_contradicts_a_fit_is_told(asked, text):
    with pytest.raises(ValueError, match=text):
        checked_picture(**asked)
