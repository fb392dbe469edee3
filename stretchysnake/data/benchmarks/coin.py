"""COIN: 11,827 YouTube videos of 180 tasks; the label is the task (`recipe_type`)."""

from stretchysnake.data.benchmarks.benchmark import Benchmark
from stretchysnake.data.benchmarks.tree import Tree, read_json, value
from stretchysnake.data.records import VideoRecord

SUBSETS = {
    "train": ("training", "train"),
    "test": ("testing", "test", "validation", "val"),
}
"""The README says training and validation, the file testing; there are two subsets under any name."""


def read(tree: Tree, subset: str, split: int) -> list[VideoRecord]:
    """The whole video is the clip: `start` and `end` of the task inside it are not used (as in VideoMamba, ViS4mer)."""
    source = tree.official("COIN.json")
    index = tree.index(lambda path: path.stem)  # YouTube ids: case counts, '-' may come first
    records = []
    for youtube_id, item in value(read_json(source, dict), "database", dict, str(source)).items():
        place = f"{source} entry {youtube_id!r}"
        named = value(item, "subset", str, place)
        if not any(named in names for names in SUBSETS.values()):
            expected = ", ".join(name for names in SUBSETS.values() for name in names)
            raise ValueError(f"{place} (subset): found {named[:60]!r}, expected one of {expected}")
        label = value(item, "recipe_type", int, place)
        if named in SUBSETS[subset]:
            path = tree.locate(index, youtube_id, f"videos/{label}/{youtube_id}.mp4")
            class_name = value(item, "class", str, place)
            records.append(VideoRecord(path, label, class_name, youtube_id, subset))
    return records


COIN = Benchmark(
    name="coin",
    read=read,
    subsets=("train", "test"),
    queries="test",
    lists_from="https://github.com/coin-dataset/annotations (COIN.json)",
    videos_from="YouTube, by the ids in COIN.json; the authors publish no archive",
    licence="CC BY-NC 4.0 (annotations); the videos belong to their uploaders",
    note="official: 11,827 videos in all; loaders of others skip AfiVmAjfTNs and cjwtcDKTQM8 as broken",
)
