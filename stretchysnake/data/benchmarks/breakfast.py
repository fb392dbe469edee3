"""Breakfast: 52 participants prepare 10 dishes before up to five cameras; the label is the dish."""

import re
from pathlib import PurePosixPath

from stretchysnake.data.benchmarks.benchmark import Benchmark
from stretchysnake.data.benchmarks.tree import Tree
from stretchysnake.data.records import VideoRecord

DISHES = (
    *("cereals", "coffee", "friedegg", "juice", "milk"),
    *("pancake", "salat", "sandwich", "scrambledegg", "tea"),
)
"""Alphabetical, as in most lists; ViS4mer's has its own order. `salat` is the official spelling."""
PARTICIPANTS = range(3, 55)
TEST = {
    1: range(47, 55),  # Timeception's: the first 85 % of the participants train
    "s1": range(3, 16),
    "s2": range(16, 29),
    "s3": range(29, 42),
    "s4": range(42, 55),
}
"""The participants whose videos are the test subset. Paper does not say; we use 1 because its numbers fit 355 clips."""

_NAME = re.compile(r"(?:.*[/_-])?P(\d+)[/_-]([a-z]+\d*)[/_-]P\1_([a-z]+)(?:_ch(\d))?\.\w+")


def read(tree: Tree, subset: str, split: int | str) -> list[VideoRecord]:
    """There is no list: the videos are found by name, `P03/cam01/P03_cereals.avi`.

    Of the stereo camera only the first channel counts (`_ch0`); all cameras of a participant are in one subset.
    """
    records = []
    videos: dict[tuple, list[str]] = tree.index(_key)
    for key in sorted(videos):
        participant, _, dish, channel = key
        path = tree.locate(videos, key, videos[key][0])
        if participant not in PARTICIPANTS or dish not in DISHES:
            expected = f"P03 to P54 and one of {', '.join(DISHES)}"
            raise ValueError(f"{path}: found P{participant:02d} and {dish!r}, expected {expected}")
        if (participant in TEST[split]) == (subset == "test") and channel in ("", "0"):
            label = DISHES.index(dish)
            records.append(VideoRecord(path, label, dish, f"P{participant:02d}", subset))
    if not videos:
        raise ValueError(
            f"breakfast: no P03/cam01/P03_cereals.avi or its like under {tree.root}; get the videos from "
            f"{BREAKFAST.videos_from}"
        )
    return records


def _key(path: PurePosixPath) -> tuple[int, str, str, str] | None:
    name = _NAME.fullmatch(path.as_posix())
    return (int(name[1]), name[2], name[3], name[4] or "") if name else None


BREAKFAST = Benchmark(
    name="breakfast",
    read=read,
    subsets=("train", "test"),
    queries="test",
    splits=tuple(TEST),
    sizes={
        (1, "train"): 1357,
        (1, "test"): 355,
        **{
            (fold, subset): size
            for fold, test in (("s1", 252), ("s2", 451), ("s3", 433), ("s4", 576))
            for subset, size in (("train", 1712 - test), ("test", test))
        },
    },
    has_list=False,
    lists_from="nowhere, there is no list; the file names say it all",
    videos_from="https://serre-lab.clps.brown.edu/resource/breakfast-actions-dataset/ "
    "(BreakfastII_15fps_qvga_sync.tar.gz)",
    licence="CC BY 4.0",
    note="without a list a missing video shows only in the number found",
)
