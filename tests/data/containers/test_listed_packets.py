"""The container's own index: believed where it counts what the tables count, and only with a first packet to match."""

from pathlib import Path

import av
import numpy as np
import pytest
from numbered_video import numbered_frames, read_numbers

from stretchysnake.data.containers.listed_packets import listed_packets
from stretchysnake.data.containers.mp4_tables import sample_times
from stretchysnake.data.decoding import file_index
from stretchysnake.data.decoding.video import probe, read_frames
from stretchysnake.data.decoding.video_track import opened


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """60 numbered frames at 30 a second, with B-frames."""
    path = str(tmp_path_factory.mktemp("v") / "v.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "2", "g": "20"})
        stream.width = stream.height = 64
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        for pixels in numbered_frames(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def listed(path):
    with opened(path) as (container, stream):
        return listed_packets(path, container.format.name, stream)


def changed(video, tmp_path, kind, place, values):
    """A copy with other bytes at `place` behind the first box name `kind`."""
    content = bytearray(Path(video).read_bytes())
    at = content.index(kind) + 4 + place
    content[at : at + len(values)] = values
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    return str(path)


def test_every_frame_is_listed_at_the_second_it_is_shown(video):
    packets = listed(video)
    with opened(video) as (_, stream):
        base = stream.time_base
    shown = sorted(float(packet.pts * base) for packet in packets)
    assert shown == pytest.approx([t / 30 for t in range(60)])
    assert [packet.pts for packet in packets] != sorted(packet.pts for packet in packets)
    assert packets[0].is_keyframe and not any(packet.is_discard for packet in packets)


def test_the_tables_say_how_much_later_than_decoded_a_sample_is_shown(video):
    delays, durations = sample_times(video, 1)
    assert len(delays) == len(durations) == 60 and len(set(durations.tolist())) == 1
    steps = (np.arange(60) * durations[0] + delays) // durations[0]
    assert sorted(steps.tolist()) == list(range(steps.min(), steps.min() + 60))


@pytest.mark.parametrize(
    ("kind", "place", "values"),
    [
        (b"stts", 4, b"\0\0\0\0"),  # no durations
        (b"stts", 8, b"\0\0\0\7"),  # of 7 samples
        (b"ctts", 8, b"\0\0\0\7"),  # the first run of delays is another
        (b"stts", 12, b"\0\0\0\0"),  # frames that last no time
    ],
    ids=["no durations", "few durations", "other delays", "no time"],
)
def test_tables_that_disagree_are_not_believed(video, tmp_path, kind, place, values):
    assert listed(changed(video, tmp_path, kind, place, values)) is None


def test_a_file_whose_samples_end_behind_its_end_is_not_believed(video, tmp_path):
    content = Path(video).read_bytes()
    assert content.index(b"moov") > content.index(b"mdat")
    moved = content.index(b"stco") + 12  # the first chunk begins far behind the end
    path = tmp_path / "v.mp4"
    path.write_bytes(content[:moved] + b"\x7f\0\0\0" + content[moved + 4 :])
    assert listed(str(path)) is None


def test_delays_that_the_first_packet_contradicts_are_not_believed(video, monkeypatch):
    delays, durations = sample_times(video, 1)
    lie = (delays + durations[0], durations)
    monkeypatch.setattr("stretchysnake.data.containers.listed_packets.sample_times", lambda *_: lie)
    assert read_numbers(read_frames(video, [0, 31, 59])) == [0, 31, 59]
    assert probe(video).num_frames == 60


def test_a_clip_reads_its_file_once(video, monkeypatch):
    demuxed = []
    packets_of = file_index.packets_of

    def counted(*arguments):
        for packet in packets_of(*arguments):
            demuxed.append(packet)
            yield packet

    monkeypatch.setattr(file_index, "packets_of", counted)
    assert read_numbers(read_frames(video, [5, 40])) == [5, 40]
    assert len(demuxed) == 1
