import pytest
import torch
from numbered_video import read_numbers, write_numbered

from stretchysnake.data.clips import training_order
from stretchysnake.data.clips.bad_clips import BadClips
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.clips.loader import (
    Augmentation,
    CachedClips,
    DecodedClips,
    DecodingLimits,
    batch_size_at,
    evaluation_batches,
    training_batches,
    training_steps,
)
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale

SCALES = [Scale(num_frames=4, size=16, patch_size=4), Scale(num_frames=2, size=24, patch_size=4)]


@pytest.fixture(autouse=True)
def alternating_scales(monkeypatch):
    monkeypatch.setattr(training_order, "scales_at", lambda *_, step, **__: (SCALES[step % 2],))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [VideoRecord(write_numbered(folder / f"{i}.mp4", 16 + i), label=i) for i in range(7)]


@pytest.fixture(scope="module", params=["cached", "decoded"])
def clips(request, records, tmp_path_factory):
    if request.param == "decoded":
        return DecodedClips(records)
    folder = tmp_path_factory.mktemp("cache")
    return CachedClips(FrameCache.build(records, folder, num_frames=16, size=32, num_workers=1))


RUN = {"variant": "two", "batch_size": 3, "seed": 5, "steps": 8}


def test_training_batches_resume_exactly(clips):
    whole = list(training_batches(clips, **RUN))
    rest = list(training_batches(clips, **RUN, start_step=5, prefetch=0))
    assert [batch.step for batch in rest] == [5, 6, 7]
    for a, b in zip(whole[5:], rest, strict=True):
        assert (
            a.scale == b.scale and torch.equal(a.video, b.video) and torch.equal(a.labels, b.labels)
        )


def test_start_step_just_past_the_end_is_done_and_beyond_it_is_an_error(clips):
    assert list(training_batches(clips, **RUN, start_step=8)) == []
    with pytest.raises(ValueError, match=r"start_step \(9\) must be between 0 and steps \(8\)"):
        list(training_batches(clips, **RUN, start_step=9))


def test_training_batches_have_the_scale_of_their_step(clips):
    for batch in training_batches(clips, **RUN):
        scale = SCALES[batch.step % 2]
        assert batch.scale == scale
        assert batch.video.shape == (3, 3, scale.num_frames, scale.size, scale.size)
        assert batch.video.dtype == torch.float32 and batch.labels.dtype == torch.int64


