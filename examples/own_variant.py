"""A sixth way of training: short clips are small, long clips are large. One function is all it takes.

python examples/own_variant.py clips/ runs/growing 1000
"""

import random
import sys

from stretchysnake.flexibility import VARIANTS, Scale, ScaleSets, Variant, scale_at
from stretchysnake.train.loop import train
from stretchysnake.train.run import TrainRun


def growing(rng: random.Random, sets: ScaleSets) -> Scale:
    """T is drawn; S is the value at the same place of its set, among those that the native patch divides."""
    patch = sets.native.patch_size
    sizes = [size for size in sorted(sets.sizes) if size % patch == 0]
    place = rng.randrange(len(sets.frames))
    return Scale(sorted(sets.frames)[place], sizes[min(place, len(sizes) - 1)], patch)


def main(data: str, out: str, steps: str) -> None:
    VARIANTS["growing"] = Variant(name="growing", draw=growing)
    run = TrainRun(data=data, out=out, variant="growing", steps=int(steps), batch_size=4)
    for step in range(3):
        print(f"step {step}:", scale_at(run.bound_variant, seed=run.seed, step=step))
    result = train(run)
    print(f"loss {result.final_loss:.3f}: {result.weights}")


if __name__ == "__main__":
    main(*sys.argv[1:])
