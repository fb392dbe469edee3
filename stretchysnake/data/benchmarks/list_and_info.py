"""What `stretchysnake data info` and `data list` are asked, and what they do."""

import os
from dataclasses import dataclass

from stretchysnake.data.benchmarks.info import benchmark_info
from stretchysnake.data.benchmarks.load import load_benchmark
from stretchysnake.data.records import write_records

OPTIONS = ("annotations", "task", "classes", "shared", "kinetics400")


@dataclass(frozen=True, kw_only=True)
class DataListRun:
    """Write one subset of a public benchmark as a CSV list, which every verb reads. Missing videos are kept in it."""

    out: str
    """The list; paths in it are absolute."""
    subset: str = "train"
    """train, test or val; the queries are in val for ssv2 and Kinetics, else in test."""
    split: int | str = 1
    """ucf101, hmdb51: 1 to 3; breakfast: 1 (Timeception's), s1 to s4."""
    annotations: str | None = None
    """Folder of the official lists; null means they are under ROOT."""
    task: str | None = None
    """lvu: relationship, way_speaking, scene, director, genre, writer or year."""
    classes: str | None = None
    """kinetics700: novel (default, absent from Kinetics-400 by exact name), novel_renamed or all."""
    shared: str | None = None
    """kinetics700: drop (default) or keep the YouTube ids that Kinetics-400 lists too."""
    kinetics400: str | None = None
    """kinetics700: folder of the Kinetics-400 annotations."""


@dataclass(frozen=True, kw_only=True)
class DataInfoRun:
    """Compare the official lists of a public benchmark with the videos on disk.

    Exit code 0: every listed video is there, once, and in one subset. 1: something is missing or doubled. 2: an error.
    """

    per_class: bool = False
    """Print the number of videos of every class."""
    missing: str | None = None
    """Write the paths of all missing videos to this file, one a line."""
    split: int | str = 1
    """ucf101, hmdb51: 1 to 3; breakfast: 1 (Timeception's), s1 to s4."""
    annotations: str | None = None
    """Folder of the official lists; null means they are under ROOT."""
    task: str | None = None
    """lvu: relationship, way_speaking, scene, director, genre, writer or year."""
    classes: str | None = None
    """kinetics700: novel (default, absent from Kinetics-400 by exact name), novel_renamed or all."""
    shared: str | None = None
    """kinetics700: drop (default) or keep the YouTube ids that Kinetics-400 lists too."""
    kinetics400: str | None = None
    """kinetics700: folder of the Kinetics-400 annotations."""


def data_info(run: DataInfoRun, name: str, root: str) -> tuple[int, list[str]]:
    """The exit code and the lines to print."""
    info = benchmark_info(name, os.path.abspath(root), run.split, **_options(run))
    if run.missing is not None:
        missing = [path for subset in info.subsets.values() for path in subset.missing]
        with open(run.missing, "wb") as file:
            file.writelines(os.fsencode(path) + b"\n" for path in missing)
    return 0 if info.is_complete else 1, list(info.lines(per_class=run.per_class))


def data_list(run: DataListRun, name: str, root: str) -> tuple[int, list[str]]:
    """Write the list; the exit code and the lines to print."""
    root = os.path.abspath(root)  # a relative path would count from the list's folder
    records = load_benchmark(name, root, run.subset, run.split, **_options(run))
    write_records(run.out, records)
    missing = sum(not os.path.exists(record.path) for record in records)
    there = f"{missing} of them not on disk" if missing else "all on disk"
    return 0, [f"{len(records)} videos of {name} {run.subset}, {there}: {run.out}"]


def _options(run: DataListRun | DataInfoRun) -> dict[str, str]:
    return {name: getattr(run, name) for name in OPTIONS if getattr(run, name) is not None}
