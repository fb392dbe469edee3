"""The scale of a training step, or its scales: pure functions of variant, seed and step."""

import math
import random
from collections.abc import Sequence
from functools import lru_cache

from stretchysnake.flexibility.scales import Scale
from stretchysnake.flexibility.variants import Variant, variant_named


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
    shuffled deck: in every step the values come equally often, to one, and exactly so in n steps from a multiple of n
    on. `draw="independent"` draws every group anew, as in effect do sets that depend on what was drawn before
    (flex-all's patches of a size), however drawn.

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
        draws = (_Dealer(seed, step, groups, g) for g in range(groups))
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
    """The card of one group of a step, in an endless row of shuffled decks for each set."""

    def __init__(self, seed: int, step: int, groups: int, group: int):
        self.seed, self.groups, self.place, self.sets = seed, groups, step * groups + group, 0

    def choice(self, values: Sequence):
        self.sets += 1
        key = f"{self.seed}/deck/{self.sets}/{list(values)}"
        length = math.lcm(len(values), self.groups)
        cycle, card = divmod(self.place, length)
        return values[_cycle(key, len(values), self.groups, cycle)[card]]


@lru_cache(maxsize=64)
def _cycle(key: str, count: int, groups: int, cycle: int) -> tuple[int, ...]:
    """Numbers below `count` for the whole steps of `groups` that the fewest whole decks fill.

    A deck that begins inside a step gives it those cards first that the step has least of.
    """
    length = math.lcm(count, groups)
    row: list[int] = []
    while len(row) < length:
        order = list(range(count))
        random.Random(f"{key}/{(cycle * length + len(row)) // count}").shuffle(order)
        had = len(row) % groups
        step = row[len(row) - had :]
        first = sorted(order, key=step.count)[: groups - had]
        row += first + [card for card in order if card not in first]
    return tuple(row)


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
