"""LVU 1.0: seven classification tasks on movie clips of some two minutes."""

from stretchysnake.data.benchmarks.benchmark import Benchmark
from stretchysnake.data.benchmarks.tree import Tree, integer, read_lines
from stretchysnake.data.records import VideoRecord

TASKS = ("relationship", "way_speaking", "scene", "director", "genre", "writer", "year")
COLUMNS = ("class_id", "class_name", "youtube_id", "imdb_id")


def read(tree: Tree, subset: str, split: int, *, task: str | None = None) -> list[VideoRecord]:
    """The `.csv` files are separated by blanks; `class_id` is the label as it stands, gaps included.

    Classes are kept as named, `\\N` (the unknown writer) among them. The group is the film (IMDb id).
    """
    if task not in TASKS:
        given = "is not given and" if task is None else f"({task!r})"
        raise ValueError(f"lvu task {given} must be one of: {', '.join(TASKS)}")
    source = tree.official(f"{task}/{subset}.csv")
    index = tree.index(lambda path: path.stem)
    records = []
    for number, line in read_lines(source):
        cells = line.split()
        if number == 1 and cells[0] == "class_id":
            continue
        if len(cells) < len(COLUMNS):
            expected = f"{len(COLUMNS)} ({' '.join(COLUMNS)})"
            raise ValueError(
                f"{source} line {number}: found {len(cells)} blank-separated cells, expected {expected}; "
                "get the official file again"
            )
        label = integer(cells[0], f"{source} line {number} column 1 (class_id)")
        *name, youtube_id, imdb_id = cells[1:]
        path = tree.locate(index, youtube_id, f"videos/{youtube_id}.mp4")
        records.append(VideoRecord(path, label, " ".join(name), imdb_id, subset))
    return records


LVU = Benchmark(
    name="lvu",
    read=read,
    subsets=("train", "val", "test"),
    queries="test",
    sizes={
        (task, subset): size
        for task, sizes in {
            "relationship": (149, 53, 42),
            "way_speaking": (939, 205, 201),
            "scene": (557, 120, 86),
            "director": (680, 163, 107),
            "genre": (3063, 597, 647),
            "writer": (769, 174, 168),
            "year": (770, 165, 143),
        }.items()
        for subset, size in zip(("train", "val", "test"), sizes, strict=True)
    },
    lists_from="https://github.com/chaoyuaw/lvu (lvu_1.0.tar.gz)",
    videos_from="YouTube (MovieClips), by the ids in the lists; the authors publish no archive",
    licence="none stated for the annotations; the videos belong to their uploaders",
    note="videos per task differ: director and writer do not use every class id",
)
