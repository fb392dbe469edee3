"""Upright, with square pixels, of the right track, of one size: what every reader shows of a picture."""

import gc
import math
from fractions import Fraction

import av
import numpy as np
import pytest
from numbered_video import numbered_frames, read_numbers
from painted_video import (
    circle,
    colours_of,
    encoded,
    ffmpeg_frames,
    quarters,
    width_and_height_of,
    write_changing,
    write_painted,
)

from stretchysnake.data.clips.transforms import short_side_size
from stretchysnake.data.decoding.picture import Orientation, orientation_by, upright
from stretchysnake.data.decoding.video import (
    DecodeError,
    packet_index,
    probe,
    read_frames,
    read_frames_at,
    stream_frames,
    verify,
)

# (a, b, c, d) of the display matrix: stored (x, y) is shown at (a x + c y, b x + d y); what RG/BW then looks like
ORIENTATIONS = {
    "upright": ((1, 0, 0, 1), "RGBW"),
    "quarter": ((0, 1, -1, 0), "BRWG"),
    "half": ((-1, 0, 0, -1), "WBGR"),
    "three-quarters": ((0, -1, 1, 0), "GWRB"),
    "left-right": ((-1, 0, 0, 1), "GRWB"),
    "upside-down": ((1, 0, 0, -1), "BWRG"),
    "transposed": ((0, 1, 1, 0), "RBGW"),
    "anti-transposed": ((0, -1, -1, 0), "WGBR"),
}


def close(ours, theirs, *, mean=4.0):
    return abs(ours.astype(int) - theirs.astype(int)).mean() < mean


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize(("matrix", "colours"), ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_every_orientation_is_shown_as_its_matrix_says(tmp_path, suffix, matrix, colours):
    path = write_painted(tmp_path / f"v{suffix}", quarters(), matrix=matrix)
    shown = read_frames(path, [2])[0]
    assert colours_of(shown) == colours
    assert shown.shape[:2] == ((64, 96) if matrix[0] else (96, 64))
    for info in (probe(path), verify(path)):
        assert (info.height, info.width) == shown.shape[:2]
    squashed = read_frames(path, [2], size=(32, 32))[0]
    assert squashed.shape == (32, 32, 3) and colours_of(squashed) == colours
    assert np.array_equal(next(stream_frames(path, [2], size=(32, 32))), squashed)
    if (theirs := ffmpeg_frames(path)) is not None:
        assert shown.shape == theirs[2].shape and close(shown, theirs[2])


@pytest.mark.parametrize("container", ["mp4", "ts", "mkv"])
def test_an_orientation_told_by_the_codec_is_honoured(tmp_path, container):
    """H.264's display orientation message, by which cameras say it in streams that hold no matrix."""
    plain, path = write_painted(tmp_path / "plain.mp4", quarters()), tmp_path / f"v.{container}"
    bits = (
        "010" + 16 * "0" + "01001"
    )  # not cancelled, mirrored, not flipped, no turn, for all that follow
    told = bytes([6, 47, 3, *int(bits, 2).to_bytes(3, "big"), 0x80])
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                turned = av.Packet(len(told).to_bytes(4, "big") + told + bytes(packet))
                turned.pts, turned.dts, turned.time_base = packet.pts, packet.dts, packet.time_base
                turned.is_keyframe, turned.stream = packet.is_keyframe, copy
                out.mux(turned)
    shown = read_frames(path, [1])[0]
    assert colours_of(shown) == "GRWB"
    if (theirs := ffmpeg_frames(path)) is not None:
        assert close(shown, theirs[1])


def test_what_is_no_quarter_turn_is_turned_inside_the_frame(tmp_path):
    angle = math.radians(30)
    matrix = (math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle))
    path = write_painted(tmp_path / "v.mp4", quarters(height=96, width=96), matrix=matrix)
    shown = read_frames(path, [0])[0]
    assert shown.shape == (96, 96, 3) and not shown[0, 0].any()  # a corner is black
    # a point 30 px right of the middle, on the border of green and white, goes 30 degrees down: now green lies above
    assert shown[48 + 12, 48 + 28].tolist()[1] > 200 and shown[48 + 12, 48 + 28].tolist()[0] < 60
    if (theirs := ffmpeg_frames(path)) is not None:
        assert close(shown, theirs[0], mean=8)  # they turn chroma at half its size


