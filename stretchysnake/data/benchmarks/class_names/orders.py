"""The names of a classifier's outputs, in order: the lists that come with the package, and a user's own.

An order belongs to the lists that a classifier was trained with, not to its data set: Kinetics has no official index,
and two orders of its 400 names are in use. So a list is never chosen by the number of outputs alone.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from stretchysnake.data.lists import LIST_EXTENSIONS, read_text
from stretchysnake.data.records import read_records

ORDERS = {
    "kinetics400": "alphabetical, as mmaction's and torchvision's label maps",
    "kinetics400-opengvlab": "UniFormer's kinetics_400_categroies.txt, the same in VideoMamba's own demonstration",
    "ssv2": "the official labels.json, which is alphabetical",
    "breakfast": "alphabetical",
    "breakfast-vis4mer": "ViS4mer's class_id, whose lists VideoMamba follows",
    "imagenet1k": "by WordNet number, as torchvision's category names",
}
"""Name of a list in this folder -> whose order it is."""

_PUBLISHED = (
    (r"videomamba_[tsm](16)?_k400_(?!mask_pt)", "kinetics400-opengvlab"),
    (r"videomamba_[tsm](16)?_ssv2_(?!mask_pt)", "ssv2"),
    (r"videomamba_[tsm](16)?_breakfast_", "breakfast-vis4mer"),
    (r"videomamba_[tsmb](16)?_in1k(_|$)", "imagenet1k"),
    (r"uniformer_(small|base)_k400_", "kinetics400-opengvlab"),
    (r"k400_(k710_)?uniformerv2_", "kinetics400-opengvlab"),
    (r"(mvit_v1_b|mvit_v2_s|swin3d_[tsb])[_.]", "kinetics400"),
    (r"swin_(tiny|small|base)_patch244_window877_kinetics400_", "kinetics400"),
)
"""How published files are called -> the order of their classes; sources in docs/datasets.md. COIN's files are not
here: the order is that of `recipe_type`, and its official list of names could not be read."""


class ClassNames(NamedTuple):
    """Names of outputs, in order, and where they are from, in words."""

    names: list[str]
    source: str


@cache
def names_in_order(order: str) -> tuple[str, ...]:
    """The list of this name; ValueError lists the known ones."""
    if order not in ORDERS:
        near = difflib.get_close_matches(order, ORDERS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"classes ({order}) must be a file, or one of: {', '.join(ORDERS)}{hint}")
    return tuple(Path(__file__).with_name(f"{order}.txt").read_text("utf-8").splitlines())


def order_of_published(names: Iterable[str], num_outputs: int) -> str | None:
    """The order of a published classifier, by what its file or its source is called; None where that says nothing."""
    for name in names:
        plain = Path(name).name.lower().replace("-", "_")
        for pattern, order in _PUBLISHED:
            if re.match(pattern, plain) and len(names_in_order(order)) == num_outputs:
                return order
    return None


def given_names(given: str | os.PathLike, num_outputs: int) -> ClassNames:
    """The names that a user gives for a head of `num_outputs`: a file, or the name of a list of the package.

    A file holds one name a line, or JSON ([name, ...], {"0": name} or {name: "0"}, as Something-Something's
    labels.json), or is a list of videos with label and class_name, as `data list` writes it. ValueError where it gives
    another number of names, or one of them twice.
    """
    path = Path(os.path.expanduser(os.fspath(given)))
    if not path.exists():
        found = ClassNames(list(names_in_order(os.fspath(given))), ORDERS[os.fspath(given)])
    elif path.suffix.lower() == ".json":
        found = ClassNames(_of_json(path), str(path))
    elif path.suffix.lower() in LIST_EXTENSIONS and path.suffix.lower() != ".txt":
        found = ClassNames(_of_records(path, num_outputs), str(path))
    else:
        lines = [line.strip() for line in read_text(path).splitlines()]
        found = ClassNames([line for line in lines if line], str(path))
    if len(found.names) != num_outputs:
        raise ValueError(
            f"classes ({given}) gives {len(found.names)} names, and the weights have {num_outputs} outputs; give one "
            "name for each output, in order"
        )
    if twice := sorted({name for name in found.names if found.names.count(name) > 1}):
        raise ValueError(f"classes ({given}) gives {twice[0]!r} twice; an output must have a name")
    return found


def _of_json(path: Path) -> list[str]:
    """Names in order of a list, of {number: name} or of {name: number}."""
    expected = 'a list of names, {"0": "name", ...} or {"name": "0", ...}; write it so'
    try:
        values = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"classes ({path}) is no JSON ({error}), expected {expected}") from None
    if isinstance(values, list) and all(isinstance(name, str) for name in values):
        return values
    pairs = list(values.items()) if isinstance(values, dict) else []
    if pairs and all(key.isdecimal() for key, _ in pairs):
        pairs = [(name, key) for key, name in pairs]
    by_number = {str(number): name for name, number in pairs}
    missing = [number for number in range(max(1, len(pairs))) if str(number) not in by_number]
    if missing:
        raise ValueError(f"classes ({path}) gives no name of {missing[0]}, expected {expected}")
    return [by_number[str(number)] for number in range(len(pairs))]


def _of_records(path: Path, num_outputs: int) -> list[str]:
    called = {record.label: record.class_name for record in read_records(path)}
    missing = [number for number in range(num_outputs) if not called.get(number)]
    if missing:
        raise ValueError(
            f"classes ({path}) names no class of label {missing[0]} ({len(missing)} of {num_outputs} are missing); "
            "give a list of all classes with the columns label and class_name"
        )
    return [called[label] for label in sorted(called)]
