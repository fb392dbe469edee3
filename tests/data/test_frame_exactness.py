"""Frames returned against frames painted with their number, over every kind of container people have."""

import random
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from numbered_video import numbered_frames, read_numbers, turn_header
from odd_videos import ODD, PLAIN, REORDERED, edit, encode
from odd_videos import painted as painted_pictures

from stretchysnake.data.decoding import file_index as file_index_module
from stretchysnake.data.decoding.file_index import decoded_in_order, file_index
from stretchysnake.data.decoding.video import (
    packet_index,
    probe,
    read_frames,
    read_frames_at,
    stream_frames,
    verify,
)
from stretchysnake.data.decoding.video_track import opened

av = pytest.importorskip("av")


def steady(t):
    return 1000 * t // 30


def varying(t):
    """Milliseconds at which frame t is shown: 10 to 30 frames a second, as phones record."""
    return sum(33 + 67 * (i % 5 == 0) + 17 * (i % 3 == 0) for i in range(t))


def write(path, *, codec, total=60, height=64, width=64, pixel_format="yuv420p", stamps=steady,
          options=None, container_options=None, tag=None):  # fmt: skip
    """Encode numbered frames with chosen time stamps (milliseconds), size, pixel format and options."""
    counted = codec in ("gif", "mpeg4", "mpeg2video")  # these know frame rates only
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=30, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        if tag:
            stream.codec_context.codec_tag = tag
        if not counted:
            stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.thread_count = 1
        for t, pixels in enumerate(numbered_frames(total, height=height, width=width)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = t if counted else stamps(t)
            if not counted:
                frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


X264 = {"codec": "libx264"}
VP9 = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "g": "20"}}
ALTREF = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}
GIF = {"codec": "gif", "pixel_format": "rgb8"}
HEVC = {"x265-params": "log-level=none:pools=1:frame-threads=1", "preset": "ultrafast"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
BFRAMES = {"bf": "2", "g": "12"}
KINDS = {
    "cfr-mp4": ("v.mp4", X264),
    "vfr-mp4": ("v.mp4", {**X264, "stamps": varying, "options": {"bf": "0"}}),
    "vfr-bframes-mp4": ("v.mp4", {**X264, "stamps": varying, "options": {"bf": "3", "g": "20"}}),
    "vfr-mkv": ("v.mkv", {**X264, "stamps": varying, "options": {"bf": "2", "g": "15"}}),
    "open-gop": ("v.mp4", {**X264, "options": {**BFRAMES, "x264-params": "open-gop=1"}}),
    "odd-size-yuv444": ("v.mp4", {**X264, "pixel_format": "yuv444p", "height": 45, "width": 67}),
    "odd-size-yuv420": ("v.mkv", {**VP9, "height": 45, "width": 67}),
    "10-bit": ("v.mp4", {**X264, "pixel_format": "yuv420p10le"}),
    "10-bit-hevc": ("v.mp4", {"codec": "libx265", "pixel_format": "yuv420p10le", "options": HEVC}),
    "yuv444": ("v.mp4", {**X264, "pixel_format": "yuv444p"}),
    "mpeg4-avi": ("v.avi", {"codec": "mpeg4", "options": {"b": "2M"}}),
    "mpeg4-bframes-avi": ("v.avi", {"codec": "mpeg4", "options": {"b": "2M", "bf": "2"}}),
    "xvid-avi": ("v.avi", {"codec": "mpeg4", "options": {"b": "2M", "bf": "1"}, "tag": "XVID"}),
    "vp9-webm": ("v.webm", VP9),
    "vp9-altref-webm": ("v.webm", {"codec": "libvpx-vp9", "options": ALTREF}),
    "vp8-webm": ("v.webm", {"codec": "libvpx", "options": {"deadline": "realtime"}}),
    "mkv": ("v.mkv", X264),
    "gif": ("v.gif", GIF),
    "single-mp4": ("v.mp4", {**X264, "total": 1}),
    "single-gif": ("v.gif", {**GIF, "total": 1}),
    "single-mkv": ("v.mkv", {**X264, "total": 1}),
    "no-count-fragmented-mp4": ("v.mp4", {**X264, "container_options": FRAGMENTED}),
    "no-count-mpegts": ("v.ts", {**X264, "options": BFRAMES}),
    "no-count-raw-h264": ("v.h264", {**X264, "options": BFRAMES}),
    "no-count-mpeg-ps": ("v.mpg", {"codec": "mpeg2video", "options": {"b": "4M", "bf": "2"}}),
    "no-duration-live-webm": ("v.webm", {**VP9, "container_options": {"live": "1"}}),
    "flv": ("v.flv", X264),
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def painted(request, tmp_path_factory):
    name, settings = request.param
    path = tmp_path_factory.mktemp("v") / name
    write(path, **settings)
    return str(path), settings


def test_every_frame_is_the_one_painted_with_its_number(painted):
    path, settings = painted
    total = settings.get("total", 60)
    assert probe(path).num_frames == total
    assert read_numbers(read_frames(path, range(total))) == list(range(total))


def test_frames_are_exact_in_any_order_with_repeats(painted):
    path, settings = painted
    total = settings.get("total", 60)
    for asked in ([total - 1], [i * 7919 % total for i in (5, 3, 3, 9, 0)], [total // 2, 0]):
        assert read_numbers(read_frames(path, asked)) == asked


def test_frames_are_found_by_the_second_they_are_shown(painted):
    path, settings = painted
    if path.endswith(".h264"):
        pytest.skip("a raw stream holds no times")
    total, stamps = settings.get("total", 60), settings.get("stamps", steady)
    shown = [stamps(t) / 1000 for t in range(total)]
    middle = [t for t in (0, 1, 13, 29, total - 2) if 0 <= t < total - 1]
    between = [(shown[t] + shown[t + 1]) / 2 for t in middle]
    assert read_numbers(read_frames_at(path, [*between, 0.0])) == [*middle, 0]


def test_verify_agrees_with_probe(painted):
    path, _ = painted
    assert verify(path) == probe(path)


@pytest.fixture(scope="module", params=ODD.values(), ids=ODD)
def odd(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("odd"))


def test_odd_files_show_the_frames_painted_and_say_what_is_odd(odd):
    path, shown, note = odd
    info = verify(path)
    frames = read_frames(path, range(info.num_frames))
    numbers = read_numbers(frames)
    if shown is None:  # begins where it was received: a key frame and all after it
        assert 30 <= len(numbers) < 60
        shown = range(60 - len(numbers), 60)
    assert numbers == list(shown)
    assert probe(path) == info
    assert note in info.note and bool(note) == bool(info.note)
    if frames.shape[1:3] == (48, 96):
        error = np.abs(frames.astype(int) - painted_pictures(shown)).mean((1, 2, 3))
        assert error.max() < (25 if path.suffix == ".gif" else 5)  # a GIF has eight reds


def test_odd_files_read_sparsely_are_those_read_whole(odd):
    path, _, _ = odd
    total, size = probe(path).num_frames, (48, 96)
    whole, draw = read_frames(path, range(total), size=size), random.Random(0)
    for asked in ([0], [total - 1], *(draw.sample(range(total), n) for n in (1, 1, 2, 4))):
        assert np.array_equal(read_frames(path, asked, size=size), whole[asked])
        streamed = list(stream_frames(path, sorted(asked), size=size))
        assert np.array_equal(np.stack(streamed), whole[sorted(asked)])
    assert np.array_equal(
        np.stack(list(stream_frames(path, range(1, total, 3), size=size))), whole[1::3]
    )


def test_odd_files_give_times_in_ascending_order_that_find_each_frame(odd):
    path, _, _ = odd
    info = probe(path)
    times = np.linspace(0, info.duration_seconds, 40, endpoint=False)
    seen = read_frames_at(path, times, size=(48, 96))
    whole = read_frames(path, range(info.num_frames), size=(48, 96))
    places = [int(np.abs(whole.astype(int) - frame).sum((1, 2, 3)).argmin()) for frame in seen]
    assert np.array_equal(whole[places], seen)
    half = info.duration_seconds / 2
    window = read_frames(path, range, start_seconds=half, size=(48, 96))
    assert np.array_equal(window, whole[len(whole) - len(window) :])
    before = read_frames(path, range, end_seconds=half, size=(48, 96))
    assert np.array_equal(before, whole[: len(before)])
    assert 0 <= len(before) + len(window) - len(whole) <= 1  # the frame on screen at half time


def both_indexes(path, monkeypatch):
    """The index with the container's own where it serves, and whether it does; and the one of all packets read."""
    listed, answers = file_index_module.listed_packets, []
    monkeypatch.setattr(
        file_index_module, "listed_packets", lambda *a: answers.append(listed(*a)) or answers[-1]
    )
    with opened(str(path)) as (container, stream):
        found = file_index(str(path), container, stream)
    monkeypatch.setattr(file_index_module, "listed_packets", lambda *arguments: None)
    with opened(str(path)) as (container, stream):
        return found, any(answers), file_index(str(path), container, stream)


def test_the_containers_own_index_says_what_its_packets_say(painted, monkeypatch):
    path, settings = painted
    found, serves, of_packets = both_indexes(path, monkeypatch)
    assert found == of_packets
    assert serves == (path.endswith(".mp4") and "container_options" not in settings)


def test_the_own_index_of_odd_files_serves_only_where_it_says_what_packets_say(odd, monkeypatch):
    found, _, of_packets = both_indexes(odd[0], monkeypatch)
    assert found == of_packets


def frames_of_ffmpeg(path, height, width):
    """All frames that the program shows, in its order; skips where it is not installed or too old."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not installed")
    command = [
        "ffmpeg",
        "-v",
        "quiet",
        "-i",
        str(path),
        "-map",
        "0:v:0",
        "-fps_mode",
        "passthrough",
    ]
    found = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True
    )
    if not found.stdout:
        pytest.skip("this ffmpeg shows nothing: it is too old, or lacks the decoder")
    return np.frombuffer(found.stdout, np.uint8).reshape(-1, height, width, 3)


def test_frames_are_those_ffmpeg_shows_in_its_order(odd):
    path, _, _ = odd
    info = probe(path)
    theirs = frames_of_ffmpeg(path, info.height, info.width)
    ours = read_frames(path, range(info.num_frames))
    if "inside a packet" in info.note:  # the last frame is not whole, and is not read
        theirs = theirs[: len(ours)]
    assert len(ours) == len(theirs)
    assert np.abs(ours.astype(int) - theirs).mean((1, 2, 3)).max() < 4


def test_common_files_show_what_ffmpeg_shows(painted):
    path, _ = painted
    info = probe(path)
    theirs = frames_of_ffmpeg(path, info.height, info.width)
    ours = read_frames(path, range(info.num_frames))
    assert len(ours) == len(theirs)
    assert np.abs(ours.astype(int) - theirs).mean((1, 2, 3)).max() < 8


def test_at_least_45_kinds_are_read_exactly():
    assert len(KINDS) + len(ODD) >= 45


def second_of(kind, tmp_path):
    return probe(ODD[kind](tmp_path)[0]).duration_seconds


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        ("joined-same-clock-ts", 70 / 30),
        ("joined-overlap-ts", 70 / 30),
        ("joined-ahead-100-ts", 70 / 30),
        ("joined-back-10-ts", 70 / 30),
        ("joined-back-100-ts", 70 / 30),
        ("joined-mpg", 70 / 30),
        ("clock-wraps-ts", 2),
        ("dropped-mpeg4-avi", 46 / 30),
        ("last-held-mkv", 59 / 30 + 4),
        ("sound-longer-flv", 2),
        ("edit-tail-cut", 1),
        ("h264-pts-is-dts-mkv", 2),
    ],
)
def test_a_video_lasts_as_long_as_its_pictures(tmp_path, kind, seconds):
    assert second_of(kind, tmp_path) == pytest.approx(seconds, abs=0.01)


def test_frames_whose_times_turn_out_to_go_back_are_counted(tmp_path):
    path, shown, _ = ODD["h264-no-ctts-mp4"](tmp_path)
    with opened(str(path)) as (container, stream):
        index = file_index(str(path), container, stream)
    assert index.ordinal  # an index that had not noticed:
    believing = replace(index, ordinal=False)
    found = decoded_in_order(
        str(path), believing, range(60), lambda f, _: f.to_ndarray(format="rgb24")
    )
    places, frames = zip(*found, strict=True)
    assert list(places) == list(shown) == read_numbers(np.stack(frames))


def test_a_gap_in_an_mp4_is_time_that_passed(tmp_path):
    write(
        tmp_path / "v.mp4",
        codec="libx264",
        options={"bf": "0"},
        stamps=lambda t: steady(t) + 60_000 * (t > 29),
    )
    info = probe(tmp_path / "v.mp4")
    assert info.duration_seconds == pytest.approx(62, abs=0.05) and not info.note
    assert read_numbers(read_frames_at(tmp_path / "v.mp4", [30.0, 61.5])) == [29, 45]


@pytest.mark.parametrize("options", [PLAIN, REORDERED], ids=["plain", "bframes"])
@pytest.mark.parametrize("cut", [False, True], ids=["as-copied", "cut"])
@pytest.mark.parametrize("skipped", [1, 4, 5, 6])
def test_an_edited_mp4_that_begins_between_key_frames_shows_what_is_decoded(
    tmp_path, options, cut, skipped
):
    whole, path = encode(tmp_path / "whole.mp4", range(60), options=options), tmp_path / "v.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        target = out.add_stream_from_template(source.streams.video[0])
        packets = list(source.demux(video=0))[skipped:-1]
        early = min(packet.pts for packet in packets) if cut else 0
        for packet in packets:
            packet.stream, packet.pts, packet.dts = target, packet.pts - early, packet.dts - early
            out.mux(packet)
    if cut:
        edit(path, (2, 40))
    with av.open(str(path)) as container:
        shown = list(container.decode(video=0))
    numbers = read_numbers(np.stack([f.to_ndarray(format="rgb24") for f in shown]))
    index = packet_index(path)
    assert verify(path).num_frames == len(index.stamps) == len(shown)
    times = [frame.time - shown[0].time for frame in shown]
    assert [index.seconds(i) for i in range(len(shown))] == pytest.approx(times, abs=1e-6)
    assert read_numbers(read_frames(path, range)) == numbers
    for i in (0, 1, len(shown) - 1):
        assert read_numbers(read_frames(path, [i])) == [numbers[i]]


def test_dropped_frames_are_shown_late(tmp_path):
    path, _, _ = ODD["dropped-mpeg4-avi"](tmp_path)
    seconds = [9.5 / 30, 10.5 / 30, 11.5 / 30, 22.5 / 30]
    assert read_numbers(read_frames_at(path, seconds)) == [9, 9, 10, 19]


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.webm", "v.flv", "v.ts"])
def test_the_rate_of_a_video_is_that_of_its_frames_whatever_its_header_guesses(tmp_path, name):
    settings = VP9 if name.endswith("webm") else X264
    write(tmp_path / name, **{**settings, "stamps": varying, "options": {"bf": "0"}})
    assert probe(tmp_path / name).fps == pytest.approx(59 / (varying(59) / 1000), rel=0.01)
    asked = []
    read_frames(tmp_path / name, lambda *given: asked.append(given) or [0], with_fps=True)
    assert asked == [(60, probe(tmp_path / name).fps)]


def test_a_rate_that_the_frames_have_is_the_headers_to_the_last_bit(tmp_path):
    shown = {"v.mp4": range(20), "v.mkv": range(20), "v.ts": range(20), "single.mp4": [0]}
    for name, numbers in shown.items():
        encode(tmp_path / name, numbers, rate=Fraction(30000, 1001))
        assert probe(tmp_path / name).fps == 30000 / 1001


@pytest.mark.parametrize("second", [-0.1, 2.1, 1e9, float("nan")], ids=str)
def test_a_second_outside_the_video_is_named(tmp_path, second):
    write(tmp_path / "v.mp4", **X264)
    with pytest.raises(ValueError, match=r"seconds \(.*\) is outside .*v.mp4, which lasts 1.999 s"):
        read_frames_at(tmp_path / "v.mp4", [0.5, second])


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_rotation_flag_turns_every_frame(tmp_path, turn):
    write(tmp_path / "v.mp4", **X264)
    upright = read_frames(tmp_path / "v.mp4", range(60))
    turn_header(tmp_path / "v.mp4", turn)
    turned = read_frames(tmp_path / "v.mp4", range(60))
    assert np.array_equal(np.rot90(upright, -turn // 90, (1, 2)), turned)
