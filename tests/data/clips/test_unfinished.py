"""Clips that are finished on the device of the model are bit for bit those that a decoding process would have made."""

from dataclasses import replace

import pytest
import torch
from numbered_video import write_numbered

from stretchysnake.data.clips import loader, training_order
from stretchysnake.data.clips.augment import partners_of
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.bad_clips import BadClips
from stretchysnake.data.clips.loader import DecodedClips, DecodingLimits, training_batches
from stretchysnake.data.clips.loading.batch import UnfinishedVideo, groups_of
from stretchysnake.data.clips.transforms import IMAGENET_MEAN, IMAGENET_STD
from stretchysnake.data.processes.nursery import nursery
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale

SCALES = [Scale(4, 16, 4), Scale(2, 24, 4)]
STRONG = Augmentation(flip=True, rand_augment=(3, 20), erase=0.7, mixup=0.8, cutmix=1.0)
RUN = {"variant": "two", "batch_size": 6, "seed": 5, "steps": 6}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def alternating_scales(monkeypatch):
    monkeypatch.setattr(training_order, "scales_at", lambda *_, step, groups, **__: tuple(
        SCALES[(step + g) % 2] for g in range(groups)))  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [VideoRecord(write_numbered(folder / f"{i}.mp4", 12 + i), label=i) for i in range(7)]


def source(records, *, num_workers=0, **changes):
    limits = DecodingLimits(num_workers=num_workers)
    return DecodedClips(records, augmentation=replace(STRONG, **changes), limits=limits)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_finished_there_or_here_or_in_the_process_the_clips_are_the_same(
    records, num_workers, groups
):
    options = {**RUN, "scales_per_step": groups}
    here = training_batches(source(records), **options)
    with nursery():
        clips = source(records, num_workers=num_workers)
        there = training_batches(clips, **options, device=CPU, augment_on_device=True)
        drawn = [draws for batch in zip(here, there, strict=True) for draws in same(*batch)]
    assert any(d.mirrored for d in drawn) and not all(d.mirrored for d in drawn)
    assert all(len(d.operations) == 3 for d in drawn)
    assert {d.erasure is None for d in drawn} == {True, False}


def same(here, there):
    """The draws of the clips of a batch, whose video, labels and shares are those of `here`."""
    for a, b in zip(groups_of(here), groups_of(there), strict=True):
        assert isinstance(b.video, UnfinishedVideo) and b.video.shape == a.video.shape
        assert torch.equal(b.video.to("cpu"), a.video) and len(b.video) == len(a.labels)
        assert torch.equal(a.labels, b.labels) and torch.equal(a.others, b.others)
        assert a.share == b.share
        for rows in (slice(0, 1), slice(1, 3), slice(0, len(a.labels))):  # some without partners
            assert torch.equal(b.video[rows].to("cpu"), a.video[rows])
        assert all(clip.frames.dtype == torch.uint8 for clip in b.video.clips)
        yield from (clip.draws for clip in b.video.clips)


def test_by_default_a_cpu_leaves_to_the_processes_what_they_can_do(records):
    (batch,) = training_batches(source(records), **{**RUN, "steps": 1}, device=CPU)
    assert not any(any(clip.draws) for clip in batch.video.clips)
    (finished,) = training_batches(source(records), **{**RUN, "steps": 1})
    assert torch.equal(batch.video.to("cpu"), finished.video)


def test_a_mixture_by_hand(records):
    """Of normalised clips, with the neighbour, by the share that the batch says."""
    clips = source(records, cutmix=0.0, flip=False, rand_augment=None, erase=0.0)
    (batch,) = training_batches(clips, **{**RUN, "steps": 1}, device=CPU)
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    each = torch.stack(
        [(c.frames.permute(3, 0, 1, 2) / 255 - mean) / std for c in batch.video.clips]
    )
    wanted = each * batch.share + each[[1, 0, 3, 2, 5, 4]] * (1 - batch.share)
    assert partners_of([0, 1, 2, 3, 4, 5]) == [1, 0, 3, 2, 5, 4]
    torch.testing.assert_close(batch.video.to("cpu"), wanted, atol=1e-4, rtol=1e-4)


def test_shares_of_ranks_are_the_batch_of_one(records):
    options = {**RUN, "device": CPU, "augment_on_device": True}
    whole = list(training_batches(source(records), **options))
    ranks = [
        training_batches(source(records), **options, rank=r, world_size=2, start_step=1)
        for r in (0, 1)
    ]
    for batch, *parts in zip(whole[1:], *ranks, strict=True):
        together = torch.cat([part.video.to("cpu") for part in parts])
        assert torch.equal(together, batch.video.to("cpu"))


def test_who_keeps_all_batches_is_served_through_the_pipe(records, monkeypatch):
    """Memory for two batches and a clip, and none of it given back; whole batches all the same."""
    monkeypatch.setattr(loader, "LEAST_BYTES", 0)
    kept = list(training_batches(source(records, num_workers=2), **RUN, device=CPU))
    for batch, wanted in zip(kept, training_batches(source(records), **RUN), strict=True):
        assert torch.equal(batch.video.to("cpu"), wanted.video)


def test_only_what_the_memory_holds_is_decoded_ahead(records, monkeypatch):
    monkeypatch.setattr(loader, "LEAST_BYTES", 0)
    taken, whole = [], loader.ClipMemory.take
    held = []

    def noting(self, num_bytes):
        slot = whole(self, num_bytes)
        held.append(self.newest.num_bytes)
        taken.append(slot is not None)
        return slot

    monkeypatch.setattr(loader.ClipMemory, "take", noting)
    batches = training_batches(source(records, num_workers=1), **{**RUN, "steps": 40}, device=CPU)
    first = next(batches)
    wait_for(lambda: not taken[-1])
    assert sum(taken) == 13  # two batches of six and one clip, the first of them in our hands
    del first
    wait_for(lambda: sum(taken) > 13 and not taken[-1])
    batches.close()  # although the thread waits for memory that nobody gives back
    assert set(held) == {13 * 4096}  # a page holds a clip of either scale


def wait_for(condition):
    import time

    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_clips_that_cannot_be_had_give_their_memory_back(records, tmp_path, monkeypatch):
    memories = []

    class Kept(loader.ClipMemory):
        def __init__(self, **options):
            super().__init__(**options)
            memories.append(self)

    monkeypatch.setattr(loader, "ClipMemory", Kept)
    listed = [*records[:3], VideoRecord(str(tmp_path / "gone.mp4"), 0)]
    limits, bad = DecodingLimits(num_workers=1), BadClips("skip")
    clips = DecodedClips(listed, limits=limits, bad=bad)
    counts = [
        (len(batch.labels), len(batch.bad))
        for batch in training_batches(clips, **{**RUN, "steps": 4}, device=CPU)
    ]
    assert sum(missing for _, missing in counts) == 6 and {sum(c) for c in counts} == {6}
    (memory,) = memories
    assert memory.newest.take(memory.newest.num_bytes) is not None