def test_every_epoch_holds_every_sample_once():
    steps = training_steps(7, variant="two", batch_size=3, seed=0, steps=21)
    order = [index for step in steps for index in step.indices]
    epochs = [order[i : i + 7] for i in range(0, 63, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_steps_under_a_token_budget_resume_exactly():
    run = {"variant": "two", "batch_size": 9, "seed": 1, "steps": 20, "token_budget": 200}
    whole = list(training_steps(7, **run))
    assert [len(step.indices) for step in whole[:2]] == [200 // 64, 200 // 72]
    assert list(training_steps(7, **run, start_step=11)) == whole[11:]


def test_seeds_give_other_orders():
    orders = {
        tuple(next(training_steps(50, variant="two", batch_size=50, seed=seed, steps=1)).indices)
        for seed in range(5)
    }
    assert len(orders) == 5


def test_token_budget_holds_at_least_one_clip():
    assert (
        batch_size_at(Scale(num_frames=64, size=64, patch_size=4), batch_size=8, token_budget=9)
        == 1
    )


def test_evaluation_clips_are_uniform_frames_of_the_whole_picture(clips, records):
    scale = Scale(num_frames=8, size=32, patch_size=8)
    numbers = read_numbers(clips.clip(0, scale).numpy())
    assert numbers == uniform_indices(16, 8)


def test_evaluation_batches_cover_all_clips_in_order(clips):
    batches = list(evaluation_batches(clips, SCALES[0], 3))
    assert [indices for indices, _ in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    again = list(evaluation_batches(clips, SCALES[0], 3, prefetch=0))
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(batches, again, strict=True))


def test_augmentation_depends_on_the_generator_alone(clips):
    def draw(seed):
        return clips.clip(3, SCALES[0], generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_augmentation_can_be_switched_off(records):
    plain = Augmentation(jitter=False, crop_scale=(1, 1), crop_ratio=(1, 1))
    clips = DecodedClips(records, augmentation=plain)
    drawn = clips.clip(0, SCALES[0], generator=torch.Generator().manual_seed(0))
    assert read_numbers(drawn.numpy()) == uniform_indices(16, 4)


def test_a_bad_file_raises_through_the_prefetch_thread(tmp_path):
    clips = DecodedClips([VideoRecord(str(tmp_path / "gone.mp4"), 0)], bad=BadClips("stop"))
    with pytest.raises(DecodeError, match="missing"):
        list(training_batches(clips, **RUN))


def test_the_prefetch_thread_ends_with_its_consumer(clips):
    import threading

    batches = training_batches(clips, **RUN)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "clips-ahead"]


def test_no_clip_to_train_on_is_an_error():
    with pytest.raises(ValueError, match="no clip to train on"):
        next(training_steps(0, variant="two", batch_size=2, seed=0, steps=1))


def test_processes_give_what_this_process_gives(records):
    alone = training_batches(DecodedClips(records), **RUN)
    pooled = training_batches(
        DecodedClips(records, limits=DecodingLimits(num_workers=2)), **RUN, start_step=3
    )
    for a, b in zip(list(alone)[3:], pooled, strict=True):
        assert torch.equal(a.video, b.video) and torch.equal(a.labels, b.labels)


def test_strong_augmentation_reaches_the_clips_and_resumes_exactly(records):
    strong = Augmentation(rand_augment=(2, 20), erase=0.5, flip=True)
    clips = DecodedClips(records, augmentation=strong)
    whole = list(training_batches(clips, **RUN))
    plain = list(training_batches(DecodedClips(records), **RUN))
    assert sum(torch.equal(a.video, b.video) for a, b in zip(whole, plain, strict=True)) < 4
    for a, b in zip(whole[4:], training_batches(clips, **RUN, start_step=4), strict=True):
        assert torch.equal(a.video, b.video)


@pytest.mark.parametrize("batch_size", [1, 4, 5])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_shares_of_ranks_are_the_mixed_batch_of_one(records, world_size, batch_size):
    mixing = Augmentation(mixup=0.8, cutmix=1.0)
    run = {**RUN, "batch_size": batch_size}
    whole = list(training_batches(DecodedClips(records, augmentation=mixing), **run))
    ranks = [
        list(training_batches(DecodedClips(records, augmentation=mixing), **run, rank=r,
                              world_size=world_size))
        for r in range(world_size)
    ]  # fmt: skip
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert {(part.step, part.scale, part.asked) for part in parts} == {
            (batch.step, batch.scale, batch_size)
        }
        assert [place for part in parts for place in part.places] == list(range(batch_size))
        assert torch.equal(torch.cat([part.video for part in parts]), batch.video)
        assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)
        filled = [part for part in parts if len(part.labels)]
        assert torch.equal(torch.cat([part.others for part in filled]), batch.others)
        assert {part.share for part in filled} == {batch.share}


def test_mixed_clips_are_mixtures_of_the_plain_ones(records):
    plain = list(training_batches(DecodedClips(records), **RUN))
    for kind in ("mixup", "cutmix"):
        clips = DecodedClips(records, augmentation=Augmentation(**{kind: 1.0}))
        for batch, clean in zip(training_batches(clips, **RUN), plain, strict=True):
            assert batch.labels.tolist() == clean.labels.tolist() and 0 <= batch.share <= 1
            # three clips: the first two mixed with each other, the last with itself
            assert batch.others.tolist() == [clean.labels[i] for i in (1, 0, 2)]
            torch.testing.assert_close(batch.video[2], clean.video[2])
            first, second = clean.video[0], clean.video[1]
            if kind == "mixup":
                wanted = first * batch.share + second * (1 - batch.share)
                torch.testing.assert_close(batch.video[0], wanted)
            else:
                of_first = (batch.video[0] == first).all(0)
                assert (of_first | (batch.video[0] == second).all(0)).all()
                assert of_first.float().mean() >= batch.share - 1e-6


def test_augmentation_says_what_is_wrong():
    for values, text in (
        ({"crop_scale": (0.9, 0.5)}, r"crop_scale \(0.9, 0.5\) must be two shares"),
        ({"crop_ratio": (0, 1)}, r"crop_ratio \(0, 1\) must be two positive ratios"),
        (
            {"rand_augment": (2, 31)},
            r"rand_augment \(2, 31\) must be .* magnitude between 0 and 30",
        ),
        ({"erase": 2}, r"erase \(2\) must be between 0 and 1"),
        ({"mixup": -1}, r"mixup \(-1\) must be at least 0"),
    ):
        with pytest.raises(ValueError, match=text):
            Augmentation(**values)
