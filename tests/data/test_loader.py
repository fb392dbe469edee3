import pytest
import torch
from numbered_video import read_numbers, write_numbered

from stretchysnake.data import loader
from stretchysnake.data.clips import uniform_indices
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.frame_cache import FrameCache
from stretchysnake.data.loader import (
    Augmentation,
    CachedClips,
    DecodedClips,
    batch_size_at,
    evaluation_batches,
    training_batches,
    training_steps,
)
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale

SCALES = [Scale(num_frames=4, size=16, patch_size=4), Scale(num_frames=2, size=24, patch_size=4)]


@pytest.fixture(autouse=True)
def alternating_scales(monkeypatch):
    monkeypatch.setattr(loader, "scale_at", lambda variant, *, seed, step: SCALES[step % 2])


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
    clips = DecodedClips([VideoRecord(str(tmp_path / "gone.mp4"), 0)])
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
