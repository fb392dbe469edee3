"""Files that turn out bad on the way: replaced within the class, skipped or raised; evaluation replaces none."""

import errno
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_video import read_numbers, write_numbered

from stretchysnake.data import decode_error
from stretchysnake.data.clips import open_clips, training_order
from stretchysnake.data.clips.bad_clips import (
    BadClips,
    BadFile,
    bad_file_of,
    changed_since,
    pass_over,
)
from stretchysnake.data.clips.clip_source import ClipRequest, DecodedClips, DecodingLimits
from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.clips.loader import evaluation_batches, training_batches, training_steps
from stretchysnake.data.clips.open_clips import open_training_clips
from stretchysnake.data.clips.seeds import AUGMENTATION, generator_of
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import write_video
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale

RUN = {"variant": "vanilla", "batch_size": 3, "seed": 5, "steps": 8}


@pytest.fixture(autouse=True)
def one_scale(monkeypatch):
    monkeypatch.setattr(training_order, "scales_at", lambda *_, **__: (Scale(4, 16, 8),))


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


def test_a_batch_without_a_single_clip_comes_empty_and_says_why(records):
    clips = source(records[-2:], "skip")
    found = list(training_batches(clips, **{**RUN, "batch_size": 1, "steps": 4}))
    assert [batch.step for batch in found] == [0, 1, 2, 3]
    assert sorted(len(batch.labels) for batch in found) == [0, 0, 1, 1]
    for batch in found:
        assert len(batch.bad) == 1 - len(batch.labels) and batch.video.shape[2:] == (4, 16, 16)


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


def test_training_clips_keep_every_place_and_probe_nothing(records, tmp_path, monkeypatch):
    monkeypatch.setattr(open_clips, "probe", None)
    gone = VideoRecord(str(tmp_path / "gone.mp4"), 0)
    listed = [gone, *records[:3], records[7]]
    decoded = open_training_clips(listed, cache=None)
    cached = open_training_clips(listed, cache=tmp_path / "cache", num_frames=4, size=16)
    for clips in (decoded, cached):
        assert clips.records == listed and clips.failures == []
        assert clips.labels.tolist() == [0, 0, 0, 0, 1]
    assert set(decoded.bad.quarantine) == set() and set(cached.bad.quarantine) == {0, 4}
    assert read_numbers(cached.clip(3, Scale(4, 16, 8)).numpy()) == uniform_indices(18, 4)
    assert cached.draw_one(ClipRequest(0, Scale(4, 16, 8))).kind == "missing"
    with pytest.raises(DecodeError, match=r"gone\.mp4: missing"):
        open_training_clips(
            listed, cache=tmp_path / "cache", num_frames=4, size=16, on_error="stop"
        )


def test_training_clips_that_are_checked_first_know_all_that_cannot_be_read(records, tmp_path):
    (tmp_path / "empty.mp4").touch()
    gone, empty = (VideoRecord(str(tmp_path / f"{name}.mp4"), 0) for name in ("gone", "empty"))
    listed = [gone, *records[:2], empty]
    clips = open_training_clips(listed, cache=None, check_first=True)
    assert clips.records == listed
    assert (set(clips.bad.quarantine), set(clips.bad.failing)) == ({3}, {0})  # it may come back
    assert [file.outlook for file in clips.bad.take_news()] == ["again", "out"]
    with pytest.raises(DecodeError, match=r"gone\.mp4: missing"):
        open_training_clips(listed, cache=None, check_first=True, on_error="stop")


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "decoded"])
def test_what_is_bad_changes_no_other_place(records, tmp_path, cached):
    """The same list, once whole and once with an unreadable file: only the clips of that file differ."""
    options = {"cache": tmp_path / "cache" if cached else None, "num_frames": 4, "size": 16}
    whole = list(training_batches(open_training_clips(records[:7], **options), **RUN))
    (tmp_path / "cut.mp4").write_bytes(Path(records[2].path).read_bytes()[:200])
    listed = [*records[:2], VideoRecord(str(tmp_path / "cut.mp4"), 0), *records[3:7]]
    clips = open_training_clips(listed, **options)
    for a, b in zip(whole, training_batches(clips, **RUN), strict=True):
        (step,) = training_steps(7, **{**RUN, "steps": a.step + 1}, start_step=a.step)
        assert a.step == b.step and torch.equal(a.labels, b.labels)
        for place, index in enumerate(step.indices):
            assert index == 2 or torch.equal(a.video[place], b.video[place])
        assert len(b.bad) == step.indices.count(2)
        for draw in b.bad:
            assert draw.path == listed[2].path
            assert draw.replaced_by in {records[i].path for i in (0, 1, 3)}


