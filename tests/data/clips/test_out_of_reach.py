"""A file out of reach for a moment is waited for and said once; one that stays away is not waited for for ever."""

import errno
import os

import pytest
import torch
from numbered_video import write_numbered

from stretchysnake.data.clips import bad_clips, open_clips, seen_picture
from stretchysnake.data.clips.bad_clips import MOST_IN_VAIN, pauses_for
from stretchysnake.data.clips.clip_source import ClipRequest, DecodedClips, DecodingLimits
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale
from stretchysnake.ranks import Runtime

SCALE = Scale(4, 16, 8)
GROWING = (0.5, 1.0, 2.0, 4.0, 8.0)
HERE = DecodingLimits(num_workers=0)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("v")
    return [VideoRecord(write_numbered(folder / f"{i}.mp4", 16 + i), 0) for i in range(4)]


@pytest.fixture
def slept(monkeypatch):
    """Pauses as in use, noted instead of slept."""
    monkeypatch.setattr(bad_clips, "PAUSES", GROWING)
    seconds = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


def failing(monkeypatch, numbers):
    """Reading raises an OSError of each of these numbers in turn, then goes well (None: goes well now)."""
    left, reads = list(numbers), seen_picture.read_frames

    def read(path, *arguments, **options):
        if left and (number := left.pop(0)) is not None:
            raise OSError(number, os.strerror(number))
        return reads(path, *arguments, **options)

    monkeypatch.setattr(seen_picture, "read_frames", read)


def drawn(clips, indices):
    return list(clips.draw([ClipRequest(index, SCALE) for index in indices]))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN])
def test_a_storage_that_stumbles_costs_time_and_no_clip(records, monkeypatch, slept, number):
    whole = drawn(DecodedClips(records, limits=HERE), [0, 1])
    failing(monkeypatch, [number, number, None, None, number])
    clips = DecodedClips(records, limits=HERE)
    answers = drawn(clips, [0, 1, 0])
    assert all(torch.equal(a, b) for a, b in zip(answers, [*whole, whole[0]], strict=True))
    assert slept == [0.5, 1.0, 0.5]
    (told,) = clips.bad.take_news()  # once, although it stumbled twice
    assert (told.path, told.outlook) == (records[0].path, "waited")
    assert clips.bad.quarantine == clips.bad.failing == {}


def test_one_that_stays_away_is_left_to_the_policy_and_no_more_waited_for(
    records, monkeypatch, slept
):
    failing(monkeypatch, [errno.EIO] * 100)
    clips = DecodedClips(records, limits=HERE)
    answers = drawn(clips, [0, 1, 2, 3])
    assert [answer.kind for answer in answers] == ["unreadable"] * 4
    assert slept == list(GROWING) * MOST_IN_VAIN


def test_an_error_that_does_not_pass_is_not_waited_for(records, monkeypatch, slept):
    failing(monkeypatch, [errno.EACCES])
    (answer,) = drawn(DecodedClips(records, limits=HERE), [0])
    assert isinstance(answer, DecodeError) and slept == []


def test_a_missing_file_is_waited_for_less(tmp_path, records, slept):
    gone = [VideoRecord(str(tmp_path / f"{i}.mp4"), 0) for i in range(5)]
    clips = DecodedClips([*gone, records[0]], limits=HERE)
    answers = drawn(clips, [0, 5, 1, 5, 2, 5, 3, 5, 4])
    assert sum(isinstance(answer, DecodeError) for answer in answers) == 5
    assert slept == [0.5, 1.0] * MOST_IN_VAIN  # whole files in between say nothing of those


def test_a_file_that_vanishes_for_a_moment_is_the_same_clip(tmp_path, records, monkeypatch):
    monkeypatch.setattr(bad_clips, "PAUSES", GROWING)
    late = tmp_path / "late.mp4"
    monkeypatch.setattr(
        "time.sleep", lambda _: os.path.exists(late) or os.link(records[1].path, late)
    )
    clips = DecodedClips([VideoRecord(str(late), 0)], limits=HERE)
    (clip,) = drawn(clips, [0])
    assert torch.equal(clip, DecodedClips(records).clip(1, SCALE))
    late.unlink()
    (views,) = clips.draw_views([0], SCALE, num_views=2)
    assert views.shape == (2, 4, 16, 16, 3)


def test_a_worker_is_asked_again_too(tmp_path, records, monkeypatch):
    monkeypatch.setattr(bad_clips, "PAUSES", (0.0,))
    counted = tmp_path / "counted"
    reads = seen_picture.read_frames

    def read(*arguments, **options):
        if not counted.exists():
            counted.touch()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return reads(*arguments, **options)

    monkeypatch.setattr(seen_picture, "read_frames", read)
    clips = DecodedClips(records, limits=DecodingLimits(num_workers=1))
    (clip,) = drawn(clips, [2])
    assert torch.equal(clip, DecodedClips(records).clip(2, SCALE))


def test_a_file_known_to_be_bad_is_not_waited_for(tmp_path, slept):
    clips = DecodedClips([VideoRecord(str(tmp_path / "gone.mp4"), 0)], limits=HERE)
    clips.bad.failed(0, DecodeError("missing", "gone.mp4", "no such file."), for_good=True)
    assert isinstance(drawn(clips, [0])[0], DecodeError) and slept == []


def test_a_check_waits_for_what_may_pass(records, tmp_path, monkeypatch, slept):
    gone = VideoRecord(str(tmp_path / "gone.mp4"), 0)
    asked, probe = [], open_clips.probe

    def stumbling(path):
        asked.append(path)
        if path == records[1].path and asked.count(path) < 4:
            raise DecodeError("unreadable", path, "cannot be read (Stale file handle).", True)
        return probe(path)

    monkeypatch.setattr(open_clips, "probe", stumbling)
    bad = open_clips.checked([gone, *records], limits=HERE)
    assert list(bad) == [0] and bad[0].kind == "missing"
    assert slept == [0.5, 1.0, 2.0] and asked.count(records[0].path) == 1


def test_each_rank_opens_its_share_and_knows_all_that_is_bad(records, tmp_path, monkeypatch):
    listed = [VideoRecord(str(tmp_path / f"{i}.mp4"), 0) for i in range(2)] + records[:3]
    told, asked, probe = [], [], open_clips.probe
    monkeypatch.setattr(open_clips, "probe", lambda path: asked.append(path) or probe(path))

    class Ranks(Runtime):
        def gather(self, text):
            told.append(text)
            return told

        def meet(self):
            pass

    for rank in (0, 1):
        bad = open_clips.checked(listed, limits=HERE, runtime=Ranks(rank=rank, world_size=2))
    assert [listed.index(r) for path in asked for r in listed if r.path == path] == [0, 2, 4, 1, 3]
    assert {place: error.path for place, error in bad.items()} == {
        0: listed[0].path,
        1: listed[1].path,
    }


def test_what_is_waited_for():
    assert pauses_for(DecodeError("timeout", "v.mp4", "too slow.")) == ()
    assert pauses_for(DecodeError("corrupt", "v.mp4", "frame 3 is damaged.")) == ()
