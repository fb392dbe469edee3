"""Scales, and the sets of values that they are drawn from (paper §3.3)."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Scale:
    """The scale of one batch: frames per clip, pixels per side of a (square) frame, pixels per patch."""

    num_frames: int
    size: int
    patch_size: int

    def __post_init__(self):
        for name in ("num_frames", "size", "patch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} ({value!r}) must be a positive integer")
        if self.patch_size > self.size:
            raise ValueError(
                f"patch_size ({self.patch_size}) must not exceed size ({self.size}); "
                f"use a patch_size up to {self.size}"
            )

    @property
    def grid(self) -> int:
        """Patches per side of a frame (the floor of size / patch_size)."""
        return self.size // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Patch tokens of one clip, without [CLS]."""
        return self.num_frames * self.grid**2


@dataclass(frozen=True, kw_only=True)
class ScaleSets:
    """The values a variant draws from; the defaults are the paper's (§3.3)."""

    native: Scale = Scale(num_frames=16, size=224, patch_size=16)
    """Where the stored weights live; what vanilla always trains at."""
    sizes: tuple[int, ...] = (96, 128, 224, 384)
    """R^s, pixels per side."""
    frames: tuple[int, ...] = (8, 16, 32, 64)
    """R^t, frames per clip."""
    flexivit_size: int = 240
    flexivit_patches: tuple[int, ...] = (8, 10, 12, 15, 16, 20, 24, 30, 40, 48)
    flex_all_patches: tuple[int, int] = (12, 48)
    """Smallest and largest patch of flex-all; only patches dividing the size are drawn."""
    grid: str = "fit"
    """Static tokens when S is no multiple of the native grid (14): "fit" resizes frames to 14·P pixels,
    so that the token count is exactly the native one; "floor" keeps S and leaves S mod P pixels unused,
    so that E_pos is flexed to the smaller grid."""

    @classmethod
    def from_dict(cls, values: dict) -> "ScaleSets":
        """The sets that `dataclasses.asdict` and JSON made these values from."""
        return cls(**{**values, "native": Scale(**values["native"])})

    def __post_init__(self):
        for name in ("sizes", "frames", "flexivit_patches", "flex_all_patches"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.grid not in ("fit", "floor"):
            raise ValueError(f'grid ({self.grid!r}) must be "fit" or "floor"')
        if not self.sizes or not self.frames or not self.flexivit_patches:
            raise ValueError("sizes, frames and flexivit_patches must each hold at least one value")
        if self.native.size % self.native.patch_size:
            raise ValueError(
                f"native size ({self.native.size}) must be a multiple of the native patch_size "
                f"({self.native.patch_size})"
            )
        low, high = self.flex_all_patches
        for size in self.sizes:
            if not any(size % patch == 0 for patch in range(low, min(high, size) + 1)):
                raise ValueError(
                    f"sizes ({size}) must have a divisor within flex_all_patches ({low}..{high}); "
                    "widen flex_all_patches or choose another size"
                )


PAPER = ScaleSets()
NANO = ScaleSets(
    native=Scale(num_frames=8, size=32, patch_size=8),
    sizes=(16, 24, 32, 56),
    frames=(4, 8, 16),
    flexivit_size=48,
    flexivit_patches=(4, 6, 8, 12, 16),
    flex_all_patches=(4, 16),
)
"""The built-in benchmark's values: the paper's ratios to the native scale, shrunk to 32 px and 8 frames."""


def sets_around(native: Scale) -> ScaleSets:
    """The paper's sets, or the built-in benchmark's for small frames, moved to another native scale.

    Sizes and frames keep their ratios to the native ones, patches theirs to the native patch; PAPER and NANO
    themselves come back for their own native scales.
    """
    model = PAPER if native.size > 64 else NANO
    if native == model.native:
        return model

    def moved(values: tuple[int, ...], before: int, after: int) -> tuple[int, ...]:
        return tuple(dict.fromkeys(max(1, round(value * after / before)) for value in values))

    side, patch = (model.native.size, native.size), (model.native.patch_size, native.patch_size)
    return replace(
        model,
        native=native,
        sizes=moved(model.sizes, *side),
        frames=moved(model.frames, model.native.num_frames, native.num_frames),
        flexivit_size=moved((model.flexivit_size,), *side)[0],
        flexivit_patches=moved(model.flexivit_patches, *patch),
        flex_all_patches=(
            moved(model.flex_all_patches[:1], *patch)[0],
            moved(model.flex_all_patches[1:], *patch)[0],
        ),
    )
