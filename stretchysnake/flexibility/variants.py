"""Vanilla and the paper's five ways of flexing (§3.3): which scales each draws in training, and is tested at."""

import difflib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from stretchysnake.flexibility.scales import PAPER, Scale, ScaleSets


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
