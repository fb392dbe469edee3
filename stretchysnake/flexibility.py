"""Which scale a batch has: the paper's five ways of flexing a video model, and vanilla (paper §3.3).

A Scale is (T frames, S pixels, P patch size). A variant draws one Scale per training batch; the draw
depends on (seed, step) alone, so every rank agrees without talking, a resumed run repeats it, and any
step can be redrawn in a test. To add a variant: write one function, add one entry to VARIANTS.

    >>> scale_at("static_tokens", seed=0, step=1)
    Scale(num_frames=64, size=224, patch_size=16)
    >>> eval_scale("static_tokens", num_frames=16, size=96)
    Scale(num_frames=16, size=98, patch_size=7)
"""

import difflib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache


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


def vanilla(rng: random.Random, sets: ScaleSets) -> Scale:
    """Fixed scale: ordinary training."""
    return sets.native


def temporal(rng: random.Random, sets: ScaleSets) -> Scale:
    """Only T changes (§3.3, item 1)."""
    return replace(sets.native, num_frames=rng.choice(sets.frames))


def static_patch(rng: random.Random, sets: ScaleSets) -> Scale:
    """T and S change, P stays, so the number of tokens follows S (item 2)."""
    return Scale(rng.choice(sets.frames), rng.choice(sets.sizes), sets.native.patch_size)


def static_tokens(rng: random.Random, sets: ScaleSets) -> Scale:
    """T and S change, and P with S, so that every frame keeps its number of tokens (item 3)."""
    return _static_tokens_scale(rng.choice(sets.frames), rng.choice(sets.sizes), sets)


def flexivit(rng: random.Random, sets: ScaleSets) -> Scale:
    """S is fixed at 240 px; T and P change (item 4, after Beyer et al. 2023)."""
    return Scale(rng.choice(sets.frames), sets.flexivit_size, rng.choice(sets.flexivit_patches))


