"""Diving-48: competition dives in 48 classes; the V2 lists of October 2020, which correct the labels."""

from stretchysnake.data.benchmarks.benchmark import Benchmark
from stretchysnake.data.benchmarks.tree import Tree, read_json, value
from stretchysnake.data.records import VideoRecord


def read(tree: Tree, subset: str, split: int) -> list[VideoRecord]:
    """Clips are trimmed already: `start_frame` and `end_frame` are not used. Names may begin with '-' or '_'."""
    v1 = tree.find(f"Diving48_{subset}.json")
    if v1 is not None and tree.find(f"Diving48_V2_{subset}.json") is None:
        raise ValueError(
            f"diving48: found {v1}, whose labels are wrong in part (V1), expected Diving48_V2_{subset}.json; "
            f"get it from {tree.lists_from}"
        )
    source = tree.official(f"Diving48_V2_{subset}.json")
    vocabulary = tree.find("Diving48_vocab.json")
    names = read_json(vocabulary, list) if vocabulary else None
    index = tree.index(lambda path: path.stem)
    records = []
    for number, item in enumerate(read_json(source, list)):
        place = f"{source} entry {number}"
        video, label = value(item, "vid_name", str, place), value(item, "label", int, place)
        if names is not None and label >= len(names):
            expected = f"0 to {len(names) - 1} ({vocabulary.name})"
            raise ValueError(f"{place} (label): found {label}, expected {expected}")
        class_name = "-".join(map(str, names[label])) if names else ""
        competition = video.rpartition("_")[0]  # many dives are cut from one YouTube video
        path = tree.locate(index, video, f"rgb/{video}.mp4")
        records.append(VideoRecord(path, label, class_name, competition, subset))
    return records


DIVING48 = Benchmark(
    name="diving48",
    read=read,
    subsets=("train", "test"),
    queries="test",
    lists_from="http://www.svcl.ucsd.edu/projects/resound/dataset.html (Diving48_V2_train.json, _test.json, "
    "Diving48_vocab.json)",
    videos_from="http://www.svcl.ucsd.edu/projects/resound/dataset.html (Diving48_rgb.tar.gz)",
    licence="none stated by its authors; for research",
    note="both subsets hold dives of the same competitions; part of the archive is in neither V2 list",
)
