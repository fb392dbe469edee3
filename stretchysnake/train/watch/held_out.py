"""A held-out list measured while a model trains: top-1 and loss at one fixed scale, and the weights that were best.

The scale is the run's native one, each video gives one clip (segment centres, the whole picture), and nothing random
is drawn, so that a training with a held-out list ends with the very weights of one without. What is measured are the
moving averages of the weights where `ema_decay` keeps them, else the weights as trained.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from stretchysnake.data.clips.loader import Clips, DecodingLimits, shaped_batches
from stretchysnake.data.clips.open_clips import open_training_clips
from stretchysnake.data.records import VideoRecord, read_records
from stretchysnake.models.backbone import pixels_of
from stretchysnake.models.weights.files import read_checkpoint, save_weights
from stretchysnake.ranks import SINGLE, Runtime
from stretchysnake.train.checkpoints.outputs import RunLog
from stretchysnake.train.checkpoints.sharding import is_sharded
from stretchysnake.train.checkpoints.state import HeldOutScore, TrainState, whole_weights
from stretchysnake.train.run import TrainRun
from stretchysnake.train.step import compute_logits

BEST = "weights_best.safetensors"


def read_held_out(run: TrainRun, records: Sequence[VideoRecord]) -> list[VideoRecord]:
    """The held-out records with the class numbers of the training's; ValueError where they cannot be compared."""
    held = read_records(run.held_out)
    numbers = {record.class_name: record.label for record in records if record.class_name}
    labels = {record.label for record in records}
    if numbers:  # a number without a name is called by itself, as in data/classes.py
        named = [replace(r, class_name=r.class_name or str(r.label)) for r in held]
        lost = sorted({r.class_name for r in named} - numbers.keys())
        held = [replace(r, label=numbers.get(r.class_name, -1)) for r in named]
    else:  # numbers without names
        lost = sorted({r.label for r in held} - labels)
    if lost:
        raise ValueError(
            f"held_out ({run.held_out}) has classes that data ({run.data}) has not: {', '.join(map(str, lost[:5]))}; "
            "they can never be right, leave their videos out"
        )
    places = {(record.path, record.start, record.end) for record in records}
    shared = [r.path for r in held if (r.path, r.start, r.end) in places]
    if shared:
        raise ValueError(
            f"held_out ({run.held_out}) shares {len(shared)} of {len(held)} videos with data ({run.data}), first "
            f"{shared[0]}; what was trained on is not held out, leave them out of one list"
        )
    if not any(Path(record.path).is_file() for record in held):
        raise ValueError(
            f"held_out ({run.held_out}): none of the {len(held)} files is there, first {held[0].path}; check the paths"
        )
    return held


def open_held_out(
    run: TrainRun,
    records: Sequence[VideoRecord],
    *,
    progress: Callable[[str], None] | None = None,
) -> Clips:
    """The clips of the held-out list; one that cannot be read is left out, and the score says of how many it is."""
    return open_training_clips(
        read_held_out(run, records),
        cache=run.cache,
        num_frames=run.cache_frames,
        size=run.cache_size,
        decoder=run.decoder,
        fit=run.fit,
        on_error="skip",
        limits=DecodingLimits(num_workers=run.num_workers, timeout_seconds=run.timeout_seconds),
        verify_cache=run.verify_cache,
        progress=progress,
    )


