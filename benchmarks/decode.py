"""Sixteen frames of a video: our index-and-seek reading beside reading it through, and beside a seek for each frame.

    OMP_WAIT_POLICY=passive python benchmarks/decode.py [--long 9000] [--out benchmarks/results/decode.json]

Videos: 320x240 h264, every frame painted with its number, GOP 250 and GOP 12; frames are uniform. Correctness first:
each way must return the frames it was asked for. All ways take turns within a round, so that a busy machine slows all
alike: read the ratios, not the milliseconds of two runs.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.decoding.video import read_frames
from stretchysnake.results.rows import environment

BITS, WIDTH, HEIGHT = 14, 320, 240


def paint(num_frames: int, first: int = 0):
    """Frames of moving texture; 14 columns of the lower fifth hold the bits of the frame's number."""
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(30, 226, (60, 80, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    column = np.arange(WIDTH) * BITS // WIDTH
    for number in range(first, num_frames):
        top, left = number % 200, 2 * number % 300
        frame = picture[top : top + HEIGHT, left : left + WIDTH].copy()
        frame[-48:] = (255 * (number >> column & 1))[None, :, None]
        yield frame


def read_numbers(frames: np.ndarray) -> list[int]:
    centres = [int((bit + 0.5) * WIDTH / BITS) for bit in range(BITS)]
    bits = frames[:, -24, centres].astype(float).mean(-1) > 128
    return [int(sum(1 << bit for bit in range(BITS) if row[bit])) for row in bits]


def write(path: Path, num_frames: int, gop: int) -> None:
    options = {
        "preset": "fast",
        "crf": "23",
        "g": str(gop),
        "keyint_min": str(gop),
        "sc_threshold": "0",
    }
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        for pixels in paint(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def sequential(path: Path, indices: list[int]) -> np.ndarray:
    """Decode from the start to the last frame wanted, convert what is wanted: PyAV's plain way."""
    wanted, found = set(indices), {}
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found[number] = frame.to_ndarray(format="rgb24")
                if len(found) == len(wanted):
                    break
    return np.stack([found[i] for i in indices])


def everything(path: Path, indices: list[int]) -> np.ndarray:
    """Decode and convert every frame, then choose: what reading a video whole costs."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack([frames[i] for i in indices])


def seek_each(path: Path, indices: list[int]) -> np.ndarray:
    """A seek before every frame, whether it saves anything or not."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for i in indices:
            target = round(i / float(stream.average_rate) / float(stream.time_base))
            container.seek(target, stream=stream)
            frame = next(f for f in container.decode(stream) if f.pts >= target)
            found.append(frame.to_ndarray(format="rgb24"))
    return np.stack(found)


WAYS = {
    "ours": read_frames,
    "sequential": sequential,
    "everything": everything,
    "seek each": seek_each,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--long", type=int, default=9000, help="frames of the long video; 0: none")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/decode.json"))
    options = parser.parse_args()
    cases = [(300, 250), (300, 12), *((options.long, gop) for gop in (250, 60) if options.long)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for num_frames, gop in cases:
            path = Path(folder) / f"{num_frames}-{gop}.mp4"
            write(path, num_frames, gop)
            indices = uniform_indices(num_frames, 16)
            ways = {
                k: w for k, w in WAYS.items() if num_frames < 1000 or k in ("ours", "sequential")
            }
            for name, way in ways.items():  # the gate, and the warm-up
                found = read_numbers(way(path, indices))
                assert found == indices, f"{name} returned {found}, asked for {indices}"
            repeats = options.repeats if num_frames < 1000 else 3
            times = {name: [] for name in ways}
            for _ in range(repeats):
                for name, way in ways.items():
                    started = time.perf_counter()
                    way(path, indices)
                    times[name].append(1e3 * (time.perf_counter() - started))
            print(
                f"16 of {num_frames} frames, {WIDTH}x{HEIGHT}, GOP {gop}, {path.stat().st_size / 1e3:.0f} kB"
            )
            for name, found in times.items():
                ratio = statistics.median(
                    a / b for a, b in zip(found, times["sequential"], strict=True)
                )
                row = {
                    "num_frames": num_frames,
                    "gop": gop,
                    "way": name,
                    "median_ms": statistics.median(found),
                    "min_ms": min(found),
                    "max_ms": max(found),
                    "ratio_to_sequential": ratio,
                }
                rows.append(row)
                print(f"  {name:11s} {row['median_ms']:9.1f} ms ({row['min_ms']:.1f} to {row['max_ms']:.1f})  "
                      f"{ratio:5.2f} x sequential")  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    written = {"environment": environment(), "threads": 1, "rows": rows}
    options.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
