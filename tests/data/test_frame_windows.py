"""Windows of a video: the frames of read_frames, in one pass, whatever the spans; damage is named, not skipped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_video import read_numbers, write_numbered

from stretchysnake.data import video
from stretchysnake.data.clips import uniform_indices
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.frame_windows import contained_probe, frame_windows
from stretchysnake.data.video import read_frames, stream_frames


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    path = tmp_path_factory.mktemp("windows") / "numbered.mp4"
    return write_numbered(path, 90, options={"preset": "ultrafast", "g": "12", "bf": "2"})


@given(
    num_frames=st.integers(1, 120),
    cuts=st.lists(st.integers(1, 120), max_size=5, unique=True),
)
@settings(max_examples=25, deadline=None)
def test_windows_are_the_frames_of_read_frames(numbered, num_frames, cuts):
    indices = uniform_indices(90, num_frames)
    ends = sorted({cut for cut in cuts if cut < num_frames} | {num_frames})
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    windows = list(frame_windows(numbered, indices, spans, size=32, num_workers=0))
    assert [len(window) for window in windows] == [stop - start for start, stop in spans]
    assert np.array_equal(np.concatenate(windows), read_frames(numbered, indices, size=(32, 32)))


def test_a_process_of_its_own_gives_the_same(numbered):
    indices, spans = list(range(0, 90, 3)), [(0, 7), (7, 14), (14, 30)]
    windows = list(frame_windows(numbered, indices, spans, size=64))
    assert read_numbers(np.concatenate(windows)) == indices
    assert contained_probe(numbered).num_frames == 90


def test_a_span_out_of_turn_opens_the_file_again(numbered):
    windows = frame_windows(numbered, range(90), [(40, 45), (10, 12)], size=64, num_workers=0)
    assert [read_numbers(w) for w in windows] == [[40, 41, 42, 43, 44], [10, 11]]


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
        contained_probe(tmp_path / "bad.mp4", num_workers=num_workers)
    with pytest.raises(DecodeError, match=r"bad\.mp4"):
        list(frame_windows(tmp_path / "bad.mp4", [0], [(0, 1)], size=8, num_workers=num_workers))