def test_a_file_out_of_reach_is_tried_three_times_and_a_rotten_one_once():
    bad = BadClips(tries=3)
    for index, error in (
        (0, DecodeError("timeout", "slow", "not decoded within 60 s.")),
        (1, DecodeError("unreadable", "far", "cannot be read (Stale file handle).", True)),
        (2, DecodeError("corrupt", "rotten", "frame 3 is damaged.")),
    ):
        for count in range(3):
            assert (index in bad.quarantine) == (index == 2 and count > 0)
            bad.failed(index, error)
        assert index in bad.quarantine
    outlooks = [(file.path, file.outlook) for file in bad.take_news()]
    assert outlooks == [
        ("slow", "again"), ("slow", "out"), ("far", "again"), ("far", "out"), ("rotten", "out"),
    ]  # fmt: skip
    assert bad.take_news() == ()


def test_a_file_that_comes_back_is_read_again_and_said(records, tmp_path):
    late = tmp_path / "late.mp4"
    clips = open_training_clips([VideoRecord(str(late), 0), records[0]], cache=None,
                                limits=DecodingLimits(num_workers=0))  # fmt: skip
    drawn = training_batches(clips, **{**RUN, "batch_size": 2}, prefetch=0)
    first = next(drawn)
    assert [draw.kind for draw in first.bad] == ["missing"] and first.news[0].outlook == "again"
    shutil.copy(records[1].path, late)
    second = next(drawn)
    assert second.bad == () and [file.outlook for file in second.news] == ["back"]


def test_errors_of_storage_pass_and_those_of_permissions_do_not(tmp_path, monkeypatch):
    path = tmp_path / "v.mp4"
    for number, passes in ((errno.EIO, True), (errno.ESTALE, True), (errno.EACCES, False)):

        def refuse(*_, number=number):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr("builtins.open", refuse)
            with pytest.raises(DecodeError) as caught:
                decode_error.check_file(str(path))
        assert caught.value.transient is passes
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.transient, str(again)) == (passes, str(caught.value))
    cause = DecodeError("corrupt", "v.mp4", "decoding fails after 3 frames (I/O error).")
    cause.__cause__ = OSError(errno.EIO, "I/O error")
    assert pickle.loads(pickle.dumps(cause)).transient
    assert not DecodeError("corrupt", "v.mp4", "frame 3 is damaged.").transient


def test_bad_files_of_before_are_passed_over_unless_they_changed(records, tmp_path):
    paths = [tmp_path / f"{i}.mp4" for i in range(3)]
    for path in paths[:2]:
        path.write_bytes(b"no video")
    listed = [VideoRecord(str(path), 0) for path in paths]
    before = BadClips()
    for index, path in enumerate(paths):
        before.failed(index, DecodeError("unreadable", str(path), "not a video file."))
    known = before.take_news()
    shutil.copy(records[0].path, paths[1])
    clips = open_training_clips([*listed, records[1]], cache=None)
    assert changed_since(clips, known) == [known[1]]
    assert changed_since(open_training_clips(records, cache=None), known) == list(known)
    pass_over(clips, [known[0], known[2]])
    assert clips.draw_one(ClipRequest(1, Scale(4, 16, 8))).shape == (4, 16, 16, 3)
    drawn = clips.draw([ClipRequest(0, Scale(4, 16, 8))])
    assert str(next(drawn)) == str(known[0].error) and clips.bad.news == []


@pytest.mark.parametrize(
    "values", [None, [], [1, "p", "missing", "r", None], [-1, "p", "missing", "r", None, "out"],
               [1, "p", "missing", "r", [1], "out"], [1, "p", "missing", "r", "x", "out"]],
)  # fmt: skip
def test_bad_files_survive_json_and_nothing_else_passes(values):
    file = BadFile(3, "p", "missing", "r", (5, 7))
    assert bad_file_of(json.loads(json.dumps(file))) == file
    with pytest.raises(ValueError, match="tells of no bad file"):
        bad_file_of(values)


def test_what_was_given_up_stays_so_where_it_was_decoded_ahead(records):
    """A file given up while a later draw of it was under way stays given up."""
    clips = open_training_clips(records[:2], cache=None)
    clips.bad.quarantine[0] = error = DecodeError("timeout", records[0].path, "too slow.")
    assert clips.draw_one(ClipRequest(0, Scale(4, 16, 8))) is error


def test_an_unknown_policy_is_named():
    with pytest.raises(
        ValueError, match=r"on_error \('ignore'\) must be one of: replace, skip, stop"
    ):
        BadClips("ignore")
