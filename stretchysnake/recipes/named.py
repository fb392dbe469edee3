"""The names by which `stretchysnake train NAME` finds a recipe."""

import difflib
from collections.abc import Callable
from functools import partial

from stretchysnake.flexibility import VARIANTS
from stretchysnake.recipes.pretrain import pretrain, pretrain_official
from stretchysnake.recipes.transfer import DATASETS, finetune, linear_probe
from stretchysnake.train.run import TrainRun

RECIPES: dict[str, Callable[[], TrainRun]] = {
    **{f"pretrain_{variant}": partial(pretrain, variant) for variant in VARIANTS},
    "pretrain_official": pretrain_official,
    **{f"finetune_{dataset}": partial(finetune, dataset) for dataset in DATASETS},
    **{f"linear_probe_{dataset}": partial(linear_probe, dataset) for dataset in DATASETS},
}


def recipe_named(name: str) -> TrainRun:
    """The complete run of that name; an unknown name is a ValueError with the nearest known ones."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"recipes: {', '.join(RECIPES)}"
        raise ValueError(f"recipe ({name}) is not known; {hint}")
    return RECIPES[name]()
