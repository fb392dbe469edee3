"""What the training engine costs beside a bare loop: `python benchmarks/engine.py [OUT.json]` (nano, CPU).

Both take the same steps on the same prepared batches, in turns, several times: forward, backward, clipping, AdamW,
schedule. The engine adds its checks, log, counts and, by time, checkpoints. One process, the machine otherwise idle.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.data.loader import Batch
from stretchysnake.flexibility import NANO, scale_at, variant_named
from stretchysnake.results import environment
from stretchysnake.train.loop import fit
from stretchysnake.train.optim import build_optimizer, lr_at
from stretchysnake.train.outputs import RunLog
from stretchysnake.train.run import TrainRun
from stretchysnake.train.runtime import SINGLE
from stretchysnake.train.saving import Saver
from stretchysnake.train.state import new_state

STEPS, REPEATS, BATCH = 40, 5, 16
RUN = TrainRun(
    data="-",
    out="-",
    variant="static_tokens",
    model=VideoMambaConfig.named("nano", num_classes=10),
    steps=STEPS,
    batch_size=BATCH,
)


def prepared() -> list[Batch]:
    variant = variant_named(RUN.variant).using(NANO)
    batches = []
    for step in range(STEPS):
        scale = scale_at(variant, seed=0, step=step)
        video = torch.rand(BATCH, 3, scale.num_frames, scale.size, scale.size)
        batches.append(Batch(step, scale, video, torch.arange(BATCH) % 10))
    return batches


def bare(batches: list[Batch]) -> float:
    torch.manual_seed(0)
    model = VideoMamba(RUN.model).train()
    optimizer = build_optimizer(model, RUN.optim)
    started = time.perf_counter()
    for batch in batches:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(RUN.optim, step=batch.step, steps=STEPS)
        loss = F.cross_entropy(model(batch.video, batch.scale.patch_size), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), RUN.optim.clip_norm)
        optimizer.step()
        loss.item()
    return time.perf_counter() - started


def engine(batches: list[Batch], folder: Path) -> float:
    torch.manual_seed(0)
    state = new_state(VideoMamba(RUN.model), RUN)
    log = RunLog(folder / "log.jsonl")
    saver = Saver(folder / "checkpoints", RUN, metadata={}, key="benchmark", log=log)
    started = time.perf_counter()
    fit(state, lambda start: batches[start:], RUN, saver=saver, progress=lambda text: None)
    return time.perf_counter() - started


def main() -> None:
    batches = prepared()
    bare(batches[:5])
    with tempfile.TemporaryDirectory() as folder:
        pairs = [(bare(batches), engine(batches, Path(folder))) for _ in range(REPEATS)]
        torch.manual_seed(0)
        state = new_state(VideoMamba(RUN.model), RUN)
        saver = Saver(Path(folder) / "one", RUN, metadata={}, key="-", log=RunLog(None))
        fit(state, lambda start: batches[start:2], RUN, steps=2, saver=saver)
        saver.save(state, runtime=SINGLE)
    ratios = [engine_seconds / bare_seconds for bare_seconds, engine_seconds in pairs]
    found = {
        "steps": STEPS,
        "batch_size": BATCH,
        "bare_seconds": [round(a, 3) for a, _ in pairs],
        "engine_seconds": [round(b, 3) for _, b in pairs],
        "overhead_percent_median": round(100 * (statistics.median(ratios) - 1), 2),
        "overhead_percent_all": [round(100 * (ratio - 1), 2) for ratio in ratios],
        "one_checkpoint_seconds": round(saver.last_took, 3),
        "threads": torch.get_num_threads(),
        "environment": environment(),
    }
    print(json.dumps(found, indent=1))
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
