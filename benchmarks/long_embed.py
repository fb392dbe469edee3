"""`embed --window 10` of a long video beside decoding it once, and the memory of its processes over time.

    python benchmarks/long_embed.py [--minutes 120] [--out benchmarks/results/long_embed.json]

Needs ffmpeg: a minute of its testsrc2 pattern, 1280 × 720, 30 a second, H.264 with B-frames and a key frame every
250, is encoded once and repeated by copying packets. First the index is checked: as many rows as windows, and three of
them against frames read by time. Then processor time and wall clock of a process that decodes every frame with PyAV on
one thread and does nothing with it, and of the command with all of its processes: a nano model of random weights at
T = 8, S = 32. Resident memory (Linux) is read every second, of the command and of its largest decoding process; what
they share counts in both.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from stretchysnake import VideoMamba, VideoMambaConfig, save_model
from stretchysnake.data.decoding.video import read_frames_at
from stretchysnake.eval.features.passes import features_of
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.results.rows import environment
from stretchysnake.search.index import read_index
from stretchysnake.search.time_windows import frame_times
from stretchysnake.whole_file import write_whole

WINDOW = 10
ENCODER = "-c:v libx264 -preset veryfast -crf 23 -g 250 -pix_fmt yuv420p"
DECODE_ONCE = """
import sys, av
with av.open(sys.argv[1]) as container:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    for frame in container.decode(stream):
        pass
"""


def write_long(path: Path, minutes: int) -> None:
    minute = path.with_name("minute.mp4")
    quiet = "ffmpeg -v error -y"
    pattern = "-f lavfi -i testsrc2=size=1280x720:rate=30 -t 60"
    subprocess.run([*f"{quiet} {pattern} {ENCODER}".split(), minute], check=True)
    subprocess.run(
        [*f"{quiet} -stream_loop {minutes - 1} -i".split(), minute, "-c", "copy", path], check=True
    )


def resident_mib(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it has ended
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def measured(command: list[str]) -> dict:
    """Seconds, processor seconds of a command and the processes it waits for, and MiB (command, largest child)."""
    started, memory = time.perf_counter(), []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        largest = max(map(resident_mib, children(process.pid)), default=0.0)
        memory.append((resident_mib(process.pid), largest))
        time.sleep(1)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}")
    return {
        "seconds": time.perf_counter() - started,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "memory_mib": memory,
    }


def check_rows(index: Path, video: Path, weights: Path, minutes: int) -> float:
    """As many rows as windows; the largest difference of three of them from frames read by time."""
    found = read_index(index)
    if len(found.rows) != minutes * 60 // WINDOW:
        raise AssertionError(f"{len(found.rows)} rows for {minutes} minutes")
    model, _, _ = read_subject(weights)
    scale, worst = found.settings.scale, 0.0
    for number in (0, len(found.rows) // 2, len(found.rows) - 1):
        row = found.rows[number]
        times = frame_times(row.start, row.end, scale.num_frames)
        frames = read_frames_at(video, times, size=(scale.size, scale.size))
        wanted = features_of(model, scale, frames[None], batch_size=1)[0]
        worst = max(worst, float(np.abs(found.features[number] - wanted).max()))
    if worst > 1e-4:
        raise AssertionError(f"a row differs by {worst:.1e} from its frames read by time")
    return worst


def over_time(memory: list[tuple[float, float]]) -> list[dict]:
    """The most that was resident in each tenth of the time."""
    tenths = np.array_split(np.array(memory), min(10, len(memory)))
    return [
        {"command": round(part[:, 0].max()), "decoder": round(part[:, 1].max())} for part in tenths
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/long_embed.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video, weights, index = (Path(folder) / n for n in ("long.mp4", "w.safetensors", "index"))
        torch.manual_seed(0)
        save_model(weights, VideoMamba(VideoMambaConfig.named("nano", num_classes=0)))
        write_long(video, options.minutes)
        command = f"-m stretchysnake.cli embed {video} --weights {weights} -o {index}"
        scale = f"--window {WINDOW} --frames 8 --size 32"
        embed = measured([sys.executable, *command.split(), *scale.split()])
        worst = check_rows(index, video, weights, options.minutes)
        once = measured([sys.executable, "-c", DECODE_ONCE, str(video)])
    memory = over_time(embed.pop("memory_mib"))
    once.pop("memory_mib")
    ratio = {name: embed[name] / once[name] for name in once}
    print(f"{options.minutes} minutes, {options.minutes * 6} windows, rows within {worst:.1e}")
    print("                    processor      wall clock")
    for name, row in (("decoding it once", once), ("embed", embed)):
        print(f"{name:18s} {row['processor_seconds']:8.1f} s {row['seconds']:12.1f} s")
    print(f"{'ratio':18s} {ratio['processor_seconds']:8.2f} {ratio['seconds']:14.2f}")
    for who in ("command", "decoder"):
        print(f"MiB by tenths of the time, {who}:", *(part[who] for part in memory))
    found = {
        "environment": environment(),
        "minutes": options.minutes,
        "encoder": ENCODER,
        "row_difference": worst,
        "decoding_once": once,
        "embed": embed,
        "ratio": ratio,
        "memory_mib": memory,
    }
    write_whole(options.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