def flex_all(rng: random.Random, sets: ScaleSets) -> Scale:
    """T, S and P all change; P divides S within 12..48 (item 5)."""
    num_frames, size = rng.choice(sets.frames), rng.choice(sets.sizes)
    low, high = sets.flex_all_patches
    return Scale(num_frames, size, rng.choice([p for p in range(low, high + 1) if size % p == 0]))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of training: a name, the function that draws its scales, and the values drawn from."""

    name: str
    draw: Callable[[random.Random, ScaleSets], Scale] = field(repr=False)
    sets: ScaleSets = PAPER

    def using(self, sets: ScaleSets) -> "Variant":
        """The same variant drawing from other values, e.g. NANO."""
        return replace(self, sets=sets)


VARIANTS: dict[str, Variant] = {
    draw.__name__: Variant(name=draw.__name__, draw=draw)
    for draw in (vanilla, temporal, static_patch, static_tokens, flexivit, flex_all)
}


def variant_named(variant: str | Variant) -> Variant:
    """The Variant of that name; a Variant is passed through. An unknown name lists the known ones."""
    if isinstance(variant, Variant):
        return variant
    if variant not in VARIANTS:
        near = difflib.get_close_matches(str(variant), VARIANTS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f"variant ({variant!r}) is not known{hint}; it must be one of: {', '.join(VARIANTS)}"
        )
    return VARIANTS[variant]


def scale_at(variant: str | Variant, *, seed: int, step: int) -> Scale:
    """The Scale of training step `step`: a pure function of (variant, seed, step).

    Paper does not say whether a scale is drawn per clip or per batch; we use one per batch because
    clips of one batch must share a tensor shape.
    """
    if step < 0:
        raise ValueError(f"step ({step}) must be at least 0")
    variant = variant_named(variant)
    return variant.draw(random.Random(f"{seed}/{step}"), variant.sets)


def scales_at(
    variant: str | Variant, *, seed: int, step: int, groups: int = 1, draw: str = "dealt"
) -> tuple[Scale, ...]:
    """The Scales of one training step whose clips are cut into `groups`: a pure function of its arguments.

    One group is the paper's, and `scale_at`. Of several, `draw="dealt"` takes a set's n values like cards, deck after
    shuffled deck: n steps from a multiple of n on, and a step of whole decks, hold each equally often; a step that
    spans two may hold one twice and lack another (docs/training.md). `draw="independent"` draws every group anew, as
    in effect do sets that depend on what was drawn before (flex-all's patches of a size), however drawn.

    >>> sorted(s.size for s in scales_at("static_tokens", seed=0, step=3, groups=4))
    [98, 126, 224, 378]
    """
    if draw not in DRAWS:
        raise ValueError(f"draw ({draw!r}) must be one of: {', '.join(DRAWS)}")
    if groups < 1:
        raise ValueError(f"groups ({groups}) must be at least 1")
    variant = variant_named(variant)
    if groups == 1:
        return (scale_at(variant, seed=seed, step=step),)
    possible = num_scales(variant)
    if groups > possible:
        raise ValueError(
            f"groups ({groups}) must not exceed the {possible} scales that {variant.name} draws from; "
            f"use at most {possible}"
        )
    if draw == "independent":
        draws = (
            random.Random(f"{seed}/{step}/{g}" if g else f"{seed}/{step}") for g in range(groups)
        )
    else:
        draws = (_Dealer(seed, step * groups + g) for g in range(groups))
    return tuple(variant.draw(one, variant.sets) for one in draws)


DRAWS = ("dealt", "independent")


@lru_cache(maxsize=64)
def num_scales(variant: str | Variant) -> int:
    """How many Scales a variant draws from, as often as it can draw them."""
    variant, scales, waiting = variant_named(variant), set(), [()]
    while waiting:
        chosen = _Chosen(waiting.pop())
        scales.add(variant.draw(chosen, variant.sets))
        waiting += chosen.others
    return len(scales)


class _Choices:
    """Stands in for random.Random, of which a variant whose scales are counted or dealt may use `choice` alone."""

    def __getattr__(self, name: str):
        raise ValueError(
            f"rng ({name}) must be asked for choice alone where a step has several scales, which are counted and "
            "dealt; draw with rng.choice from a sequence, such as range(4, 17), or take one scale a step"
        )


class _Dealer(_Choices):
    """The value at one place of an endless row of shuffled decks, a row for each set."""

    def __init__(self, seed: int, place: int):
        self.seed, self.place, self.sets = seed, place, 0

    def choice(self, values: Sequence):
        self.sets += 1
        deck, card = divmod(self.place, len(values))
        order = list(range(len(values)))
        random.Random(f"{self.seed}/deck/{self.sets}/{list(values)}/{deck}").shuffle(order)
        return values[order[card]]


class _Chosen(_Choices):
    """Takes the given choices, then the first ones; `others` are those left out."""

    def __init__(self, choices: tuple[int, ...]):
        self.choices, self.taken, self.others = choices, (), []

    def choice(self, values: Sequence):
        place = len(self.taken)
        if place < len(self.choices):
            number = self.choices[place]
        else:
            number = 0
            self.others += [(*self.taken, other) for other in range(1, len(values))]
        self.taken = (*self.taken, number)
        return values[number]


def eval_scale(
    variant: str | Variant,
    *,
    num_frames: int | None = None,
    size: int | None = None,
    patch_from: str | Variant | None = None,
) -> Scale:
    """The Scale at which a model of this variant is tested in the cell (T=num_frames, S=size); None is the native one.

    Static tokens is tested with the patch that keeps its token count (P = round(S/14) for the 224/16
    model); every other variant with the native patch. `patch_from="static_tokens"` gives any model the
    static-tokens patches (paper Table A2). Raises ValueError when the native patch does not divide S.
    """
    variant = variant_named(variant)
    native = variant.sets.native
    num_frames = native.num_frames if num_frames is None else num_frames
    size = native.size if size is None else size
    Scale(num_frames, size, patch_size=1)  # refuses what is not positive
    rule = variant if patch_from is None else variant_named(patch_from).using(variant.sets)
    if rule.name == "static_tokens":
        return _static_tokens_scale(num_frames, size, rule.sets)
    if size % native.patch_size:
        raise ValueError(size_message("size", size, native.patch_size))
    return Scale(num_frames, size, native.patch_size)


def size_message(name: str, size: int, patch_size: int) -> str:
    """The error text for a size that does not fit the patch, with the nearest sizes that do."""
    below = size // patch_size * patch_size
    near = f"{below}, {below + patch_size}" if below else f"{patch_size}"
    return f"{name} ({size}) must be a multiple of patch_size ({patch_size}); nearest: {near}"


def _static_tokens_scale(num_frames: int, size: int, sets: ScaleSets) -> Scale:
    grid = sets.native.grid
    patch = max(1, (2 * size + grid) // (2 * grid))  # round half up of size / grid
    # The paper says N is always 196, but a plain convolution gives 13x13 at 96, 192 and 288 px; we resize
    # frames to 14·P (98, 196, 294) because only that keeps its own rule (docs/reproduction.md).
    return Scale(num_frames, grid * patch if sets.grid == "fit" else size, patch)
