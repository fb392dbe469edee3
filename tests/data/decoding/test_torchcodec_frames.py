"""torchcodec behind the same functions: the same frames, or an error that says what to install."""

import sys
import types
from fractions import Fraction

import numpy as np
import pytest
from numbered_video import turn_header, write_numbered
from odd_videos import ODD
from painted_video import colours_of, quarters, write_changing, write_painted

from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import probe, read_frames, read_frames_at


@pytest.mark.extra("torchcodec")
@pytest.mark.parametrize(
    ("suffix", "codec", "turn"),
    [
        (".mp4", "libx264", 0),
        (".mp4", "libx264", 90),
        (".mp4", "libx264", 180),
        (".mkv", "libx264", 0),
        (".webm", "libvpx-vp9", 0),
        (".avi", "libx264", 0),
    ],
)
def test_frames_are_those_pyav_gives(tmp_path, suffix, codec, turn):
    path = tmp_path / f"v{suffix}"
    write_numbered(path, 40, codec=codec)
    if turn:
        turn_header(path, turn)
    wanted = [39, 0, 7, 7, 20]
    ours, theirs = (read_frames(path, wanted, decoder=d) for d in ("pyav", "torchcodec"))
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= 4
    other = read_frames(path, [38, 1, 6, 8, 21])
    assert np.abs(ours.astype(int) - other).max() > 20  # neighbours could be told apart


@pytest.mark.extra("torchcodec")
def test_seconds_sizes_and_what_it_holds_agree_with_pyav(tmp_path):
    path = tmp_path / "v.mp4"
    write_numbered(path, 40)
    ours, theirs = (
        read_frames_at(path, [0.0, 1.0], size=(24, 32), decoder=d) for d in ("pyav", "torchcodec")
    )
    assert theirs.shape == (2, 24, 32, 3)
    assert np.abs(ours.astype(int) - theirs).mean() < 3
    assert probe(path) == probe(path, decoder="torchcodec")


@pytest.mark.extra("torchcodec")
def test_a_cut_file_is_named_before_it_is_decoded(tmp_path):
    path = tmp_path / "v.mkv"
    write_numbered(path, 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DecodeError, match="truncated"):
        read_frames(path, [0], decoder="torchcodec")


@pytest.mark.parametrize(
    "kind", ["h264-no-ctts-mp4", "packed-xvid-avi", "joined-overlap-ts", "edit-pieces"]
)
def test_what_only_counting_finds_is_refused(tmp_path, monkeypatch, kind):
    module = types.ModuleType("torchcodec.decoders")
    module.VideoDecoder = None  # never asked
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    path, _, _ = ODD[kind](tmp_path)
    with pytest.raises(DecodeError, match=r"found by counting alone.*use decoder='pyav'"):
        read_frames(path, [0, 3], decoder="torchcodec")


def test_where_it_is_missing_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "v.mp4"
    write_numbered(path, 5)
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(RuntimeError, match=r"pip install 'stretchysnake\[torchcodec\]'"):
        read_frames(path, [0], decoder="torchcodec")


def test_unknown_decoder_lists_the_known_ones(tmp_path):
    write_numbered(tmp_path / "v.mp4", 5)
    with pytest.raises(ValueError, match=r"decoder \('decord'\) must be one of: pyav, torchcodec"):
        read_frames(tmp_path / "v.mp4", [0], decoder="decord")


@pytest.mark.extra("torchcodec")
@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)])
def test_mirrored_pictures_of_the_default_track_stand_as_pyav_shows_them(tmp_path, matrix):
    path = write_painted(tmp_path / "v.mp4", quarters(), matrix=matrix, aspect=Fraction(3, 2))
    ours, theirs = (read_frames(path, [1], decoder=d) for d in ("pyav", "torchcodec"))
    assert ours.shape == theirs.shape and colours_of(ours[0]) == colours_of(theirs[0])
    tracks = [quarters(), quarters(width=64, colours="WBGR")]
    path = write_painted(tmp_path / "two.mkv", tracks, default={1})
    assert colours_of(read_frames(path, [1], decoder="torchcodec")[0]) == "WBGR"


@pytest.mark.extra("torchcodec")
def test_a_picture_that_changes_its_size_gets_the_first_ones(tmp_path):
    path = write_changing(tmp_path / "v.webm", quarters(3), quarters(3, height=96, width=128))
    frames = read_frames(path, [4, 1], decoder="torchcodec")
    assert frames.shape == (2, 64, 96, 3) and [colours_of(f) for f in frames] == ["RGBW"] * 2
