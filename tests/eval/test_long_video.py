"""Long videos from file to feature: exact against `embed`, windows with seconds, bad files, and flat memory."""

import hashlib
import json
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from numbered_video import read_numbers, write_standstill

from stretchysnake import cli, embed, long_features
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.frame_windows import frame_windows
from stretchysnake.data.decoding.video import write_video
from stretchysnake.eval import long_video
from stretchysnake.eval.long_reading import LongReading, window_spans


@pytest.fixture(scope="module")
def lecture(tmp_path_factory):
    """A video of 6 s, 10 frames a second."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("long") / "lecture.mp4"
    frames = rng.integers(0, 255, (60, 3, 3, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    write_video(path, frames, fps=10)
    return path


@pytest.fixture(scope="module")
def weights(trained):
    return os.path.join(trained[0].out, "weights.safetensors")


@pytest.mark.parametrize(("num_frames", "window"), [(7, 3), (8, None), (60, 7), (70, 16)])
def test_exact_is_what_embed_gives_in_one_shot(lecture, weights, num_frames, window):
    wanted = embed(lecture, weights=weights, num_frames=num_frames).features[0]
    found = long_features(
        lecture, weights=weights, num_frames=num_frames, exact=True, window=window
    )
    torch.testing.assert_close(found.feature, wanted, rtol=0, atol=1e-5)
    assert found.repeated == (num_frames > 60)
    assert found.scale.num_frames == found.num_frames == num_frames


def test_windows_come_with_seconds_and_are_averaged(lecture, weights):
    found = long_features(lecture, weights=weights, frames_per_second=5, window=8)
    assert found.num_frames == 30
    assert sum(found.seconds, ()) == pytest.approx((0, 1.4, 1.4, 3, 3, 4.4, 4.4, 6))
    assert found.windows.shape == (4, found.feature.shape[0])
    assert torch.equal(found.windows.mean(0), found.feature)
    assert not found.feature.is_inference()


@pytest.mark.parametrize(("frames_per_second", "windows"), [(5, 4), (0.1, 3)])
def test_stretches_keep_the_order_of_windows(lecture, weights, frames_per_second, windows):
    settings = {"weights": weights, "frames_per_second": frames_per_second, "window": 8}
    found = long_features(lecture, stretches=3, **settings)
    assert len(found.windows) == windows
    first, second, third = found.feature.split(found.windows.shape[1])
    assert torch.equal(first, found.windows[: windows - 2].mean(0))
    assert torch.equal(second, found.windows[windows - 2])
    assert torch.equal(third, found.windows[windows - 1])


@pytest.mark.parametrize(
    ("num_frames", "longest", "tubelet", "spans"),
    [
        (1, 8, 1, [(0, 1)]),
        (8, 8, 1, [(0, 8)]),
        (9, 8, 1, [(0, 4), (4, 9)]),
        (20, 8, 1, [(0, 6), (6, 13), (13, 20)]),
        (12, 5, 2, [(0, 4), (4, 8), (8, 12)]),
    ],
)
def test_windows_are_few_and_equal(num_frames, longest, tubelet, spans):
    assert window_spans(num_frames, longest, tubelet) == spans


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, r"num_frames \(None\) or frames_per_second \(None\) must be given"),
        ({"num_frames": 4, "frames_per_second": 2.0}, "and not both"),
        ({"num_frames": 0}, r"num_frames \(0\) must be more than 0"),
        ({"frames_per_second": float("nan")}, r"frames_per_second \(nan\) must be more than 0"),
        ({"frames_per_second": 1e300}, r"frames_per_second \(1e\+300\) must be at most 1,000"),
        ({"num_frames": 10**20}, r"num_frames \(1000+\) must be at most 10,000,000"),
        ({"num_frames": 4, "window": 0}, r"window \(0\) must be more than 0"),
        ({"num_frames": 4, "exact": True, "scratch": "absent"}, "must be an existing folder"),
        ({"num_frames": 4, "stretches": 0}, r"stretches \(0\) must be more than 0"),
        (
            {"num_frames": 4, "stretches": 2, "exact": True},
            r"stretches \(2\) must be 1 in the exact",
        ),
        (
            {"num_frames": 8, "stretches": 20},
            r"stretches \(20\) must be no more than num_frames \(8\) has for a frame each; read more frames",
        ),
        ({"num_frames": 4, "scratch": "."}, "used by the exact form only"),
    ],
)
def test_settings_without_meaning_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        LongReading(**settings)


def test_stretches_are_no_more_than_the_tubelets_of_the_frames_asked_for():
    assert LongReading(num_frames=8, stretches=4).frames_of(1.0, 2) == 8
    assert LongReading(num_frames=1).frames_of(1.0, 2) == 2
    with pytest.raises(ValueError, match=r"stretches \(5\) .* tubelet_size \(2\) frames each"):
        LongReading(num_frames=8, stretches=5).frames_of(1.0, 2)
    assert LongReading(frames_per_second=0.1, stretches=5).frames_of(1.0, 2) == 10


def test_the_command_says_where_a_long_video_is_decoded(lecture, weights, tmp_path, monkeypatch):
    asked = []

    def noted(*arguments, num_workers, **limits):
        asked.append(num_workers)
        return whole(*arguments, num_workers=0, **limits)

    whole = long_video.frame_windows
    monkeypatch.setattr(long_video, "frame_windows", noted)
    given = [
        "long",
        str(lecture),
        "--weights",
        str(weights),
        "--out",
        str(tmp_path),
        "--frames",
        "4",
    ]
    for more in ([], ["--num_workers", "0"]):
        assert cli.main([*given, *more]) == 0
    assert asked == [1, 0]
    assert cli.main([*given, "--num_workers", "3"]) == 2


def test_a_bad_video_is_named(weights, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(DecodeError, match=r"bad\.mp4"):
        long_features(tmp_path / "bad.mp4", weights=weights, num_frames=4)


@pytest.mark.parametrize("form", ["window", "exact"])
def test_command_line_writes_features_and_how_they_were_read(
    lecture, weights, tmp_path, capsys, form
):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    arguments = [lecture, tmp_path / "bad.mp4", "--weights", weights, "--out", tmp_path / "out"]
    arguments += ["--form", form, "--frames_per_second", 3, "--window", 5]
    assert cli.main(["long", *map(str, arguments)]) == 1
    printed = capsys.readouterr()
    assert "1 of 2 videos" in printed.out
    assert "bad.mp4" in printed.err
    found = np.load(tmp_path / "out" / "features.npy")
    wanted = long_features(
        lecture, weights=weights, frames_per_second=3, window=5, exact=form == "exact"
    )
    assert np.array_equal(found[0], wanted.feature.numpy())
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["sampling"].startswith("3 frames per second spread evenly over the video")
    assert manifest["sha256"] == {
        name: hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
        for name in ("features.npy", "meta.jsonl")
    }


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--form", "exact"], "must be given"),
        (["--form", "exact", "--frames", "4", "--stretches", "2"], "stretches (2)"),
    ],
)
def test_command_line_mistakes_are_one_line(lecture, weights, tmp_path, capsys, more, text):
    arguments = ["long", str(lecture), "--weights", weights, "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, *more]) == 2
    printed = capsys.readouterr().err.strip()
    assert text in printed
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "out").exists()


PEAK = """
import re, sys
from stretchysnake import long_features
weights, short, long = sys.argv[1:]
for path in (short, long):
    for exact in (False, True):
        found = long_features(path, weights=weights, frames_per_second=10, exact=exact, num_workers=0)
        # not ru_maxrss: exec hands on that of the parent
        peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]
        print(found.num_frames, peak)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_video(weights, tmp_path):
    picture = np.zeros((24, 16), np.uint8)
    for seconds in (6, 120):
        path = tmp_path / f"{seconds}.mp4"
        write_video(path, np.broadcast_to(picture, (10 * seconds, 24, 16)), fps=10)
    command = [sys.executable, "-c", PEAK, weights, *(str(tmp_path / f"{s}.mp4") for s in (6, 120))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [num_frames for num_frames, _ in found] == [60, 60, 1200, 1200]
    peaks = [kib / 1024 for _, kib in found]
    assert (
        peaks[3] - peaks[1] < 20
    )  # MiB; in one shot the activations of one layer alone would be 70


@pytest.fixture(scope="module")
def standstill(tmp_path_factory):
    path = tmp_path_factory.mktemp("still") / "still.mp4"
    return path, write_standstill(path)


@pytest.fixture
def seen(monkeypatch):
    """The numbers on the frames of each window that long_features reads, 64 pixels wide."""
    windows = []

    def noted(*arguments, **options):
        options["size"] = 64
        told, frames = frame_windows(*arguments, **options)

        def each():
            for window in frames:
                windows.append(read_numbers(window))
                yield window[:, ::4, ::4].copy()

        return told, each()

    monkeypatch.setattr(long_video, "frame_windows", noted)
    return windows


@pytest.mark.parametrize("settings", [{"frames_per_second": 1}, {"num_frames": 63}])
def test_seconds_are_those_of_the_frames_read(standstill, weights, seen, settings):
    path, times = standstill
    found = long_features(path, weights=weights, window=8, size=16, **settings)
    assert found.seconds[0][0] == 0 and 63.9 < found.seconds[-1][1] < 64.1
    for (_, end), (start, _) in pairwise(found.seconds):
        assert start == end
    ends = [*times[1:], found.seconds[-1][1]]
    for (start, end), numbers in zip(found.seconds, seen, strict=True):
        for number in numbers:  # each is on screen at some time of its window
            assert times[number] < end + 1e-3 and ends[number] > start - 1e-3
    if "num_frames" in settings:
        assert [n for window in seen for n in window] == [2 * i + 1 for i in range(63)]
        assert not found.repeated
    else:
        duration, count = found.seconds[-1][1], found.num_frames
        assert count == round(duration)
        asked = [(i + 0.5) * duration / count for i in range(count)]
        wanted = [max(n for n, begins in enumerate(times) if begins <= at) for at in asked]
        assert [n for window in seen for n in window] == wanted
        assert found.repeated
