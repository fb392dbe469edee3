"""UCF101: 13,320 clips of 101 actions, three official splits."""

from pathlib import PurePosixPath

from stretchysnake.data.benchmarks.benchmark import Benchmark
from stretchysnake.data.benchmarks.tree import Tree, integer, read_lines
from stretchysnake.data.records import VideoRecord


def read(tree: Tree, subset: str, split: int) -> list[VideoRecord]:
    """Labels follow classInd.txt, which is sorted ignoring case; sorted folder names swap four classes.

    The class is the list's folder, never the file name: `HandstandPushups/v_HandStandPushups_g01_c01.avi`. Case is
    ignored throughout, since mirrors rename one or the other.
    """
    class_list = tree.official("classInd.txt")
    classes = {}
    for number, line in read_lines(class_list):
        index, _, name = line.partition(" ")
        label = integer(index, f"{class_list} line {number} column 1 (class index)") - 1
        classes[name.strip().casefold()] = (label, name.strip())
    index = tree.index(lambda path: path.stem.casefold())
    source = tree.official(f"{subset}list{split:02d}.txt")
    records = []
    for number, line in read_lines(source):
        # test lists hold no label, train lists repeat the index
        clip = PurePosixPath(line.split()[0])
        if (name := clip.parent.name).casefold() not in classes:
            expected = f"a class of {class_list.name}; get the official file again"
            raise ValueError(f"{source} line {number}: found class {name!r}, expected {expected}")
        label, name = classes[name.casefold()]
        # clips of one group share the scene
        group = clip.stem.removeprefix("v_").rpartition("_c")[0]
        path = tree.locate(index, clip.stem.casefold(), f"UCF-101/{clip}")
        records.append(VideoRecord(path, label, name, group, subset))
    return records


UCF101 = Benchmark(
    name="ucf101",
    read=read,
    subsets=("train", "test"),
    queries="test",
    splits=(1, 2, 3),
    sizes={
        (1, "train"): 9537,
        (1, "test"): 3783,
        (2, "train"): 9586,
        (2, "test"): 3734,
        (3, "train"): 9624,
        (3, "test"): 3696,
    },
    lists_from="https://www.crcv.ucf.edu/data/UCF101.php (UCF101TrainTestSplits-RecognitionTask.zip)",
    videos_from="https://www.crcv.ucf.edu/data/UCF101.php (UCF101.rar)",
    licence="none stated by its authors; for research",
)
