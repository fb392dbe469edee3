"""Kinetics-400 and Kinetics-700 (2019 or 2020): YouTube clips of ten seconds.

For Kinetics-700 the paper (A.4) uses 'only classes absent from K400'. It does not say how they are told apart; we
compare the exact names because no rule is given (322 classes); `classes="novel_renamed"` also knows renamings (312).
"""

import csv
import io
import os
import re
from collections.abc import Set
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stretchysnake.data.benchmarks.benchmark import Benchmark
from stretchysnake.data.benchmarks.class_names.orders import names_in_order
from stretchysnake.data.benchmarks.tree import Tree, integer
from stretchysnake.data.lists import read_text
from stretchysnake.data.records import VideoRecord

FILE_NAMES = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}
FOLDERS = {
    "kinetics400": ("kinetics400", "k400", "400"),
    "kinetics700": ("kinetics700", "kinetics700_2020", "k700-2020", "700_2020", "k700"),
}
"""Names of the folder of each, in DeepMind's archives and CVDF's, which may stand side by side."""
CLASS_CHOICES = ("novel", "novel_renamed", "all")
SHARED_CHOICES = ("drop", "keep")
RENAMED = {
    "balloon blowing": "inflating balloons",
    "changing wheel": "changing wheel (not on bike)",
    "cooking sausages": "cooking sausages (not on barbeque)",
    "dying hair": "dyeing hair",
    "garbage collecting": "person collecting garbage",
    "hugging": "hugging (not baby)",
    "making bed": "making the bed",
    "opening bottle": "opening bottle (not wine)",
    "throwing ball": "throwing ball (not baseball or American football)",
    "tying tie": "tying necktie",
}
"""Kinetics-400's names of classes that Kinetics-700 calls otherwise."""

_TRIMMED = re.compile(r"(.+)_(\d{1,9})_(\d{1,9})")


class Clip(NamedTuple):
    line: int
    label: str
    """Empty where the labels are held out."""
    youtube_id: str
    start: str
    end: str


class Annotations(NamedTuple):
    path: Path
    clips: list[Clip]


def kinetics400_classes() -> tuple[str, ...]:
    """The 400 official names, in alphabetical order."""
    return names_in_order("kinetics400")


def read_kinetics400(tree: Tree, subset: str, split: int) -> list[VideoRecord]:
    """Labels are the names in alphabetical order; there is no official index."""
    annotations = _annotations(tree)
    names = _names(annotations)
    if len(names) > 400:
        folder = next(iter(annotations.values())).path.parent
        raise ValueError(f"kinetics400: {folder} lists {len(names)} classes, expected at most 400")
    return _records(tree, subset, annotations, names)


def read_kinetics700(
    tree: Tree,
    subset: str,
    split: int,
    *,
    classes: str = "novel",
    shared: str = "drop",
    kinetics400: str | os.PathLike | None = None,
) -> list[VideoRecord]:
    """The classes absent from Kinetics-400, numbered alphabetically among themselves; `classes="all"` for all 700.

    `shared="drop"` leaves out the videos whose YouTube id Kinetics-400 lists too (its validation set is largely inside
    Kinetics-700's training set): `kinetics400` is the folder of its annotations. `classes="all"` drops nothing.
    """
    for name, choice, choices in (
        ("classes", classes, CLASS_CHOICES),
        ("shared", shared, SHARED_CHOICES),
    ):
        if choice not in choices:
            raise ValueError(
                f"kinetics700 {name} ({choice!r}) must be one of: {', '.join(choices)}"
            )
    annotations = _annotations(tree)
    names = _names(annotations)
    if classes == "all":
        return _records(tree, subset, annotations, names)
    names_400, listed = set(kinetics400_classes()), set()
    if kinetics400 is not None:
        other = Tree(kinetics400, name="kinetics400", lists_from=KINETICS400.lists_from)
        others = _annotations(other)
        if not others:
            other.official("annotations/train.csv")
        names_400 |= _names(others)
        listed = {clip.youtube_id for other_list in others.values() for clip in other_list.clips}
    elif shared == "drop":
        raise ValueError(
            "kinetics700 shared ('drop') leaves out the videos that Kinetics-400 lists too and needs its annotations: "
            "give their folder as kinetics400 (--kinetics400 FOLDER), or shared 'keep'"
        )
    if classes == "novel_renamed":
        names_400 |= {RENAMED[name] for name in names_400 & set(RENAMED)}
    if annotations and not names - names_400:
        raise ValueError(
            f"kinetics700: none of the {len(names)} classes is absent from Kinetics-400; check that kinetics400 "
            f"({kinetics400}) holds its annotations and {tree.annotations} those of Kinetics-700"
        )
    return _records(
        tree, subset, annotations, names - names_400, drop=listed if shared == "drop" else set()
    )


