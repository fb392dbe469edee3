"""Something-Something V2: 220,847 clips of 174 templates in which direction is often the label."""

from stretchysnake.data.benchmarks.benchmark import Benchmark
from stretchysnake.data.benchmarks.tree import Tree, integer, read_json, read_lines, value
from stretchysnake.data.records import VideoRecord

FILE_NAMES = {"train": "train", "val": "validation", "labels": "labels"}


def official(tree: Tree, part: str):
    """The file of one part, in the older release's place or in the newer one's (`labels/`)."""
    name = FILE_NAMES[part]
    return tree.official(
        f"something-something-v2-{name}.json", f"labels/{name}.json", f"{name}.json"
    )


def read(tree: Tree, subset: str, split: int) -> list[VideoRecord]:
    """The label is the template without its bracket characters, looked up in labels.json; ids sort as numbers."""
    source = official(tree, "labels")
    labels = {
        template: integer(str(label), f"{source} ({template!r})")
        for template, label in read_json(source, dict).items()
    }
    pairs = []
    if subset == "test":
        source = tree.find("labels/test-answers.csv", "test-answers.csv")
        if source is None:
            raise ValueError(
                f"ssv2: no labels/test-answers.csv under {tree.annotations}; the older release holds no test "
                "labels, so the queries are the validation videos: subset='val'"
            )
        for number, line in read_lines(source):
            video, _, template = line.partition(";")
            pairs.append((video.strip(), template.strip().strip('"'), f"{source} line {number}"))
    else:
        source = official(tree, subset)
        for number, item in enumerate(read_json(source, list)):
            place = f"{source} entry {number}"
            pairs.append(
                (value(item, "id", str, place), value(item, "template", str, place), place)
            )
    index = tree.index(lambda path: path.stem)
    records = []
    for video, template, place in pairs:
        integer(video, f"{place} (id)")
        name = template.replace("[", "").replace("]", "")
        if name not in labels:
            raise ValueError(
                f"{place} (template): found {name[:60]!r}, expected one of the {len(labels)} in labels.json; "
                "a Jester file of the same name circulates, get the official one"
            )
        path = tree.locate(index, video, f"20bn-something-something-v2/{video}.webm")
        records.append((int(video), VideoRecord(path, labels[name], name, "", subset)))
    return [record for _, record in sorted(records, key=lambda pair: pair[0])]


SSV2 = Benchmark(
    name="ssv2",
    read=read,
    subsets=("train", "val", "test"),
    queries="val",
    mirrors=False,
    sizes={(1, "train"): 168_913, (1, "val"): 24_777, (1, "test"): 27_157},
    lists_from="https://www.qualcomm.com/developer/software/something-something-v-2-dataset (labels)",
    videos_from="https://www.qualcomm.com/developer/software/something-something-v-2-dataset "
    "(20bn-something-something-v2-00 and -01: cat 20bn-something-something-v2-?? | tar zx)",
    licence="Qualcomm's research licence, accepted on download; no redistribution",
    note="the queries of the field are the validation videos; few have the labels of the test videos",
)
