"""The classes of a data set: the labels that occur, numbered without gaps for a classifier's outputs.

A label is a name, also where it is a number: a list with the labels 5 and 705 has two classes, called 5 and 705.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stretchysnake.data.records import VideoRecord


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Records whose labels are places among `names`."""

    records: list[VideoRecord]
    names: list[str]
    notes: list[str] = field(default_factory=list)
    """What a person should know of the labels before the work begins: gaps, and clips with two of them."""


def number_classes(records: Sequence[VideoRecord], *, num_classes: int = 0) -> Classes:
    """The records with labels 0 to K - 1 in ascending order of the labels that occur, and the names of these K classes.

    With `num_classes` (the outputs of a head that is there, or asked for) labels below it keep their number, whichever
    of them occur: class k is output k, as in the public data sets' lists. ValueError for labels beyond.
    """
    called: dict[int, str] = {}
    for record in records:
        called.setdefault(record.label, record.class_name or str(record.label))
    labels = sorted(called)
    if num_classes:
        if labels[-1] >= num_classes:
            raise ValueError(
                f"model.num_classes ({num_classes}) must cover the data's labels 0..{labels[-1]}; use "
                f"{labels[-1] + 1}, or 0 for as many classes as labels occur ({len(labels)})"
            )
        return Classes(
            records=list(records), names=[called.get(k, str(k)) for k in range(num_classes)]
        )
    names = [called[label] for label in labels]
    if labels[-1] == len(labels) - 1:
        return Classes(records=list(records), names=names)
    places = {label: place for place, label in enumerate(labels)}
    numbered = [
        replace(r, label=places[r.label], class_name=r.class_name or str(r.label)) for r in records
    ]
    note = f"labels {labels[0]} to {labels[-1]} are {len(labels)} classes, those that occur, numbered in this order"
    return Classes(records=numbered, names=names, notes=[note])


def contradictions(records: Sequence[VideoRecord]) -> list[str]:
    """A line when clips are listed under two labels; told by their paths alone, `data check` looks at the files."""
    called: dict[tuple, dict[int, str]] = {}
    for record in records:
        clip = (record.path, record.start, record.end)
        called.setdefault(clip, {})[record.label] = record.class_name or str(record.label)
    twice = [(clip[0], names) for clip, names in called.items() if len(names) > 1]
    if not twice:
        return []
    path, names = twice[0]
    return [
        f"{len(twice)} {'clip is' if len(twice) == 1 else 'clips are'} listed with different labels, first {path} "
        f"({', '.join(names.values())}); stretchysnake data check names the lines"
    ]
