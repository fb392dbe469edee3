"""What feeding a GPU costs: each stage of the loader on one core, beside plain PyAV in the same run.

    OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 python benchmarks/loader.py [--rounds 3] [--clips 8]
    ... --out benchmarks/results/loader.json

Videos of 10 s, 340x256 and 1280x720, h264, are made first. All times are processor time of one process (other work on
the machine lengthens it too: read the ratios within a row, whose ways take turns). Correctness first: ours must give
the pixels of reading whole frames and cutting them.
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from stretchysnake.data.clips.augment import augmented
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.clip_source import DecodedClips, DecodingLimits
from stretchysnake.data.clips.frame_choice import Sampling, uniform_indices
from stretchysnake.data.clips.loader import training_batches
from stretchysnake.data.clips.loading.decoded_clip import ClipDecoder, UnfinishedClip
from stretchysnake.data.clips.transforms import normalise, resize_frames
from stretchysnake.data.decoding.video import read_frames
from stretchysnake.data.processes.nursery import nursery
from stretchysnake.data.records import VideoRecord
from stretchysnake.eval.sweeps.cost import count_flops
from stretchysnake.flexibility import PAPER, Scale, variant_named
from stretchysnake.models.architectures import config_named
from stretchysnake.recipes.pretrain import pretrain_official
from stretchysnake.results.rows import environment

SIZES = {"340x256": (340, 256, "23"), "1280x720": (1280, 720, "28")}
SCALES = [Scale(8, 98, 14), Scale(16, 224, 16), Scale(64, 224, 16), Scale(64, 378, 27)]
PLAIN = Augmentation()
OFFICIAL = pretrain_official().augmentation
NUM_FRAMES = 300


def write(path: Path, width: int, height: int, crf: str) -> None:
    """Ten seconds of a moving texture with a little noise."""
    rng = np.random.default_rng(0)
    size = (height // 8 + 40, width // 8 + 40, 3)
    picture = np.kron(rng.integers(20, 236, size), np.ones((8, 8, 1))).astype(np.float32)
    with av.open(str(path), "w") as container:
        options = {"preset": "fast", "crf": crf}
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(NUM_FRAMES):
            top, left = number % 200, 2 * number % 300
            frame = picture[top : top + height, left : left + width]
            frame = np.clip(frame + rng.normal(0, 6, (height, width, 1)), 0, 255)
            frame = av.VideoFrame.from_ndarray(frame.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def plain_pyav(path: str, scale: Scale) -> torch.Tensor:
    """Decode from the start to the last frame wanted, convert and resize what is wanted, each frame at once."""
    wanted, frames, scaler = uniform_indices(NUM_FRAMES, scale.num_frames), [], VideoReformatter()
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                rgb = scaler.reformat(frame, format="rgb24", interpolation="BILINEAR").to_ndarray()
                frames.append(resize_frames(torch.from_numpy(rgb), scale.size))
                if len(frames) == len(wanted):
                    return torch.stack(frames)
    raise AssertionError("a frame is missing")


def whole_frames(path: str, scale: Scale, augmentation: Augmentation) -> torch.Tensor:
    """As it was before: read whole frames, then crop, resize and augment them."""
    generator = torch.Generator().manual_seed(3)

    def indices(total: int) -> list[int]:
        return Sampling().indices(total, scale.num_frames, generator=generator)

    frames = torch.from_numpy(read_frames(path, indices))
    return augmented(frames, scale, augmentation, generator)


def ours(path: str, scale: Scale, augmentation: Augmentation) -> UnfinishedClip:
    """What a process does for a clip that is finished on a GPU."""
    clips = DecodedClips([VideoRecord(path, 0)], augmentation=augmentation)
    generator = torch.Generator().manual_seed(3)
    return clips._decoder.clip(clips.records[0], scale, generator=generator)


def in_turns(ways: dict, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of each way, which take turns."""
    times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way()
            times[name].append(1e3 * (time.process_time() - started))
    return times


def ratio(times: dict, of: str, to: str) -> float:
    """Median over the rounds of `of` / `to`."""
    return statistics.median(a / b for a, b in zip(times[of], times[to], strict=True))