def test_a_matrix_of_zeros_is_none():
    assert orientation_by([0, 0, 0, 0, 0, 0, 0, 0, 1 << 30]) == Orientation()


def test_upright_moves_every_pixel_where_the_matrix_says():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    for (a, b, c, d), _ in ORIENTATIONS.values():
        shown = upright(pixels, orientation_by([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1]))
        places = {(y, x): (b * x + d * y, a * x + c * y) for y in range(2) for x in range(3)}
        top, left = (min(place[i] for place in places.values()) for i in (0, 1))
        for stored, (y, x) in places.items():
            assert shown[y - top, x - left].tolist() == pixels[stored].tolist()


def test_pixels_that_are_not_square_are_shown_as_wide_as_they_are(tmp_path):
    aspect = Fraction(64, 45)
    path = write_painted(
        tmp_path / "v.mp4", circle(height=120, width=160, aspect=aspect), aspect=aspect
    )
    info = probe(path)
    assert (info.width, info.height) == (228, 120)  # 160 * 64 / 45 = 227.6
    whole = read_frames(path, [1])[0]
    assert whole.shape == (120, 228, 3)
    width, height = width_and_height_of(whole)
    assert abs(height - 80) <= 2 and abs(width - height) <= 2  # round, 2 * 120 / 3 across
    short = read_frames(path, [1], size=lambda h, w: short_side_size(h, w, size=60))[0]
    assert short.shape == (60, 114, 3)
    width, height = width_and_height_of(short)
    assert abs(height - 40) <= 2 and abs(width - height) <= 2
    # a squash to a square sees the same stored pixels, whatever their shape
    plain = write_painted(
        tmp_path / "plain.mp4", circle(height=120, width=160, aspect=aspect), aspect=1
    )
    squashed = [read_frames(p, [1], size=(48, 48)) for p in (path, plain)]
    assert np.array_equal(*squashed)


def test_a_turned_picture_with_wide_pixels_is_as_high_as_it_was_wide(tmp_path):
    path = write_painted(
        tmp_path / "v.mp4", quarters(), aspect=Fraction(3, 2), matrix=ORIENTATIONS["quarter"][0]
    )
    assert read_frames(path, [0])[0].shape[:2] == (144, 64)
    assert (probe(path).height, probe(path).width) == (144, 64)


@pytest.mark.parametrize("aspect", [None, Fraction(1), Fraction(640, 639), Fraction(40, 1)])
def test_an_aspect_that_is_unknown_rounding_or_absurd_leaves_pixels_alone(tmp_path, aspect):
    path = write_painted(tmp_path / "v.mp4", quarters(), aspect=aspect)
    assert read_frames(path, [0])[0].shape[:2] == (64, 96)


TRACKS = {
    "the default one": ([64, 96], {1}, 1),
    "the default one though smaller": ([96, 64], {1}, 1),
    "the largest without a default": ([64, 128, 96], set(), 1),
    "the largest of several defaults": ([64, 96, 128], {0, 1}, 1),
    "the first of equals": ([64, 64], set(), 0),
}


@pytest.mark.parametrize(("widths", "default", "right"), TRACKS.values(), ids=TRACKS)
def test_the_track_that_is_shown(tmp_path, widths, default, right):
    looks = ["RGBW", "WBGR", "GRWB"]
    tracks = [quarters(width=w, colours=c) for w, c in zip(widths, looks, strict=False)]
    tracks[right] = np.concatenate([tracks[right]] * 2)  # six frames, the others have three
    path = write_painted(tmp_path / "v.mkv", tracks, default=default)
    frames = read_frames(path, range(6))
    assert [colours_of(frame) for frame in frames] == [looks[right]] * 6
    for info in (probe(path), verify(path)):
        assert (info.num_frames, info.width) == (6, widths[right])
        assert info.note == (
            f"of its {len(widths)} video tracks number {right + 1} is read ({widths[right]}x64)"
        )
    if (theirs := ffmpeg_frames(path)) is not None:
        assert close(frames[5], theirs[5])


