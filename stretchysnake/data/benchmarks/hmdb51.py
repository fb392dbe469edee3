"""HMDB51: 6,766 clips of 51 actions, three official splits of 70 + 30 clips per class."""

from stretchysnake.data.benchmarks.benchmark import Benchmark
from stretchysnake.data.benchmarks.tree import Tree, read_lines
from stretchysnake.data.records import VideoRecord

CODES = {"0": None, "1": "train", "2": "test"}
"""A clip with code 0 is in neither subset of this split."""


def read(tree: Tree, subset: str, split: int) -> list[VideoRecord]:
    """Labels are the classes in alphabetical order; there is no official index.

    Lines are cut at the last blank: names hold blanks, `!`, `;` and brackets. A video is looked up by class folder and
    name, so `climb` never takes a clip of `climb_stairs`.
    """
    ending = f"_test_split{split}.txt"
    sources = tree.matching(lambda name: name.endswith(ending) and name != ending)
    if not sources:
        tree.official(f"testTrainMulti_7030_splits/<class>{ending}")
    classes = sorted(source.name.removesuffix(ending) for source in sources)
    index = tree.index(lambda path: (path.parent.name, path.stem))
    records = []
    for source in sources:
        class_name = source.name.removesuffix(ending)
        for number, line in read_lines(source):
            name, code = line.rsplit(maxsplit=1) if len(line.split()) > 1 else (line, "")
            if code not in CODES:
                expected = "0, 1 (train) or 2 (test); get the official file again"
                raise ValueError(
                    f"{source} line {number} column 2 (code): found {code[:60]!r}, expected {expected}"
                )
            if CODES[code] == subset:
                stem = name.rpartition(".")[0] or name
                path = tree.locate(index, (class_name, stem), f"hmdb51_org/{class_name}/{name}")
                film = stem.partition(f"_{class_name}_")[0]  # clips of one film look alike
                group = f"{class_name}/{film}"
                records.append(
                    VideoRecord(path, classes.index(class_name), class_name, group, subset)
                )
    return records


HMDB51 = Benchmark(
    name="hmdb51",
    read=read,
    subsets=("train", "test"),
    queries="test",
    splits=(1, 2, 3),
    sizes={
        (split, subset): size
        for split in (1, 2, 3)
        for subset, size in (("train", 3570), ("test", 1530))
    },
    lists_from="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/ (test_train_splits.rar)",
    videos_from="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/ (hmdb51_org.rar, "
    "a rar of one rar per class)",
    licence="CC BY 4.0",
)