def _annotations(tree: Tree) -> dict[str, Annotations]:
    """By subset, the csv files that are there."""
    by_subset = {}
    for subset, stems in FILE_NAMES.items():
        folders = [f"{name}/{sub}" for name in FOLDERS[tree.name] for sub in ("annotations/", "")]
        starts = (*folders, "annotations/", "", "kinetics_")
        path = tree.find(*(f"{start}{stem}.csv" for start in starts for stem in stems))
        if path is not None:
            by_subset[subset] = Annotations(path, list(_clips(path)))
    return by_subset


def _clips(path: Path):
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        header = [cell.strip() for cell in next(reader, [])]
        columns = ("youtube_id", "time_start", "time_end")
        if missing := [column for column in columns if column not in header]:
            expected = f"expected label,{','.join(columns)},split; get the official file again"
            raise ValueError(
                f"{path} line 1: found no column {missing[0]} in {','.join(header)[:60]!r}, {expected}"
            )
        places = [header.index(column) for column in columns]
        label = header.index("label") if "label" in header else None
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) < max(*places, label or 0) + 1:
                expected = (
                    f"found {len(cells)} cells, expected {len(header)}; get the official file again"
                )
                raise ValueError(f"{path} line {reader.line_num}: {expected}")
            name = "" if label is None else cells[label].strip()
            yield Clip(reader.line_num, name, *(cells[place].strip() for place in places))
    except csv.Error as error:
        raise ValueError(f"{path} line {reader.line_num}: {error}; get the file again") from None


def _names(annotations: dict[str, Annotations]) -> set[str]:
    return {clip.label for listed in annotations.values() for clip in listed.clips} - {""}


def _key(path: PurePosixPath) -> tuple[str, int | None]:
    """(YouTube id, start), from `<id>_<start>_<end>`; (id, None) from a file named by the id alone."""
    trimmed = _TRIMMED.fullmatch(path.stem)
    # an id has 11 characters, and may look like the rest
    if trimmed is None or len(path.stem) == 11:
        return path.stem, None
    return trimmed[1], int(trimmed[2])


def _records(
    tree: Tree,
    subset: str,
    annotations: dict[str, Annotations],
    names: set[str],
    drop: Set[str] = frozenset(),
) -> list[VideoRecord]:
    if subset not in annotations:
        tree.official(f"annotations/{FILE_NAMES[subset][0]}.csv")
    path, clips = annotations[subset]
    if not any(clip.label for clip in clips):
        raise ValueError(f"{path}: holds no labels (they are held out); use subset='val'")
    labels = {name: label for label, name in enumerate(sorted(names))}
    index = tree.index(_key)
    records = []
    num_shared = 0
    for clip in clips:
        place = f"{path} line {clip.line}"
        if not clip.label or not clip.youtube_id:
            column = "youtube_id" if clip.label else "label"
            raise ValueError(f"{place} ({column}): found nothing, expected one; get the file again")
        if clip.label not in labels:
            continue
        if clip.youtube_id in drop:
            num_shared += 1
            continue
        times = [
            integer(text.partition(".")[0], f"{place} ({column})")
            for text, column in ((clip.start, "time_start"), (clip.end, "time_end"))
        ]
        key = (clip.youtube_id, times[0])
        key = key if key in index else (clip.youtube_id, None)
        name = f"{clip.youtube_id}_{times[0]:06d}_{times[1]:06d}.mp4"
        video = tree.locate(index, key, f"{subset}/{name}")
        records.append(VideoRecord(video, labels[clip.label], clip.label, clip.youtube_id, subset))
    if drop:
        tree.notes.append(
            f"{subset}: {num_shared} videos left out, Kinetics-400 lists their YouTube ids too"
        )
    return records


_CVDF = "https://github.com/cvdfoundation/kinetics-dataset"

KINETICS400 = Benchmark(
    name="kinetics400",
    read=read_kinetics400,
    subsets=("train", "val", "test"),
    queries="val",
    lists_from=f"{_CVDF} (annotations/train.csv, val.csv, test.csv)",
    videos_from=f"{_CVDF} (with replacement_for_corrupted_k400.tgz)",
    licence="CC BY 4.0 (annotations); the videos belong to their uploaders",
    note="copies differ: videos vanish from YouTube, so say how many were there",
)

KINETICS700 = Benchmark(
    name="kinetics700",
    read=read_kinetics700,
    subsets=("train", "val", "test"),
    queries="val",
    lists_from=f"{_CVDF} (700_2020/annotations/train.csv, val.csv, test.csv)",
    videos_from=f"{_CVDF} (the 2020 release; the paper cites the 2019 note)",
    licence="CC BY 4.0 (annotations); the videos belong to their uploaders",
    note="by default only the classes absent from Kinetics-400, without the videos it lists too",
)
