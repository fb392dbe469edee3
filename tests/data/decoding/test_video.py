import numpy as np
import pytest
from numbered_video import numbered_frames, read_numbers, turn_header, write_numbered

from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import probe, read_frames, write_image, write_video

CONTAINERS = {
    "mp4-gop250-bframes": ("v.mp4", "libx264", {"g": "250", "bf": "3"}),
    "mp4-gop12-bframes": ("v.mp4", "libx264", {"g": "12", "bf": "3"}),
    "mp4-intra": ("v.mp4", "libx264", {"g": "1"}),
    "mkv": ("v.mkv", "libx264", None),
    "mov": ("v.mov", "libx264", {"g": "12"}),
    "webm-vp9": ("v.webm", "libvpx-vp9", {"deadline": "realtime", "g": "20"}),
    "avi-mpeg4": ("v.avi", "mpeg4", {"b": "2M"}),
    "avi-mpeg4-bframes": ("v.avi", "mpeg4", {"bf": "2", "b": "2M"}),
}


@pytest.fixture(scope="module", params=CONTAINERS.values(), ids=CONTAINERS)
def numbered(request, tmp_path_factory):
    name, codec, options = request.param
    return write_numbered(tmp_path_factory.mktemp("v") / name, 90, codec=codec, options=options)


def test_read_frames_returns_every_frame_in_presentation_order(numbered):
    assert read_numbers(read_frames(numbered, range(90))) == list(range(90))


@pytest.mark.parametrize("indices", [[0], [89], [45, 3, 3, 88, 0], [13, 12, 11]], ids=str)
def test_read_frames_is_exact_in_any_order_with_repeats(numbered, indices):
    assert read_numbers(read_frames(numbered, indices)) == indices


def test_probe_counts_frames(numbered):
    info = probe(numbered)
    assert (info.num_frames, info.width, info.height) == (90, 64, 64)
    assert info.fps == pytest.approx(30) and info.duration_seconds == pytest.approx(3, abs=0.01)


def test_read_frames_asks_a_function_with_the_frame_count(numbered):
    frames = read_frames(numbered, lambda total: [total - 1, total // 2])
    assert read_numbers(frames) == [89, 45]


def test_read_frames_counts_from_start_seconds(numbered):
    frames = read_frames(numbered, lambda total: range(total), start_seconds=1.0, end_seconds=1.5)
    assert read_numbers(frames) == list(range(30, 45))


def test_read_frames_resizes_to_height_and_width(numbered):
    frames = read_frames(numbered, [7, 8], size=(24, 48))
    assert frames.shape == (2, 24, 48, 3) and read_numbers(frames) == [7, 8]


def test_read_frames_refuses_an_index_outside(numbered):
    with pytest.raises(ValueError, match=r"index 90 is outside .* frames 0 to 89"):
        read_frames(numbered, [90])


def test_write_video_gives_the_same_bytes_twice(tmp_path):
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for path in paths:
        write_numbered(path, 12)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_write_video_refuses_odd_sizes(tmp_path):
    with pytest.raises(ValueError, match="must be even"):
        write_video(tmp_path / "v.mp4", numbered_frames(2)[:, :63])


def test_names_like_protocols_and_options_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_numbered("plain.mp4", 4)
    for name in ("-dash.mp4", "a:b.mp4", "with space é.mp4", "50%.mp4"):
        (tmp_path / name).write_bytes((tmp_path / "plain.mp4").read_bytes())
        assert read_numbers(read_frames(name, [3])) == [3]


def _cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def _noisy(num_frames=40):
    return np.random.default_rng(0).integers(0, 256, (num_frames, 64, 64, 3), dtype=np.uint8)


def _damage_index_first(path):
    import av

    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 64
        for pixels in _noisy():
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    _cut(path, 0.5)


def _damage_no_index(path):
    write_video(path, _noisy())
    _cut(path, 0.9)


def _damage_matroska(path):
    write_video(path, _noisy())
    _cut(path, 0.5)


def _damage_bits(path):
    write_video(path, _noisy(), options={"bf": "0", "g": "250"})
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20000] = bytes(20000)
    path.write_bytes(content)


def _audio_only(path):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


DAMAGED = {
    "missing": ("v.mp4", lambda path: None, "missing", "no such file"),
    "zero-bytes": ("v.mp4", lambda path: path.write_bytes(b""), "empty", "0 bytes"),
    "text": (
        "v.mp4",
        lambda path: path.write_text("hello " * 99),
        "unreadable",
        r"not a video file \(Invalid data found when processing input\)\.",
    ),
    "text-named-txt": ("v.txt", lambda path: path.write_text("hi " * 99), "unreadable", "video"),
    "zeros": ("v.avi", lambda path: path.write_bytes(bytes(5000)), "unreadable", "not a video"),
    "folder": ("v.mp4", lambda path: path.mkdir(), "unreadable", "folder"),
    "png": ("v.mp4", lambda path: write_image(path, _noisy(1)[0]), "no_video", "PNG image"),
    "jpeg": (
        "v.jpg",
        lambda path: path.write_bytes(b"\xff\xd8\xff" + bytes(99)),
        "no_video",
        "JPEG",
    ),
    "audio": ("v.mp4", _audio_only, "no_video", "no video stream"),
    "cut-index-first": ("v.mp4", _damage_index_first, "truncated", "promises 40 frames"),
    "cut-index-last": ("v.mp4", _damage_no_index, "truncated", "its end is missing"),
    "cut-matroska": ("v.mkv", _damage_matroska, "truncated", "its end is missing"),
    "bit-rot": ("v.mp4", _damage_bits, "corrupt", "fetch the file again"),
}


@pytest.mark.parametrize(("name", "damage", "kind", "text"), DAMAGED.values(), ids=DAMAGED)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_files_raise_their_kind(tmp_path, name, damage, kind, text):
    path = tmp_path / name
    damage(path)
    with pytest.raises(DecodeError, match=text) as error:
        read_frames(path, range(40))
    assert error.value.kind == kind
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_flag_is_honoured(tmp_path, turn):
    import av

    plain, turned = tmp_path / "plain.mp4", tmp_path / "turned.mp4"
    frames = numbered_frames(3, height=32)
    write_video(plain, frames)
    turned.write_bytes(plain.read_bytes())
    turn_header(turned, turn)
    with av.open(str(turned)) as container:
        assert next(container.decode(video=0)).rotation % 360 in (turn, 360 - turn)
    upright, shown = read_frames(plain, [2])[0], read_frames(turned, [2])[0]
    assert np.array_equal(shown, np.rot90(upright, -turn // 90))  # the matrix turns clockwise
    info = probe(turned)
    assert (info.height, info.width) == shown.shape[:2]
