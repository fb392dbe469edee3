"""load_benchmark(name, root, subset): the records of a public benchmark, read from its official files.

records = load_benchmark("ucf101", "/data/ucf101", "train", split=1)
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from typing import NoReturn

from stretchysnake.data.benchmarks.benchmark import Benchmark
from stretchysnake.data.benchmarks.breakfast import BREAKFAST
from stretchysnake.data.benchmarks.coin import COIN
from stretchysnake.data.benchmarks.diving48 import DIVING48
from stretchysnake.data.benchmarks.hmdb51 import HMDB51
from stretchysnake.data.benchmarks.kinetics import KINETICS400, KINETICS700
from stretchysnake.data.benchmarks.lvu import LVU
from stretchysnake.data.benchmarks.ssv2 import SSV2
from stretchysnake.data.benchmarks.tree import Tree
from stretchysnake.data.benchmarks.ucf101 import UCF101
from stretchysnake.data.records import VideoRecord

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *(UCF101, HMDB51, COIN, BREAKFAST, SSV2, DIVING48),
        *(KINETICS400, KINETICS700, LVU),
    )
}


def load_benchmark(
    name: str,
    root: str | os.PathLike,
    subset: str = "train",
    split: int | str = 1,
    *,
    annotations: str | os.PathLike | None = None,
    **options,
) -> list[VideoRecord]:
    """Return a record per listed video of one subset, in the official order.

    Videos that are listed but not under `root` are in the list too, with the path where they should lie: reading them
    is a DecodeError of kind "missing", so that every measurement counts them. `annotations` is the folder of the
    official files when they are not under `root`. Options by data set: kinetics700 classes, shared, kinetics400; lvu
    task. ValueError for anything unknown, for a missing official file (it says where to get it) and for a damaged one.
    """
    benchmark = benchmark_named(name)
    check_request(benchmark, subset, split, options)
    return benchmark.read(open_tree(benchmark, root, annotations), subset, split, **options)


def benchmark_named(name: str) -> Benchmark:
    """The benchmark of this name; ValueError with the nearest one."""
    if name not in BENCHMARKS:
        _unknown("benchmark", name, BENCHMARKS)
    return BENCHMARKS[name]


def open_tree(
    benchmark: Benchmark, root: str | os.PathLike, annotations: str | os.PathLike | None
) -> Tree:
    """What lies under the benchmark's folders."""
    lists_from = benchmark.lists_from
    return Tree(root, name=benchmark.name, lists_from=lists_from, annotations=annotations)


def check_request(benchmark: Benchmark, subset: str, split: int | str, options: dict) -> None:
    """ValueError for a subset, split or option this benchmark does not have."""
    if subset not in benchmark.subsets:
        _unknown(f"{benchmark.name} subset", subset, benchmark.subsets)
    if isinstance(split, bool) or split not in benchmark.splits:
        _unknown(f"{benchmark.name} split", split, benchmark.splits)
    for option in options:
        if option not in benchmark.options:
            if not benchmark.options:
                raise ValueError(f"{benchmark.name} option ({option}) is not known; it has none")
            _unknown(f"{benchmark.name} option", option, benchmark.options)


def _unknown(what: str, value, choices: Iterable) -> NoReturn:
    choices = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(value).lower().replace("-", ""), choices, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"{what} ({value!r}) must be one of: {', '.join(choices)}{hint}")