def test_the_cover_of_a_piece_is_no_track_and_no_video(tmp_path):
    for name, codec in (("clip.mp4", "libx264"), ("song.mp4", "aac")):
        with av.open(str(tmp_path / name), "w") as out:
            piece = out.add_stream(codec, rate=10 if codec == "libx264" else 44100)
            cover = out.add_stream("mjpeg", rate=10, width=128, height=128, pix_fmt="yuvj420p")
            cover.disposition = 0x400  # an attached picture
            if codec == "libx264":
                piece.width = piece.height = 64
                piece.pix_fmt = "yuv420p"
                frames = [av.VideoFrame.from_ndarray(picture) for picture in quarters(width=64)]
            else:
                frames = [av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp")]
                frames[0].sample_rate = 44100
            for stream, given in (
                (piece, frames),
                (cover, [av.VideoFrame.from_ndarray(np.full((128, 128, 3), 200, np.uint8))]),
            ):
                for frame in (*given, None):
                    out.mux(stream.encode(frame))
    info = probe(tmp_path / "clip.mp4")
    assert (info.width, info.num_frames, info.note) == (64, 3, "")
    with pytest.raises(DecodeError, match="has no video stream"):
        probe(tmp_path / "song.mp4")


def test_a_picture_that_changes_its_size_is_one_video_to_every_reader(tmp_path):
    small, large = numbered_frames(6), numbered_frames(12, height=96, width=128)[6:]
    path = write_changing(tmp_path / "v.webm", small, large)
    whole = read_frames(path, range(12))
    assert whole.shape == (12, 64, 64, 3) and read_numbers(whole) == list(range(12))
    for info in (verify(path), probe(path)):
        assert (info.num_frames, info.width, info.height) == (12, 64, 64)
    assert verify(path).note == (
        "its picture changes size (64x64, 128x96); frames get the first one's"
    )
    for wanted in ([9], [8, 3], [11, 10]):  # sparse reads cannot know it by themselves
        assert np.array_equal(read_frames(path, wanted), whole[wanted])
    assert np.array_equal(read_frames_at(path, [0.95]), whole[[9]])
    squashed = read_frames(path, range(12), size=(32, 32))
    assert read_numbers(squashed) == list(range(12))
    assert np.array_equal(np.stack(list(stream_frames(path, range(12), size=(32, 32)))), squashed)


@pytest.mark.parametrize("num_between", ["0", "2"])
@pytest.mark.parametrize("name", ["v.ts", "v.mpg"])
def test_mpeg2_that_changes_its_size_has_the_frames_that_its_decoder_shows(
    tmp_path, name, num_between
):
    if name == "v.mpg" and int(av.__version__.split(".")[0]) < 18:
        pytest.skip("the FFmpeg of PyAV 17 takes the process down when it decodes this file")
    small, large = numbered_frames(20), numbered_frames(60, height=96, width=128)[20:]
    options = {"b": "4M", "bf": num_between}
    parts = (small, large[:20], small, large[20:])
    path = write_changing(tmp_path / name, *parts, codec="mpeg2video", rate=25, options=options)
    with av.open(str(path)) as container:
        shown = list(container.decode(video=0))
    numbers = [read_numbers(f.to_ndarray(format="rgb24")[None])[0] for f in shown]
    times = [frame.time - shown[0].time for frame in shown]
    assert len(shown) < 80  # the one held at a change is dropped
    info, index = verify(path), packet_index(path)
    assert info.num_frames == len(shown)
    assert [index.seconds(i) for i in range(len(shown))] == pytest.approx(times, abs=1e-3)
    assert read_numbers(read_frames(path, range)) == numbers
    for i in (0, 19, 20, 45, len(shown) - 1):
        assert read_numbers(read_frames(path, [i])) == [numbers[i]]
    streamed = stream_frames(path, range(len(shown)), size=(32, 32))
    assert read_numbers(np.stack(list(streamed))) == numbers


def test_encoded_parts_are_what_the_file_holds():
    """The changing file above is two encodings put one after another; each begins with a key frame."""
    _, packets = encoded(quarters(2), codec="libvpx")
    assert packets[0].is_keyframe and len(packets) == 2


def test_frames_are_not_kept_for_the_garbage_collector(tmp_path):
    """PyAV's side data hold their frame and it them: at most one of a file may wait for the collector."""
    path = write_painted(tmp_path / "v.mp4", [quarters(40)])

    def waiting() -> int:
        return sum(type(one).__name__ == "VideoFrame" for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = waiting()
        verify(path)
        read_frames(path, range(40))
        assert waiting() - before <= 3
    finally:
        gc.enable()
