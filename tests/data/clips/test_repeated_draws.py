"""Several clips of a video in one step: each is the draw it would be alone, and the file is decoded once."""

from itertools import chain

import numpy as np
import pytest
import torch
from numbered_video import read_numbers, write_numbered

from stretchysnake.data.clips import training_order
from stretchysnake.data.clips.augment import partners_of
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.bad_clips import BadClips
from stretchysnake.data.clips.clip_source import CachedClips
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.clips.loader import (
    DecodedClips,
    DecodingLimits,
    training_batches,
    training_steps,
)
from stretchysnake.data.clips.seeds import AUGMENTATION, generator_of
from stretchysnake.data.clips.training_order import batch_size_at, group_sizes, share_of
from stretchysnake.data.clips.transforms import crop_resize, random_box
from stretchysnake.data.decoding import frame_lists
from stretchysnake.data.decoding.video import read_frames
from stretchysnake.data.processes.nursery import nursery
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale

SCALE = Scale(4, 32, 8)
RUN = {"variant": "vanilla", "batch_size": 6, "num_sample": 3, "seed": 5, "steps": 5}
CPU = torch.device("cpu")
STRONG = Augmentation(flip=True, rand_augment=(2, 20), erase=0.5)


@pytest.fixture(autouse=True)
def one_scale(monkeypatch):
    monkeypatch.setattr(
        training_order, "scales_at", lambda *_, groups, **__: (SCALE, Scale(2, 16, 4))[:groups]
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [VideoRecord(write_numbered(folder / f"{i}.mp4", 40 + i), label=i) for i in range(5)]


def source(records, *, num_workers=0, **options):
    return DecodedClips(records, limits=DecodingLimits(num_workers=num_workers), **options)


def test_each_clip_is_what_its_place_draws_alone_and_a_file_is_decoded_once(records, monkeypatch):
    """By hand: the frames that its generator draws, whole, then cut by the box that it draws behind them."""
    decoded, whole = [], frame_lists.frames_by_stamp

    def counted(container, stream, index, wanted, pixels_of):
        decoded.append(len(wanted))
        return whole(container, stream, index, wanted, pixels_of)

    monkeypatch.setattr(frame_lists, "frames_by_stamp", counted)
    batches = list(training_batches(source(records), **RUN, device=CPU))
    assert len(decoded) == 5 * 2 and max(decoded) > SCALE.num_frames
    for batch, drawn in zip(batches, training_steps(5, **RUN), strict=True):
        indices = drawn.indices
        assert indices == [indices[0]] * 3 + [indices[3]] * 3
        assert batch.labels.tolist() == indices and batch.asked == 6
        numbers = []
        for place, (clip, index) in enumerate(zip(batch.video.clips, indices, strict=True)):
            generator = generator_of(5, AUGMENTATION, batch.step, place)
            draws = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
            total = 40 + index
            starts = [i * total // 4 for i in range(5)]
            frames = [
                s + int(d * (e - s)) for d, s, e in zip(draws, starts, starts[1:], strict=False)
            ]
            pixels = torch.from_numpy(read_frames(records[index].path, frames))
            assert read_numbers(pixels.numpy()) == frames
            box = random_box(64, 64, generator)
            assert torch.equal(clip.frames, crop_resize(pixels, box, SCALE.size))
            numbers.append((tuple(frames), box))
        assert len(set(numbers)) == 6


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("fit", ["square", "keep"])
def test_with_every_augmentation_they_are_the_draws_of_clips_asked_for_alone(
    records, num_workers, fit
):
    options = {"augmentation": STRONG, "fit": fit}
    alone = source(records, **options)
    with nursery():
        clips = source(records, num_workers=num_workers, **options)
        for unfinished in (False, True):
            batches = training_batches(
                clips, **{**RUN, "steps": 1}, device=CPU, augment_on_device=unfinished
            )
            for batch in batches:
                indices = next(training_steps(5, **RUN, start_step=batch.step)).indices
                for place, clip in enumerate(batch.video.clips):
                    draw = generator_of(5, AUGMENTATION, batch.step, place)
                    wanted = alone.clip(indices[place], SCALE, generator=draw)
                    assert torch.equal(clip.finished, wanted)


def test_whole_pictures_are_made_once_for_all_draws(records):
    plain = Augmentation(crop_scale=(1, 1), crop_ratio=(1, 1))
    batch = next(iter(training_batches(source(records, augmentation=plain), **RUN, device=CPU)))
    for place, (clip, label) in enumerate(zip(batch.video.clips, batch.labels, strict=True)):
        draw = generator_of(5, AUGMENTATION, 0, place)
        wanted = source(records, augmentation=plain).clip(int(label), SCALE, generator=draw)
        assert torch.equal(clip.frames, wanted)


def test_a_cache_gives_the_same_draws_of_its_frames(records, tmp_path):
    cache = FrameCache.build(records, tmp_path / "cache", num_frames=8, size=48, num_workers=0)
    (first, *_) = training_batches(CachedClips(cache), **RUN)
    again = training_batches(CachedClips(cache), **{**RUN, "start_step": 3})
    assert first.video.shape == (6, 3, 4, 32, 32)
    stored = [torch.from_numpy(np.array(cache.frames_of(row))) for row in range(5)]
    (batch, _) = training_batches(
        CachedClips(cache), **{**RUN, "start_step": 3}, device=CPU, augment_on_device=True
    )
    for place, (clip, label) in enumerate(zip(batch.video.clips, batch.labels, strict=True)):
        generator = generator_of(5, AUGMENTATION, 3, place)
        draws = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        frames = [2 * i + int(2 * d) for i, d in enumerate(draws)]
        box = random_box(48, 48, generator)
        assert torch.equal(clip.frames, crop_resize(stored[int(label)][frames], box, 32))
    assert torch.equal(next(iter(again)).video, batch.video.to("cpu"))


def test_every_video_comes_once_an_epoch():
    run = {**RUN, "batch_size": 4, "num_sample": 2, "steps": 15}
    steps = list(training_steps(6, **run))
    assert all(step.indices[::2] == step.indices[1::2] for step in steps)
    once = [index for step in steps for index in step.indices[::2]]
    epochs = [once[i : i + 6] for i in range(0, 30, 6)]
    assert (
        all(sorted(epoch) == list(range(6)) for epoch in epochs) and len(set(map(str, epochs))) > 1
    )
    assert list(training_steps(6, **run, start_step=7)) == steps[7:]
    plain = {**run, "batch_size": 2, "num_sample": 1}
    assert once == [index for step in training_steps(6, **plain) for index in step.indices]


def test_ranks_and_a_run_that_goes_on_see_the_same_clips(records):
    options = {**RUN, "batch_size": 12, "scales_per_step": 2, "steps": 3}
    clips = source(records, augmentation=Augmentation(mixup=0.8, flip=True))
    whole = list(training_batches(clips, **options))
    shares = [
        training_batches(clips, **options, rank=rank, world_size=2, start_step=2) for rank in (0, 1)
    ]
    for batch, *parts in zip(whole[2:], *shares, strict=True):
        for g, group in enumerate(batch.groups):
            ours = [part.groups[g] for part in parts]
            assert [len(part.labels) for part in ours] in ([0, 6], [6, 0])  # a pair of videos
            assert torch.equal(torch.cat([part.video for part in ours]), group.video)
            assert list(chain(*(part.places for part in ours))) == group.places
        assert [sum(len(group.labels) for group in part.groups) for part in parts] == [6, 6]


def test_clips_are_mixed_with_those_of_another_video():
    assert partners_of(list(range(8)), 2) == [2, 3, 0, 1, 6, 7, 4, 5]
    assert partners_of(list(range(9)), 3) == [3, 4, 5, 0, 1, 2, 6, 7, 8]  # the last has no partner
    assert partners_of([4, 5, 6, 7], 2) == [2, 3, 0, 1]


def test_work_is_shared_by_whole_videos_and_pairs():
    assert [list(share_of(8, rank=r, world_size=2, unit=4)) for r in (0, 1)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
    assert group_sizes([SCALE, SCALE], batch_size=12, num_sample=2, unit=4) == [4, 8]
    assert SCALE.num_tokens == 64
    assert batch_size_at(SCALE, batch_size=1, token_budget=64 * 7, num_sample=3) == 6
    assert batch_size_at(SCALE, batch_size=1, token_budget=64, num_sample=3) == 3
    assert group_sizes([SCALE] * 2, batch_size=1, token_budget=64 * 14, num_sample=3) == [6, 6]
    with pytest.raises(
        ValueError, match=r"batch_size \(7\) must be a multiple of num_sample \(2\)"
    ):
        next(training_steps(5, **{**RUN, "batch_size": 7, "num_sample": 2}))


@pytest.mark.parametrize("policy", ["replace", "skip"])
def test_a_bad_video_is_replaced_or_left_out_with_all_its_clips(records, policy, tmp_path):
    gone = VideoRecord(str(tmp_path / "gone.mp4"), 0)
    listed = [records[0], gone, records[2]]
    clips = source(listed, bad=BadClips(policy))
    options = {**RUN, "steps": 3, "shuffle": False}
    batches = list(training_batches(clips, **options))
    assert [len(batch.labels) for batch in batches] == (
        [6, 6, 6] if policy == "replace" else [3, 6, 3]
    )
    assert [[(bad.num_clips, bad.replaced_by) for bad in batch.bad] for batch in batches] == [
        [(3, records[0].path if policy == "replace" else None)], [],
        [(3, records[0].path if policy == "replace" else None)],
    ]  # fmt: skip
    assert clips.bad.summary[{"replace": "replaced", "skip": "skipped"}[policy]] == 6
    if policy == "replace":
        draw = generator_of(5, AUGMENTATION, 0, 4)
        wanted = source(listed, augmentation=clips.augmentation).clip(0, SCALE, generator=draw)
        (batch, *_) = training_batches(clips, **options, device=CPU)
        assert torch.equal(batch.video.clips[4].frames, wanted)
