"""The training loop: batches of one scale each in, weights out (paper §4.1).

result = train(run)        # reads the data, writes weights.safetensors, run.json, loss.jsonl
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from stretchysnake.data.loader import DecodingLimits, open_clips, training_batches
from stretchysnake.data.records import read_records
from stretchysnake.models.checkpoints import save_model
from stretchysnake.models.videomamba import VideoMamba
from stretchysnake.results import environment
from stretchysnake.train.optim import build_optimizer, lr_at
from stretchysnake.train.run import TrainRun


@dataclass(frozen=True)
class TrainResult:
    """What a run did; losses is one (step, loss) per step."""

    weights: str
    losses: list[tuple[int, float]]
    seconds: float
    clips: int
    tokens: int

    @property
    def final_loss(self) -> float:
        """Mean loss of the last twentieth of the steps."""
        tail = [loss for _, loss in self.losses[-max(1, len(self.losses) // 20) :]]
        return sum(tail) / len(tail)


def train(run: TrainRun, *, progress: Callable[[str], None] | None = None) -> TrainResult:
    """Train from scratch as the run says; a finished run of the same digest and data is returned as it is.

    Raises ValueError when run.out holds another finished run, which is never overwritten.
    """
    out = Path(run.out)
    records = read_records(run.data)
    key = run_key(run, records)
    done = finished_run(out, key)
    if done is not None:
        return done
    num_classes = 1 + max(record.label for record in records)
    if run.model.num_classes not in (0, num_classes):
        if run.model.num_classes < num_classes:
            raise ValueError(
                f"model.num_classes ({run.model.num_classes}) must cover the data's labels 0..{num_classes - 1}; "
                f"use {num_classes}, or 0 to take it from the data"
            )
        num_classes = run.model.num_classes
    clips = open_clips(
        records,
        cache=run.cache,
        num_frames=run.cache_frames,
        size=run.cache_size,
        on_error=run.on_error,
        limits=DecodingLimits(num_workers=run.num_workers),
        progress=progress,
    )
    torch.manual_seed(run.seed)
    model = VideoMamba(replace(run.model, num_classes=num_classes))
    batches = training_batches(
        clips,
        variant=run.bound_variant,
        batch_size=run.batch_size,
        seed=run.seed,
        steps=run.steps,
        token_budget=run.token_budget,
    )
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    losses, num_clips, tokens = fit(model, batches, run, progress=progress)
    result = TrainResult(
        str(out / "weights.safetensors"), losses, time.perf_counter() - started, num_clips, tokens
    )
    _write_atomic(out / "loss.jsonl", "".join(json.dumps(pair) + "\n" for pair in losses))
    save_model(
        result.weights, model, variant=run.variant, sets=asdict(run.sets), seed=run.seed, digest=key
    )
    written = {
        "run": asdict(run),
        "digest": key,
        "num_records": len(clips.records),
        "num_records_listed": len(records),
        "bad_files": {
            "left_out": [str(error) for _, error in clips.failures],
            **clips.bad.summary,
        },
        "result": {"seconds": result.seconds, "clips": num_clips, "tokens": tokens},
        "environment": environment(),
        "threads": torch.get_num_threads(),
    }
    _write_atomic(
        out / "run.json", json.dumps(written, indent=1)
    )  # last: its presence means "finished"
    return result


def fit(
    model: VideoMamba,
    batches: Iterable,
    run: TrainRun,
    *,
    progress: Callable[[str], None] | None = None,
) -> tuple[list[tuple[int, float]], int, int]:
    """Run the steps; returns the losses, clips seen and tokens seen.

    A non-finite loss stops the run with a RuntimeError before the weights are touched.
    """
    optimizer = build_optimizer(model, run.optim)
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = next(model.parameters()).device
    model.train()
    losses, clips, tokens, started, shown = [], 0, 0, time.perf_counter(), 0.0
    for batch in batches:
        lr = lr_at(run.optim, step=batch.step, steps=run.steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16"):
            exact = "exact" if batch.scale.size % batch.scale.patch_size == 0 else "floor"
            logits = model(batch.video.to(device), batch.scale.patch_size, grid=exact)
        loss = F.cross_entropy(
            logits.float(), batch.labels.to(device), label_smoothing=run.label_smoothing
        )
        value = loss.item()
        if value != value or value in (float("inf"), float("-inf")):
            raise RuntimeError(
                f"loss ({value}) at step {batch.step} (scale {batch.scale}) is not finite; weights were not "
                "changed by this step. Try a lower optim.lr or precision fp32"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if run.optim.clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, run.optim.clip_norm)
        optimizer.step()
        losses.append((batch.step, value))
        clips += len(batch.labels)
        tokens += len(batch.labels) * batch.scale.num_tokens
        elapsed = time.perf_counter() - started
        if progress and (elapsed - shown > 0.5 or batch.step + 1 == run.steps):
            shown = elapsed
            recent = sum(v for _, v in losses[-20:]) / len(losses[-20:])
            left = elapsed / len(losses) * (run.steps - batch.step - 1)
            scale = batch.scale
            progress(
                f"{run.variant:13s} step {batch.step + 1:5d}/{run.steps} loss {recent:.3f} "
                f"T={scale.num_frames:<3d} S={scale.size:<3d} P={scale.patch_size:<2d} "
                f"{clips / elapsed:5.0f} clips/s, {left / 60:.1f} min left"
            )
    model.eval()
    return losses, clips, tokens


def run_key(run: TrainRun, records: list) -> str:
    """The run's digest and a hash of its records: equal keys mean the same training."""
    listed = json.dumps([(record.path, record.label) for record in records])
    return f"{run.digest()}-{hashlib.sha256(listed.encode()).hexdigest()[:8]}"


def finished_run(out: Path, key: str) -> TrainResult | None:
    """The result of the finished run of this key in `out`; None when there is no finished run."""
    if not (out / "run.json").is_file():
        return None
    try:
        written = json.loads((out / "run.json").read_text())
        losses = [tuple(json.loads(line)) for line in (out / "loss.jsonl").read_text().splitlines()]
        found, result = written["digest"], written["result"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(
            f"out ({out}) holds a damaged run ({error}); remove it or choose another"
        ) from None
    if found != key:
        raise ValueError(
            f"out ({out}) already holds another finished run (digest {found}, this one is {key}); "
            "choose another folder"
        )
    if not (out / "weights.safetensors").is_file():
        return None
    return TrainResult(str(out / "weights.safetensors"), losses, **result)


def _write_atomic(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
