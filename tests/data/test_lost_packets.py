"""Transport streams that lost packets on the way: their counters say so where every picture that is left decodes."""

import av
import pytest
from numbered_video import read_numbers
from odd_videos import encode

from stretchysnake.data.containers.joined_clocks import beside_losses
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.audit import CheckRun, check
from stretchysnake.data.decoding.video import packet_index, probe, read_frames, verify

LATER = {"bf": "2", "g": "20", "x264-params": "scenecut=0:min-keyint=20"}
STREAMS = {
    "h264": {"options": LATER},
    "h264-no-bframes": {"options": {**LATER, "bf": "0"}},
    "h264-open-gop": {"options": {**LATER, "x264-params": "scenecut=0:open-gop=1:min-keyint=20"}},
    "mpeg2": {"codec": "mpeg2video", "options": {"b": "2M", "bf": "2"}},
}


@pytest.fixture(params=STREAMS.values(), ids=STREAMS)
def stream(request, tmp_path):
    return encode(tmp_path / "v.ts", range(60), **request.param)


def packets_of_pictures(content, stream_id):
    """For each picture, in the file's order, the numbers of the transport packets that hold it."""
    pictures = []
    for number in range(len(content) // 188):
        head = content[188 * number + 1 : 188 * number + 3]
        if (head[0] & 31) << 8 | head[1] == stream_id:
            if head[0] & 64:
                pictures.append([])
            pictures[-1].append(number)
    return pictures


def without_picture(path, number, target):
    content = path.read_bytes()
    with av.open(str(path)) as read:
        lost = set(packets_of_pictures(content, read.streams.video[0].id)[number])
    kept = [n for n in range(len(content) // 188) if n not in lost]
    target.write_bytes(b"".join(content[188 * n : 188 * n + 188] for n in kept))
    return target


@pytest.mark.parametrize("number", [19, 20, 21, 30, 47])
def test_a_picture_lost_inside_is_corrupt(stream, tmp_path, number):
    path = without_picture(stream, number, tmp_path / "lost.ts")
    with pytest.raises(DecodeError, match="missing or damaged") as raised:
        verify(path)
    assert raised.value.kind == "corrupt"
    with pytest.raises(DecodeError, match="missing or damaged"):
        read_frames(path, range(59))
    assert probe(path).num_frames == 59


def test_a_check_says_so(stream, tmp_path):
    path = without_picture(stream, 30, tmp_path / "lost.ts")
    audit = check([stream, path], CheckRun(report=None, num_workers=0))
    assert [verdict.kind for verdict in audit.verdicts] == ["ok", "corrupt"]


def test_frames_before_the_loss_are_read(stream, tmp_path):
    path = without_picture(stream, 50, tmp_path / "lost.ts")
    assert read_numbers(read_frames(path, [0, 3, 17])) == [0, 3, 17]
    assert packet_index(stream).damaged == frozenset()


@pytest.mark.parametrize("every", [1, 2])
def test_segments_joined_again_have_lost_nothing(tmp_path, every):
    """As a player's segments are kept: each written anew, its counters from 0, by a clock that goes on."""
    source = encode(tmp_path / "v.ts", range(60), options={**LATER, "bf": "0"})
    content = b""
    with av.open(str(source)) as read:
        video = read.streams.video[0]
        packets = [packet for packet in read.demux(video) if packet.size]
        starts = [n for n, packet in enumerate(packets) if packet.is_keyframe][::every]
        for start, stop in zip(starts, [*starts[1:], None], strict=True):
            with av.open(str(tmp_path / "part.ts"), "w", options={"mpegts_copyts": "1"}) as out:
                target = out.add_stream_from_template(video)
                for packet in packets[start:stop]:
                    packet.stream = target
                    out.mux(packet)
            content += (tmp_path / "part.ts").read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(content)
    with av.open(str(path)) as read:
        assert any(packet.is_corrupt for packet in read.demux(video=0))
    assert verify(path).note == ""
    assert read_numbers(read_frames(path, range(60))) == list(range(60))


@pytest.mark.parametrize(
    ("flagged", "ends", "wanted"),
    [
        ([], [], set()),
        ([13], [], {13, 14}),
        ([18], [], set()),  # a key frame is the next after the one that was lost, and none was
        ([19], [], {19, 20}),
        ([13], [15], set()),
        ([39], [], {39}),
        ([38], [40], set()),
    ],
)
def test_where_something_was_lost(flagged, ends, wanted):
    stamps, keys = list(range(40)), [place % 20 == 0 for place in range(40)]
    assert beside_losses(flagged, stamps, keys, ends) == wanted
    if flagged == [18]:
        gone = [stamp + (stamp > 19) for stamp in stamps]
        assert beside_losses([18], gone, keys, []) == {18, 19}
    assert beside_losses([3], stamps, [place == 8 for place in stamps], []) == set()
    assert beside_losses([13], [None] * 40, keys, []) == {None}
