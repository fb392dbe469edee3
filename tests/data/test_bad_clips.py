"""Files that turn out bad on the way: replaced within the class, skipped or raised; evaluation replaces none."""

import numpy as np
import pytest
import torch
from numbered_video import write_numbered

from stretchysnake.data import loader
from stretchysnake.data.bad_clips import BadClips
from stretchysnake.data.clip_source import DecodedClips, DecodingLimits, open_clips
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.loader import evaluation_batches, training_batches
from stretchysnake.data.records import VideoRecord
from stretchysnake.data.seeds import AUGMENTATION, generator_of
from stretchysnake.data.transforms import normalise
from stretchysnake.data.video import write_video
from stretchysnake.flexibility import Scale

RUN = {"variant": "vanilla", "batch_size": 3, "seed": 5, "steps": 8}


@pytest.fixture(autouse=True)
def one_scale(monkeypatch):
    monkeypatch.setattr(loader, "scale_at", lambda variant, *, seed, step: Scale(4, 16, 8))


def write_rotten(path):
    """A video whose first frame is fine and whose middle is zeros: found only when it is decoded."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    write_video(path, noise, options={"bf": "0", "g": "250"})
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 3] = bytes(len(content) // 3)
    path.write_bytes(content)
    return str(path)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Two classes of four videos; one of class 1 is rotten in the middle."""
    folder = tmp_path_factory.mktemp("v")
    found = [VideoRecord(write_numbered(folder / f"{i}.mp4", 16 + i), i // 4) for i in range(7)]
    return [*found, VideoRecord(write_rotten(folder / "rotten.mp4"), 1)]


def source(records, on_error="replace", num_workers=0):
    limits = DecodingLimits(num_workers=num_workers, timeout_seconds=20)
    return DecodedClips(records, bad=BadClips(on_error), limits=limits)


def test_a_bad_clip_is_replaced_within_its_class_and_listed(records):
    clips = source(records)
    batches = list(training_batches(clips, **RUN))
    assert [len(batch.labels) for batch in batches] == [3] * 8
    assert clips.bad.events and set(clips.bad.quarantine) == {7}
    for event in clips.bad.events:
        assert event.path == records[7].path and event.kind == "corrupt"
        assert event.replaced_by in {record.path for record in records[4:7]}
    summary = clips.bad.summary
    assert summary["replaced"] == len(clips.bad.events) == 3 and summary["skipped"] == 0
    assert summary["files"] == [str(clips.bad.quarantine[7])]


def test_a_replacement_is_the_clip_of_the_file_it_names(records):
    clips = source(records)
    batches = {batch.step: batch for batch in training_batches(clips, **RUN)}
    for event in clips.bad.events:
        batch = batches[event.step]
        (index,) = [i for i, record in enumerate(records) if record.path == event.replaced_by]
        shown = []
        for place in range(3):
            generator = generator_of(5, AUGMENTATION, event.step, place)
            expected = normalise(clips.clip(index, batch.scale, generator=generator))
            shown.append(torch.equal(batch.video[place], expected) and batch.labels[place] == 1)
        assert any(shown)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_replaces_alike(records, num_workers):
    whole = list(training_batches(source(records), **RUN))
    for start in (1, 4, 6):
        resumed = training_batches(
            source(records, num_workers=num_workers), **RUN, start_step=start
        )
        for a, b in zip(whole[start:], resumed, strict=True):
            assert a.step == b.step and torch.equal(a.video, b.video)


def test_skip_makes_the_batch_smaller_and_lists_it(records):
    clips = source(records, "skip")
    sizes = [len(batch.labels) for batch in training_batches(clips, **RUN)]
    assert sum(sizes) == 24 - 3 and clips.bad.summary["skipped"] == 3
    assert all(event.replaced_by is None for event in clips.bad.events)


def test_a_batch_without_a_single_clip_is_left_out(records):
    clips = source(records[-2:], "skip")
    steps = [b.step for b in training_batches(clips, **{**RUN, "batch_size": 1, "steps": 4})]
    assert len(steps) == 2


def test_stop_raises_the_error(records):
    with pytest.raises(DecodeError, match=r"rotten\.mp4: corrupt"):
        list(training_batches(source(records, "stop"), **RUN))


def test_the_only_video_of_a_class_is_skipped_and_said(records):
    clips = source([*records[:3], records[7]])
    list(training_batches(clips, **RUN))
    assert {event.replaced_by for event in clips.bad.events} == {None}


@pytest.mark.parametrize("on_error", ["replace", "skip"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_list_of_bad_files_alone_ends_at_once(tmp_path, on_error, num_workers):
    gone = [VideoRecord(str(tmp_path / f"{i}.mp4"), i % 3) for i in range(300)]
    batches = training_batches(source(gone, on_error, num_workers), **{**RUN, "steps": 10**6})
    with pytest.raises(ValueError, match="none of the 300 videos can be decoded"):
        list(batches)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_leaves_the_clip_out_and_puts_none_in_its_place(records, num_workers):
    mixed = [records[0], records[7], *records[1:4]]
    clips = source(mixed, num_workers=num_workers)
    batches = list(evaluation_batches(clips, Scale(4, 16, 8), 2))
    assert [indices for indices, _ in batches] == [[0, 2], [3, 4]]
    assert set(clips.bad.quarantine) == {1} and clips.bad.events == []


def test_open_clips_stops_at_a_bad_file_when_asked(records, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    listed = [records[0], VideoRecord(str(tmp_path / "empty.mp4"), 0)]
    with pytest.raises(DecodeError, match=r"empty\.mp4: empty"):
        open_clips(listed, cache=None, on_error="stop")
    assert open_clips(listed, cache=None, on_error="skip").bad.on_error == "skip"


def test_an_unknown_policy_is_named():
    with pytest.raises(
        ValueError, match=r"on_error \('ignore'\) must be one of: replace, skip, stop"
    ):
        BadClips("ignore")
