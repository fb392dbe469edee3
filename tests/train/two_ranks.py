"""Trains runs one after the other, as every rank of a torchrun: `two_ranks.py JOBS.json`; a JSON line per run and rank.

A job is {"run": ..., and one of: "from": folder of a run to copy and, with "after": step, to take back to that step;
"die": [rank, step]; "hang": [rank, step], for twenty seconds; "poison": [rank, step], with a NaN in a clip}.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from stretchysnake.data.clips import clip_source
from stretchysnake.ranks import open_runtime
from stretchysnake.train import loop
from stretchysnake.train.batch_norm import running_statistics
from stretchysnake.train.run import TrainRun

RANK, WORLD_SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def take_back(source: Path, out: Path, step: int) -> None:
    shutil.copytree(source, out)
    (out / "run.json").unlink(missing_ok=True)
    for path in (out / "checkpoints").glob("step-*"):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)


def at_step(rank: int, step: int, act) -> None:
    """Before that step on that rank: its batch is what `act` makes of it, for all who see it."""
    whole = loop.training_batches

    def batches(*arguments, **options):
        for batch in whole(*arguments, **options):
            acted = act(batch) if rank == RANK and batch.step == step else None
            yield acted or batch

    loop.training_batches = batches


def with_a_clip_of_nan(batch):
    video = batch.video.to("cpu")
    video[1] = float("nan")
    return batch._replace(video=video)


def counting(clips) -> list:
    """The requests that a source of clips gets, as it gets them."""
    seen, whole = [], clips.draw

    def draw(self, requests, **options):
        def noted():
            for request in requests:
                seen.append(request.index)
                yield request

        return whole(self, noted(), **options)

    clips.draw = draw
    return seen


def keeping_statistics() -> list[list[float]]:
    """One list per run: the sum of each running statistic of batch norms as this rank has it at the end."""
    kept, whole = [], loop.fit

    def fitting(state, *arguments, **options):
        ended = whole(state, *arguments, **options)
        kept.append([buffer.sum().item() for buffer in running_statistics(state.model)])
        return ended

    loop.fit = fitting
    return kept


def main() -> None:
    jobs = json.loads(Path(sys.argv[1]).read_text())
    seen = counting(clip_source.CachedClips)
    statistics = keeping_statistics()
    wait = jobs[0]["run"]["rank_timeout"]
    with open_runtime(rank=RANK, world_size=WORLD_SIZE, longest_wait=wait) as runtime:
        batches = loop.training_batches
        for job in jobs:
            loop.training_batches = batches
            run = TrainRun.from_dict(job["run"])
            if "from" in job and runtime.is_first:
                take_back(Path(job["from"]), Path(run.out), job["after"])
            runtime.gather("")  # the copy is there
            if "die" in job:
                at_step(*job["die"], lambda batch: os.kill(os.getpid(), signal.SIGKILL))
            if "hang" in job:
                at_step(*job["hang"], lambda batch: time.sleep(20))
            if "poison" in job:
                at_step(*job["poison"], with_a_clip_of_nan)
            seen.clear()
            result = loop.train(run, runtime=runtime)
            told = {"rank": RANK, "out": run.out, "requests": list(seen), "clips": result.clips}
            sys.stdout.write(
                json.dumps({**told, "losses": result.losses, "statistics": statistics[-1]}) + "\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
