"""Windows of a video: the frames of read_frames, in one pass, whatever the spans; damage is named, not skipped."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_video import read_numbers, write_numbered

from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding import video
from stretchysnake.data.decoding.frame_windows import frame_windows
from stretchysnake.data.decoding.video import read_frames, stream_frames


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    path = tmp_path_factory.mktemp("windows") / "numbered.mp4"
    return write_numbered(path, 90, options={"preset": "ultrafast", "g": "12", "bf": "2"})


def planned(windows):
    """A plan that tells the number of frames."""
    return lambda index: (len(index.stamps), windows)


@given(
    num_frames=st.integers(1, 120),
    cuts=st.lists(st.integers(1, 120), max_size=5, unique=True),
)
@settings(max_examples=25, deadline=None)
def test_windows_are_the_frames_of_read_frames(numbered, num_frames, cuts):
    indices = uniform_indices(90, num_frames)
    ends = sorted({cut for cut in cuts if cut < num_frames} | {num_frames})
    wanted = [indices[start:stop] for start, stop in zip([0, *ends[:-1]], ends, strict=True)]
    total, windows = frame_windows(numbered, planned(wanted), size=32, num_workers=0)
    windows = list(windows)
    assert total == 90
    assert [len(window) for window in windows] == [len(window) for window in wanted]
    assert np.array_equal(np.concatenate(windows), read_frames(numbered, indices, size=(32, 32)))


def test_a_process_of_its_own_gives_the_same(numbered):
    wanted = [[0, 3, 6], [9, 9, 12, 30], list(range(31, 90, 7))]
    total, windows = frame_windows(numbered, planned(wanted), size=64)
    assert total == 90
    assert [read_numbers(window) for window in windows] == wanted


@given(
    length=st.integers(1, 30), step=st.integers(1, 30), every=st.integers(1, 9), end=st.booleans()
)
@settings(max_examples=15, deadline=None)
def test_windows_that_overlap_are_decoded_once(numbered, length, step, every, end):
    wanted = [list(range(first, first + length, every)) for first in range(0, 91 - length, step)]
    if end:
        wanted.append(list(range(90 - length, 90)))
    passed = []

    def counted(*arguments):
        for place, pixels in whole(*arguments):
            passed.append(place)
            yield place, pixels

    whole = video.frames_by_stamp
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "frames_by_stamp", counted)
        _, windows = frame_windows(numbered, planned(wanted), size=64, num_workers=0)
        assert [read_numbers(window) for window in windows] == wanted
    assert passed == sorted({number for window in wanted for number in window})


def test_a_seek_that_misses_goes_on_in_order_from_where_it_was(numbered, monkeypatch):
    whole = video.frames_by_stamp

    def missing_after_five(*arguments):
        for count, found in enumerate(whole(*arguments)):
            if count == 5:
                raise video.SeekMissed
            yield found

    monkeypatch.setattr(video, "frames_by_stamp", missing_after_five)
    frames = stream_frames(numbered, range(0, 90, 4), size=(64, 64))
    assert read_numbers(np.stack(list(frames))) == list(range(0, 90, 4))


def test_an_index_outside_is_refused(numbered):
    with pytest.raises(ValueError, match=r"indices \(0 to 90\) must lie in .*frames 0 to 89"):
        next(stream_frames(numbered, [0, 90], size=(8, 8)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_file_is_named(tmp_path, num_workers):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(DecodeError, match=r"bad\.mp4"):
        frame_windows(tmp_path / "bad.mp4", planned([[0]]), size=8, num_workers=num_workers)


def test_damage_is_named_after_the_windows_before_it(numbered, tmp_path):
    content = bytearray(Path(numbered).read_bytes())
    start = content.index(b"mdat") + 4
    half = (start + len(content)) // 2
    content[half : half + 600] = bytes(600)
    (tmp_path / "hole.mp4").write_bytes(content)
    wanted = [[number] for number in range(90)]
    _, windows = frame_windows(tmp_path / "hole.mp4", planned(wanted), size=64)
    seen = []
    with pytest.raises(DecodeError, match=r"hole\.mp4"):
        for window in windows:
            seen += read_numbers(window)
    assert 0 < len(seen) < 90 and seen == list(range(len(seen)))
