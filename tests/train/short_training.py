"""Trainings of a few steps on `clip_folder`, and what happened in them."""

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch

from stretchysnake import VideoMambaConfig
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.loading.batch import with_videos
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.train import loop, step
from stretchysnake.train.run import OptimConfig, TrainRun

PLAIN = Augmentation(jitter=False, crop_scale=(1, 1), crop_ratio=(1, 1))
OPTIM = OptimConfig(lr=1e-2, warmup=0.5)
TINY = VideoMambaConfig.named("nano", embed_dim=16, depth=1, num_classes=0)


class ShortTraining:
    """Short trainings on the twelve clips of `clip_folder`, and what happened in them."""

    def __init__(self, clip_folder, folder, monkeypatch):
        self.clips, self.folder, self.patch = clip_folder, folder, monkeypatch
        self.numbers = itertools.count()

    def run(self, **changes):
        base = TrainRun(
            data=str(self.clips),
            out=str(self.folder / f"run{next(self.numbers)}"),
            variant="vanilla",
            model=TINY,
            optim=OPTIM,
            augmentation=PLAIN,
            steps=2,
            batch_size=2,
            num_workers=0,
        )
        return replace(base, **changes)

    def train(self, **changes):
        """The run, its result and weights, its batches with rates, clips per pass, norms and rates of parameters."""
        run, seen = self.run(**changes), SimpleNamespace(batches=[], rates=[], passes=[], norms=[])
        take_step, compute_logits = step.take_step, step.compute_logits
        compute_packed_logits = step.compute_packed_logits

        def watched(state, model, batch, run, *, lr, **rest):
            outcome = take_step(state, model, batch, run, lr=lr, **rest)
            seen.batches.append(with_videos(batch, lambda video: video.to("cpu")))
            seen.rates.append(lr)
            gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
            seen.norms.append(float(torch.nn.utils.get_total_norm(gradients)))
            seen.groups = {group["lr"] for group in state.optimizer.param_groups}
            return outcome

        def counted(model, video, *rest):
            logits = compute_logits(model, video, *rest)
            seen.passes.append(len(video))
            seen.logits = logits.detach()
            return logits

        def counted_packed(model, videos, *rest):
            seen.passes.append([len(video) for video in videos])
            return compute_packed_logits(model, videos, *rest)

        with self.patch.context() as patch:
            patch.setattr(loop, "take_step", watched)
            patch.setattr(step, "compute_packed_logits", counted_packed)
            patch.setattr(step, "compute_logits", counted)
            result = loop.train(run)
        weights = read_checkpoint(result.weights)[0]
        return SimpleNamespace(**vars(seen), result=result, weights=weights, out=Path(run.out))


def with_optim(**changes):
    return {"optim": replace(OPTIM, **changes)}


def with_augmentation(**changes):
    return {"augmentation": replace(PLAIN, **changes)}
