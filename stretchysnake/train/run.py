"""TrainRun: one complete training run as a value, with nothing left to defaults elsewhere.

Imports no torch, so that `stretchysnake train --help` stays quick.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field

from stretchysnake.flexibility import NANO, ScaleSets, variant_named
from stretchysnake.models.config import VideoMambaConfig


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay to zero; paper §4.1: AdamW, 1e-3, 0.05, 5 warm-up epochs."""

    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.1
    """Fraction of the steps over which the learning rate rises from 0."""
    clip_norm: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""

    def __post_init__(self):
        if self.lr <= 0 or self.weight_decay < 0 or self.clip_norm < 0:
            raise ValueError(
                f"lr ({self.lr}) must be positive, weight_decay ({self.weight_decay}) and "
                f"clip_norm ({self.clip_norm}) at least 0"
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(
                f"warmup ({self.warmup}) must be at least 0 and less than 1 (a fraction)"
            )


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """Everything that decides the weights a run ends with; `model.num_classes` 0 means: as many as the data."""

    data: str
    """A list file (CSV, TSV, space-separated, JSONL) or a folder with one sub-folder per class."""
    out: str
    """Folder for weights.safetensors, run.json and loss.jsonl."""
    variant: str = "static_tokens"
    sets: ScaleSets = NANO
    model: VideoMambaConfig = field(
        default_factory=lambda: VideoMambaConfig.named("nano", num_classes=0)
    )
    optim: OptimConfig = field(default_factory=OptimConfig)
    steps: int = 1200
    batch_size: int = 32
    token_budget: int | None = None
    """Tokens per batch; the batch size then follows the scale, so that memory stays flat."""
    label_smoothing: float = 0.0
    precision: str = "fp32"
    """"fp32", or "bf16" for autocast with fp32 parameters and fp32 scan state."""
    seed: int = 0
    cache: str | None = None
    """Folder of the frame cache (videos are decoded once); null decodes every clip every time."""
    cache_frames: int = 16
    cache_size: int = 64
    on_error: str = "replace"
    """A video that turns out bad while training: "replace" by another of its class, "skip" the clip, or "stop"."""
    num_workers: int = 2
    """Processes that decode, where there is no cache or it has to be made; 0 decodes in the training process."""

    def __post_init__(self):
        variant_named(self.variant)
        for name in ("steps", "batch_size", "cache_frames", "cache_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f'precision ({self.precision!r}) must be "fp32" or "bf16"')
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing ({self.label_smoothing}) must be at least 0 and less than 1"
            )
        if self.on_error not in ("replace", "skip", "stop"):
            raise ValueError(f"on_error ({self.on_error!r}) must be one of: replace, skip, stop")
        if self.num_workers < 0:
            raise ValueError(f"num_workers ({self.num_workers}) must be at least 0")
        native = self.sets.native
        if (native.size, native.patch_size) != (self.model.image_size, self.model.patch_size):
            raise ValueError(
                f"sets.native ({native.size} px, patch {native.patch_size}) must equal the model's "
                f"image_size ({self.model.image_size}) and patch_size ({self.model.patch_size})"
            )

    @property
    def bound_variant(self):
        """The variant drawing from this run's values."""
        return variant_named(self.variant).using(self.sets)

    def digest(self) -> str:
        """A hash of everything but where the output goes: two runs with equal digests give equal weights."""
        without = {"out", "cache", "num_workers"}
        if self.on_error == "replace":  # the default changes nothing where no file is bad
            without.add("on_error")
        values = {key: value for key, value in asdict(self).items() if key not in without}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