class HeldOut:
    """Measures the clips every run.held_out_every steps and at the end, and keeps the best weights in run.out."""

    def __init__(
        self,
        clips: Clips,
        run: TrainRun,
        *,
        metadata: dict | None = None,
        log: RunLog | None = None,
        runtime: Runtime = SINGLE,
    ):
        self.clips, self.run, self.log, self.runtime = clips, run, log, runtime
        self.metadata, self.path = metadata or {}, Path(run.out) / BEST
        self.scale = run.sets.native

    def is_due(self, state: TrainState, steps: int) -> bool:
        """Whether the weights as they are now have to be measured and were not."""
        if state.step == 0 or (state.held_out and state.held_out[-1].step == state.step):
            return False
        return state.step % self.run.held_out_every == 0 or state.step == steps

    @torch.no_grad()
    def __call__(self, state: TrainState) -> None:
        """Measure now; all ranks call, each computes its share."""
        runtime, total = self.runtime, len(self.clips)
        training = state.model.training
        state.model.eval()
        try:
            with _averaged(state):
                score = self._measured(state)
                if score is None:
                    runtime.say(f"held out, step {state.step}: none of {total} videos can be read")
                    return
                state.held_out.append(score)
                is_best = runtime.from_first("yes" if self._is_best(score) else "")
                held = whole_weights(state.model.state_dict()) if is_best else {}
                weights = {name: tensor.clone() for name, tensor in held.items()}
        finally:
            state.model.train(training)
        if not runtime.is_first:
            return
        if is_best:
            told = {
                "step": score.step,
                "top1": score.top1,
                "loss": score.loss,
                "weights": self.measured,
            }
            save_weights(self.path, weights, state.model.config, **self.metadata, held_out=told)
        runtime.say(
            f"held out, step {score.step}: top-1 {score.top1:.1%} of {score.num_clips}"
            f"{f' ({total - score.num_clips} unreadable)' if score.num_clips < total else ''}, loss {score.loss:.3f}, "
            f"T={self.scale.num_frames} S={self.scale.size}, {self.measured}{'; the best so far' if is_best else ''}"
        )
        if self.log:
            self.log("held_out", **score._asdict(), num_listed=total, best=bool(is_best))

    @property
    def measured(self) -> str:
        """Which weights are measured."""
        return "moving average" if self.run.ema_decay else "weights as trained"

    def summary(self, state: TrainState) -> dict:
        """What run.json says of it."""
        return {
            "list": self.run.held_out,
            "scale": asdict(self.scale),
            "weights": self.measured,
            "num_listed": len(self.clips),
            "bad_files": sorted(map(str, self.clips.bad.quarantine.values())),
            "scores": [score._asdict() for score in state.held_out],
            "best": self._best(),
        }

    def _measured(self, state: TrainState) -> HeldOutScore | None:
        clips, runtime, model = self.clips, self.runtime, state.model
        device = next(model.parameters()).device
        mine = range(runtime.rank, len(clips), runtime.world_size)
        at_once, side = self._clips_at_once(), self.scale.size
        options = {"indices": mine, "pixels": pixels_of(state.model.config)}
        sums = torch.zeros(3, dtype=torch.float64)  # loss, right, read
        black = torch.zeros(1, 3, self.scale.num_frames, side, side, device=device)
        most = math.ceil(math.ceil(len(clips) / runtime.world_size) / at_once)
        with closing(shaped_batches(clips, self.scale, at_once, **options)) as batches:
            for _ in range(most):
                indices, parts = next(batches, ([], []))
                for part in parts + [None] * (self._passes(model, len(parts)) - len(parts)):
                    video = black if part is None else part.video.to(device)
                    logits = compute_logits(model, video, self.scale, self.run)
                    if part is None:
                        continue
                    logits = logits.double().cpu()
                    labels = clips.labels[[indices[position] for position in part.positions]]
                    sums[0] += F.cross_entropy(logits, labels, reduction="sum")
                    sums[1] += (logits.argmax(1) == labels).sum()
                    sums[2] += len(labels)
        runtime.meet()  # decoding may take one rank much longer
        loss, right, read = runtime.sum(sums).tolist()
        if not read:
            return None
        return HeldOutScore(state.step, right / read, loss / read, round(read))

    def _passes(self, model: torch.nn.Module, mine: int) -> int:
        """Of one batch: every pass of a sliced model needs all ranks, also those with fewer or unreadable clips, or
        with fewer shapes, which no rank knows of the others."""
        if not is_sharded(model):
            return mine
        return self.runtime.most(mine) if self.run.fit == "keep" else 1

    def _clips_at_once(self) -> int:
        most = math.ceil(self.run.batch_size / self.runtime.world_size)
        for tokens in (self.run.tokens_per_pass, self.run.token_budget):
            if tokens is not None:
                most = min(most, tokens // self.scale.num_tokens)
        return max(1, most)

    def _best(self) -> dict | None:
        """What the file of the best weights says of itself; None where there is none."""
        try:
            return read_checkpoint(self.path)[1]["run"]["held_out"]
        except (ValueError, OSError, KeyError, TypeError):
            return None

    def _is_best(self, score: HeldOutScore) -> bool:
        if not self.runtime.is_first:
            return False
        best = self._best()
        return best is None or (score.top1, -score.loss) > (best["top1"], -best["loss"])


@contextmanager
def _averaged(state: TrainState) -> Iterator[None]:
    """Within, the model has its moving average for weights, where there is one; after it, its own, bit for bit."""
    if state.average is None:
        yield
        return
    weights = state.model.state_dict()
    trained = {name: tensor.clone() for name, tensor in weights.items()}
    try:
        for name, tensor in weights.items():
            tensor.copy_(state.average[name])
        yield
    finally:
        for name, tensor in weights.items():
            tensor.copy_(trained[name])
