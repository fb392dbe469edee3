"""Decoding keeps no memory: the resident set of a decoding process stays flat, good files and bad ones alike."""

import os
from pathlib import Path

import numpy as np
import pytest
from damaged_corpus import textured

from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import read_frames, write_video
from stretchysnake.data.processes.decoder_pool import DecoderPool

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def decode(path):
    for size in (None, (32, 32)):
        try:
            read_frames(path, lambda total: range(0, total, 4), size=size)
        except DecodeError:
            continue
    return resident_bytes()


@pytest.mark.parametrize(
    "num_clips", [150, pytest.param(2000, marks=pytest.mark.slow)], ids=["150", "2000"]
)
def test_memory_grows_less_than_a_megabyte_per_thousand_clips(num_clips, tmp_path):
    write_video(tmp_path / "good.mp4", textured(30), options={"g": "10", "bf": "2"})
    write_video(
        tmp_path / "vp9.webm", textured(30), codec="libvpx-vp9", options={"deadline": "realtime"}
    )
    content = (tmp_path / "good.mp4").read_bytes()
    half = len(content) // 2
    (tmp_path / "cut.mp4").write_bytes(content[:half])
    (tmp_path / "hole.mp4").write_bytes(content[:half] + bytes(400) + content[half + 400 :])
    paths = [str(tmp_path / name) for name in ("good.mp4", "vp9.webm", "cut.mp4", "hole.mp4")]
    warm_up = 60
    with DecoderPool(decode, num_workers=1) as pool:
        tasks = ((paths[i % 4], paths[i % 4]) for i in range(warm_up + num_clips))
        found = np.array(list(pool.map(tasks)), float)[warm_up:]
    slope = np.polyfit(np.arange(num_clips), found, 1)[0] * 1000 / 2**20
    print(f"{num_clips} clips: {slope:+.3f} MB per 1,000")
    # a shorter series is judged by what it grew in all, since one page more tilts it
    assert slope < 1 if num_clips >= 2000 else found[-1] - found[0] < 2**20
