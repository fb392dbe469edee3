"""What training may do to clips, as a value. Imports no torch, so that `stretchysnake train --help` stays quick."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training may do to a clip (one draw per clip) and to a batch of them (one draw per batch)."""

    jitter: bool = True
    """One random frame of each segment instead of its centre."""
    crop_scale: tuple[float, float] = (0.6, 1.0)
    """Share of the picture's area that a random crop keeps, as far as crop_ratio lets it; (1, 1) crops nothing: the
    whole picture, as at test."""
    crop_ratio: tuple[float, float] = (0.8, 1.25)
    """Width over height of a crop in pixels: a wider picture is never kept whole in training. With fit keep, over the
    picture's own: (1, 1) then has its shape."""
    flip: bool = False
    """Mirror half of the clips; wrong wherever left and right are part of the label (SSV2, MotionDigits fine)."""
    rand_augment: tuple[int, int] | None = None
    """(operations, magnitude 0..30) of RandAugment; null leaves it out. (2, 9) is common."""
    erase: float = 0.0
    """Probability of noise in a random rectangle; 0.25 is common."""
    mixup: float = 0.0
    """Alpha of mixup's Beta(alpha, alpha); 0 leaves it out, 0.8 is common. Beside `cutmix`, either by chance."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 leaves it out, 1.0 is common."""

    def __post_init__(self):
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"crop_scale ({low}, {high}) must be two shares of the area, 0 < low <= high <= 1"
            )
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(
                f"crop_ratio {self.crop_ratio} must be two positive ratios, low <= high"
            )
        if self.rand_augment is not None:
            num_ops, magnitude = self.rand_augment
            if num_ops < 0 or not 0 <= magnitude <= 30:
                raise ValueError(
                    f"rand_augment ({num_ops}, {magnitude}) must be at least 0 operations "
                    "and a magnitude between 0 and 30, or null"
                )
        if not 0 <= self.erase <= 1:
            raise ValueError(f"erase ({self.erase}) must be between 0 and 1 (a probability)")
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 0 (0 is off)")

    @property
    def crops(self) -> bool:
        """Whether a part of the picture is drawn; else all of it is squashed to the clip's square."""
        return tuple(self.crop_scale) != (1, 1)

    @property
    def mixes(self) -> bool:
        """Whether clips of a batch are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0

    @classmethod
    def from_dict(cls, values: dict) -> Augmentation:
        """The augmentation that `dataclasses.asdict` and JSON made these values from."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
