"""Frames returned against frames painted with their number, over every kind of container people have."""

from fractions import Fraction

import numpy as np
import pytest
from numbered_video import numbered_frames, read_numbers, turn_header

from stretchysnake.data.video import probe, read_frames, read_frames_at, verify

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
