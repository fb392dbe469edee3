"""Interlaced H.264 whose packets hold fields: the frames and times are those of plain decoding, however it is muxed."""

import av
import numpy as np
import pytest
from field_pictures import fields, write_fields
from numbered_video import read_numbers

from stretchysnake.data.decoding.video import (
    packet_index,
    probe,
    read_frames,
    read_frames_at,
    verify,
)


def in_pairs(packets):
    return [a + b for a, b in zip(packets[::2], packets[1::2], strict=True)]


MUXED = {
    "both-in-one-pes-ts": ("v.ts", in_pairs, lambda i: 90000 + 3600 * i),
    "both-in-one-sample-mp4": ("v.mp4", in_pairs, lambda i: 3600 * i),
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
