"""How long a training takes to its first batch when the list is long: one rank, two ranks, and both resumed.

    OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 python benchmarks/start.py [--rows 240000] [--folder F] [--out JSON]

The list names `--rows` files of 400 classes, hard links to a few tiny videos in a temporary folder, so that what is
measured is the start and not the storage: a disk adds its own time for each file that is asked for its size. Every run
is the real one (`train`, a process a rank), stopped by SIGTERM after its second batch; the resumed runs go on from the
checkpoint that the stop wrote, and their first clips are compared with those an uninterrupted run draws there. On a
machine that others use too, read the processor time, and the wall time beside the load average.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

CLASSES, FILES, STEPS, STOP_AFTER = 400, 16, 6, 2


def make_list(folder: Path, rows: int) -> Path:
    """A CSV list of `rows` videos, hard links to FILES tiny ones (ext4 allows 65,000 to one file)."""
    import numpy as np

    from stretchysnake.data.decoding.video import write_video

    rng = np.random.default_rng(0)
    originals = []
    for number in range(FILES):
        frames = np.kron(rng.integers(0, 256, (24, 6, 8, 3)), np.ones((1, 8, 8, 1)))
        originals.append(folder / f"original{number}.mp4")
        write_video(originals[-1], frames.astype(np.uint8), fps=24)
    for label in range(CLASSES):
        (folder / f"class{label:03}").mkdir()
    with open(folder / "list.csv", "w") as file:
        file.write("path,label\n")
        for row in range(rows):
            name = f"class{row % CLASSES:03}/{row:06}_000010_000020.mp4"
            os.link(originals[row // CLASSES % FILES], folder / name)
            file.write(f"{name},{row % CLASSES}\n")
    return folder / "list.csv"


def measured_training(data: str, out: str, began: float, stop: bool) -> dict:
    """One rank's training, in this process: what it took to its first batch, and which clips it drew."""
    from stretchysnake.models.architectures import config_named
    from stretchysnake.ranks import open_runtime, torchrun_ranks
    from stretchysnake.train import loop
    from stretchysnake.train.interrupt import TrainingInterrupted
    from stretchysnake.train.run import TrainRun

    imported = time.time() - began
    of_loop, told = loop.training_batches, {"drawn": {}}

    def watched(clips, **options):
        for number, batch in enumerate(of_loop(clips, **options), 1):
            if "first_batch_seconds" not in told:
                told.update(cost_so_far(began))
            told["drawn"][batch.step] = float(batch.video.to("cpu").double().sum())
            if stop and number == STOP_AFTER:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    loop.training_batches = watched
    run = TrainRun(
        data=data,
        out=out,
        variant="static_tokens",
        model=config_named("videomamba-nano", num_classes=0),
        steps=STEPS,
        batch_size=4,
        device="cpu",
    )
    with open_runtime(**torchrun_ranks(os.environ)) as runtime, suppress(TrainingInterrupted):
        loop.train(run, runtime=runtime)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "import_seconds": imported,
        "load_average": os.getloadavg()[0],
        **told,
        "peak_rss_mib": largest,
        "worker_peak_rss_mib": worker,
    }


def cost_so_far(began: float) -> dict:
    """Wall time since this process was asked for, its processor time, memory, and bytes it read."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    read = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    status = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]
    return {
        "first_batch_seconds": time.time() - began,
        "first_batch_cpu_seconds": used.ru_utime + used.ru_stime,
        "rss_mib": int(status) / 1024,
        "bytes_read": int(read["rchar"]),
    }


def start(data: Path, out: Path, *, ranks: int, port: int, stop: bool) -> list[dict]:
    """What each rank of one training measured."""
    places = [out.parent / f"{out.name}.rank{rank}.json" for rank in range(ranks)]
    children = []
    for rank, place in enumerate(places):
        place.unlink(missing_ok=True)
        told = {"data": str(data), "out": str(out), "began": time.time(), "stop": stop}
        environment = {
            **os.environ,
            **{"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        }
        command = [sys.executable, __file__, "--rank", json.dumps(told), "--out", str(place)]
        children.append(subprocess.Popen(command, env=environment))
    if any(child.wait() for child in children):
        raise SystemExit(f"a rank of {ranks} ended with an error")
    return [json.loads(place.read_text()) for place in places]


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=240_000)
    parser.add_argument("--folder", help="where to make the list; default: the system's")
    parser.add_argument("--out", default="benchmarks/results/start.json")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        Path(options.out).write_text(json.dumps(measured_training(**json.loads(options.rank))))
        return
    from stretchysnake.results.rows import environment

    result = {"rows": options.rows, "classes": CLASSES, "files": FILES, "runs": {}}
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        began = time.time()
        data = make_list(folder, options.rows)
        print(f"list of {options.rows} rows made in {time.time() - began:.0f} s", flush=True)
        whole = start(data, folder / "whole", ranks=1, port=free_port(), stop=False)[0]["drawn"]
        for ranks in (1, 2):
            drawn: dict[str, float] = {}
            for name in ("first start", "resumed"):
                out, stop = folder / f"of{ranks}", name == "first start"
                measured = start(data, out, ranks=ranks, port=free_port(), stop=stop)
                steps = sorted({step for one in measured for step in one["drawn"]}, key=int)
                for step in steps:  # the ranks' shares together are the batch of one
                    drawn[step] = sum(one["drawn"].get(step, 0.0) for one in measured)
                for one in measured:
                    del one["drawn"]
                result["runs"][f"{ranks} rank{'s' * (ranks > 1)}, {name}"] = measured
                for rank, one in enumerate(measured):
                    print(
                        f"{ranks} rank(s), {name}, rank {rank}: first batch after "
                        f"{one['first_batch_seconds']:.1f} s ({one['first_batch_cpu_seconds']:.1f} s CPU, of the wall "
                        f"{one['import_seconds']:.1f} s import), RSS {one['rss_mib']:.0f} MiB, peak "
                        f"{one['peak_rss_mib']:.0f} MiB, {one['bytes_read'] / 2**20:.0f} MiB read",
                        flush=True,
                    )
            equal = drawn.keys() == whole.keys() and all(
                abs(drawn[step] - whole[step]) <= 1e-9 * abs(whole[step]) for step in whole
            )
            if not equal:
                raise SystemExit(f"{ranks} rank(s): interrupted and resumed drew other clips")
            print(
                f"{ranks} rank(s): the clips of all {len(whole)} steps are an uninterrupted run's"
            )
    result["environment"] = environment()
    Path(options.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