def worker_row(name: str, path: str, scale: Scale, rounds: int) -> dict:
    ways = {
        "plain_pyav": lambda: plain_pyav(path, scale),
        "whole_frames": lambda: whole_frames(path, scale, PLAIN),
        "ours": lambda: ours(path, scale, PLAIN),
    }
    if name == "340x256":
        ways["official_whole_frames"] = lambda: whole_frames(path, scale, OFFICIAL)
        ways["official_ours"] = lambda: ours(path, scale, OFFICIAL)
    for augmentation in (PLAIN, OFFICIAL):  # the gate, and the warm-up
        expected = whole_frames(path, scale, augmentation)
        assert torch.equal(ours(path, scale, augmentation).finished, expected)
    times = in_turns(ways, rounds)
    row = {"stage": "worker", "video": name, "frames": scale.num_frames, "size": scale.size}
    row |= {f"{way}_ms": statistics.median(found) for way, found in times.items()}
    row["speed_beside_plain_pyav"] = 1 / ratio(times, "ours", "plain_pyav")
    row["speed_beside_whole_frames"] = 1 / ratio(times, "ours", "whole_frames")
    row["clips_a_second"] = 1e3 / row["ours_ms"]
    return row


def repeated_row(name: str, path: str, scale: Scale, rounds: int) -> dict:
    """Clips a second of a worker's core where a step takes 1, 2 or 4 draws of one decoding (`num_sample`)."""
    record = VideoRecord(path, 0)
    decoder = DecodedClips([record], augmentation=PLAIN)._decoder

    def clips(number: int):
        generators = [torch.Generator().manual_seed(seed) for seed in range(number)]
        return decoder.drawn(record, scale, generators)

    for seed, clip in enumerate(clips(4)):  # the gate, and the warm-up
        alone = decoder.clip(record, scale, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(clip.frames, alone.frames)
    times = in_turns({number: partial(clips, number) for number in (1, 2, 4)}, rounds)
    row = {"stage": "repeated", "video": name, "frames": scale.num_frames, "size": scale.size}
    for number, found in times.items():
        row[f"num_sample_{number}_ms_a_clip"] = statistics.median(found) / number
        row[f"num_sample_{number}_clips_a_second"] = 1e3 * number / statistics.median(found)
    for number in (2, 4):
        row[f"speed_of_{number}"] = number / ratio(times, number, 1)
    return row


class FreeDecoder(ClipDecoder):
    """Decodes nothing: the same clip every time, so that what the parent does is all there is."""

    def clip(self, record, scale, *, generator):
        """Of `training_batches` with num_sample 1."""
        shape = (scale.num_frames, scale.size, scale.size, 3)
        if shape not in _FREE:
            _FREE[shape] = torch.full(shape, 7, dtype=torch.uint8)
        return UnfinishedClip(_FREE[shape])


_FREE: dict = {}


class FreeClips(DecodedClips):
    @property
    def _decoder(self):
        return FreeDecoder(augmentation=PLAIN, sampling=self.sampling, picture=None, decoder="pyav")


def free_batches(scale: Scale, clips: int, steps: int, **options):
    source = FreeClips(
        [VideoRecord("none", 0)] * 1000, augmentation=PLAIN, limits=DecodingLimits(num_workers=2)
    )
    variant = variant_named("vanilla").using(replace(PAPER, native=scale))
    return training_batches(
        source, variant=variant, batch_size=clips, seed=0, steps=steps, **options
    )


def parent_row(scale: Scale, clips: int, steps: int) -> dict:
    """Processor time of the parent for a clip: all it does for a GPU, and what the GPU does then, here on a core."""
    row = {"stage": "parent", "frames": scale.num_frames, "size": scale.size, "batch": clips}
    num_bytes = clips * math.prod((scale.num_frames, scale.size, scale.size, 3))
    with nursery():
        batches = free_batches(scale, clips, steps + 2, device=torch.device("cpu"))
        next(batches), next(batches)  # start of the processes, first use of the memory
        peak, used, wall = 0, time.process_time(), time.perf_counter()
        for batch in batches:
            peak = max(peak, _shared_bytes())
            assert int(batch.video.clips[-1].frames[-1, -1, -1, 0]) == 7
        used, wall = time.process_time() - used, time.perf_counter() - wall
    row["transport_ms"] = 1e3 * used / (steps * clips)
    row["clips_a_second_of_parent"] = 1e3 / row["transport_ms"]
    row["clips_a_second_of_wall"] = steps * clips / wall
    row["shared_bytes_over_batch"] = peak / num_bytes
    frames = batch.video.clips[0].frames
    out = torch.empty(3, scale.num_frames, scale.size, scale.size)
    whole = in_turns({"normalise": lambda: normalise(frames, out=out)}, 5)
    row["normalise_on_a_core_ms"] = statistics.median(whole["normalise"])
    row["before_ms"] = _before(frames.numpy(), clips)
    row["before_clips_a_second"] = 1e3 / row["before_ms"]
    return row


def _shared_bytes() -> int:
    """Of pages that are there, in all memory shared with the processes that decode."""
    links = {
        path: os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()
    }
    shared = [path for path, name in links.items() if name.startswith("/memfd:clips")]
    # the map has a descriptor of its own for the same memory
    return sum({(s := os.stat(path)).st_ino: 512 * s.st_blocks for path in shared}.values())


def _before(frames: np.ndarray, clips: int) -> float:
    """As it was before: each clip through a pipe, stacked and normalised; processor time of the reader for a clip."""
    ours_, theirs = multiprocessing.Pipe()

    def send():
        for _ in range(clips):
            theirs.send(frames)

    process = multiprocessing.get_context("fork").Process(target=send, daemon=True)
    process.start()
    used = time.process_time()
    normalise(torch.stack([torch.from_numpy(ours_.recv()) for _ in range(clips)]))
    used = time.process_time() - used
    process.join()
    return 1e3 * used / clips


def forks_row(files_per_worker: int = 20) -> dict:
    """Forks of this process while processes are replaced: none once a nursery is open."""
    from stretchysnake.data.processes import decoder_pool

    forks, whole = [], decoder_pool._FILES_PER_WORKER
    os.register_at_fork(before=lambda: forks.append(threading.current_thread().name))
    decoder_pool._FILES_PER_WORKER = files_per_worker
    with nursery():
        forks.clear()
        steps = 2 + 10 * files_per_worker // 8
        for _ in free_batches(Scale(8, 98, 14), 8, steps, device=torch.device("cpu")):
            pass
    decoder_pool._FILES_PER_WORKER = whole
    replaced = steps * 8 // files_per_worker
    return {"stage": "forks", "processes_replaced": replaced, "forks_of_the_training": len(forks)}


def demand_row(scale: Scale) -> dict:
    """What VideoMamba-M asks for in training: forward, backward (twice that) and the forward again (recompute)."""
    teraflops = 4 * count_flops(config_named("videomamba-middle", num_classes=400), scale) / 1e12
    row = {"stage": "demand", "frames": scale.num_frames, "size": scale.size}
    speeds = {f"clips_a_second_at_{speed}": speed / teraflops for speed in (100, 250, 400)}
    return row | {"tflop_a_clip": teraflops} | speeds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=8, help="of a batch, for the parent")
    parser.add_argument("--steps", type=int, default=6, help="batches, for the parent")
    parser.add_argument("--videos", type=Path, help="folder to keep the videos in, or to find them")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/loader.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []

    def measured(row: dict) -> None:
        """Print and keep it, so that what was measured is there when the rest takes too long."""
        rows.append(row)
        told = (f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items())
        print("  ".join(told), flush=True)
        load = dict(zip(("1_min", "5_min", "15_min"), os.getloadavg(), strict=True))
        told = {"environment": environment(), "load": load, "rows": rows}
        options.out.write_text(json.dumps(told, indent=1) + "\n")

    measured(parent_row(SCALES[-1], options.clips, options.steps))
    measured(forks_row())
    with tempfile.TemporaryDirectory() as folder:
        for name, (width, height, crf) in SIZES.items():
            path = (options.videos or Path(folder)) / f"{name}.mp4"
            if not path.exists():
                write(path, width, height, crf)
            for scale in SCALES[::-1]:
                measured(worker_row(name, str(path), scale, options.rounds))
                measured(repeated_row(name, str(path), scale, options.rounds))
    for scale in SCALES:
        measured(demand_row(scale))
    for scale in SCALES[:-1]:
        measured(parent_row(scale, options.clips, options.steps))


if __name__ == "__main__":
    main()
