"""Interlaced H.264 whose packets hold fields: the frames and times are those of plain decoding, however it is muxed."""

import av
import numpy as np
import pytest
from field_pictures import fields, write_fields
from numbered_video import read_numbers
from odd_videos import encode

from stretchysnake.data.decoding.video import (
    DecodeError,
    packet_index,
    probe,
    read_frames,
    read_frames_at,
    verify,
)


def in_pairs(packets):
    return [a + b for a, b in zip(packets[::2], packets[1::2], strict=True)]


def each(i):
    """A time stamp for each field."""
    return 90000 + 1800 * i


def first_alone(i):
    return None if i % 2 else each(i)


MUXED = {
    "each-stamped-ts": ("v.ts", list, each),
    "each-stamped-mkv": ("v.mkv", list, each),
    "first-stamped-ts": ("v.ts", list, first_alone),
    "both-in-one-pes-ts": ("v.ts", in_pairs, lambda i: each(2 * i)),
    "both-in-one-sample-mp4": ("v.mp4", in_pairs, lambda i: each(2 * i)),
}


@pytest.fixture(scope="module", params=MUXED.values(), ids=MUXED)
def muxed(request, tmp_path_factory):
    name, packed, place = request.param
    return write_fields(tmp_path_factory.mktemp("v") / name, packed(fields(30)), place)


def test_frames_of_fields_are_those_of_plain_decoding_at_their_times(muxed):
    with av.open(str(muxed)) as container:
        shown = list(container.decode(video=0))
    times = [frame.time - shown[0].time for frame in shown]
    info, index = verify(muxed), packet_index(muxed)
    assert info == probe(muxed)
    assert (info.num_frames, info.fps) == (30, 25)
    assert info.duration_seconds == pytest.approx(1.2)
    assert [index.seconds(i) for i in range(30)] == pytest.approx(times, abs=1e-6)
    whole = read_frames(muxed, range(30))
    assert read_numbers(whole) == list(range(30))
    for i in (0, 1, 7, 20, 29):
        assert np.array_equal(read_frames(muxed, [i])[0], whole[i])
    assert read_numbers(read_frames_at(muxed, [0.5, 1.19])) == [12, 29]
    assert read_numbers(read_frames(muxed, range, start_seconds=0.4, end_seconds=0.8)) == [
        *range(10, 20)
    ]


def test_half_a_frame_at_an_end_is_left_out_and_said(tmp_path):
    stopped = write_fields(tmp_path / "stopped.ts", fields(30)[:59], each)
    info = verify(stopped)
    assert (info.num_frames, info.note) == (29, "its last frame is not whole and is left out")
    assert read_numbers(read_frames(stopped, [0, 28])) == [0, 28]
    late = write_fields(tmp_path / "late.ts", fields(30)[7:], each)
    assert "refer to pictures before its beginning" in verify(late).note
    assert read_numbers(read_frames(late, range)) == [*range(10, 30)]


@pytest.mark.parametrize("lost", [30, 31])
def test_a_field_that_is_lost_is_found(tmp_path, lost):
    packets = fields(30)
    path = write_fields(tmp_path / "v.ts", packets[:lost] + packets[lost + 1 :], each)
    with pytest.raises(DecodeError, match="corrupt: frame 15 of 30 cannot be decoded"):
        verify(path)


@pytest.mark.parametrize("name", ["v.ts", "v.mkv", "v.mp4"])
@pytest.mark.parametrize(
    ("pixels", "settings"),
    [("yuv420p", "tff=1:slices=3"), ("yuv444p", "bff=1:cqm=jvt"), ("yuv420p10le", "tff=1:cqm=jvt")],
)
def test_frames_whose_fields_are_interleaved_stay_one_a_packet(tmp_path, name, pixels, settings):
    options = {"bf": "2", "g": "12", "x264-params": f"{settings}:b-adapt=0"}
    path = encode(tmp_path / name, range(40), options=options, pixels=pixels)
    assert verify(path).num_frames == 40 and not packet_index(path).ordinal
    assert read_numbers(read_frames(path, [0, 1, 17, 39])) == [0, 1, 17, 39]
