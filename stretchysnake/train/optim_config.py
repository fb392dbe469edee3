"""The optimiser's settings as a value, and the rule for its learning rate. Imports no torch, as run.py."""

from dataclasses import dataclass


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
    layer_decay: float = 1.0
    """Learning rate of each block as a share of the next one's, head at 1 (BEiT, A.3; VideoMamba fine-tunes at 0.8)."""

    def __post_init__(self):
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"layer_decay ({self.layer_decay}) must be more than 0 and at most 1 (1 turns it off)"
            )
        if self.lr <= 0 or self.weight_decay < 0 or self.clip_norm < 0:
            raise ValueError(
                f"lr ({self.lr}) must be positive, weight_decay ({self.weight_decay}) and "
                f"clip_norm ({self.clip_norm}) at least 0"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas} must each be at least 0 and less than 1")
        if not 0 <= self.warmup < 1:
            raise ValueError(
                f"warmup ({self.warmup}) must be at least 0 and less than 1 (a fraction)"
            )


def lr_for(num_clips: int, *, per_256: float) -> float:
    """The learning rate of steps of num_clips clips, where `per_256` is that for 256 (VideoMamba's own rule).

    Its script multiplies the rate by the clips of a step over all GPUs, each video counted as often as it is drawn
    into the step (`num_sample`), and divides by 256 (video_sm/run_class_finetuning.py).

    >>> lr_for(128, per_256=1e-3)
    0.0005
    """
    return per_256 * num_clips / 256
