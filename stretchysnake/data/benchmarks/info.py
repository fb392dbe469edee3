"""What is there of a benchmark: found, missing, doubled, shared between subsets, and where to get the rest."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from stretchysnake.data.benchmarks.benchmark import Benchmark
from stretchysnake.data.benchmarks.load import benchmark_named, check_request, open_tree
from stretchysnake.data.records import VideoRecord

SHOWN = 5
"""Names printed of a longer list."""


@dataclass(frozen=True, kw_only=True)
class SubsetInfo:
    """One subset: the videos listed, and which of them are not on disk or listed twice."""

    records: list[VideoRecord]
    missing: list[str]
    listed_twice: list[str]
    official_size: int | None

    @property
    def class_counts(self) -> Counter:
        """Listed videos by class name (or label)."""
        return Counter(record.class_name or str(record.label) for record in self.records)


@dataclass(frozen=True, kw_only=True)
class BenchmarkInfo:
    """Everything `lines` prints."""

    benchmark: Benchmark
    root: str
    split: int | str
    subsets: dict[str, SubsetInfo]
    unreadable: dict[str, str] = field(default_factory=dict)
    """Subsets without list or without labels, and why."""
    notes: list[str] = field(default_factory=list)
    """What the reader left out."""
    num_unlisted: int = 0
    """Videos under root that belong to no subset read."""
    doubles: dict[str, list[str]] = field(default_factory=dict)
    """Videos found more than once on disk: the path used -> the others."""
    shared_files: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    shared_groups: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether gallery and queries can be read and every listed video is there, once, and in one subset."""
        infos = self.subsets.values()
        return not (
            {"train", self.benchmark.queries} & self.unreadable.keys()
            or any(info.missing or info.listed_twice for info in infos)
            or self.doubles
            or any(self.shared_files.values())
            or (
                not self.benchmark.has_list
                and any(len(info.records) < (info.official_size or 0) for info in infos)
            )
        )

    def lines(self, *, per_class: bool = False) -> Iterator[str]:
        """The report, line by line."""
        yield f"{self.benchmark.name} split {self.split} in {self.root}"
        for name, info in self.subsets.items():
            yield f"{name:6s} {_subset_line(info)}"
            yield from _named(f"missing from {name}", info.missing)
            yield from _named(f"listed twice in {name}", info.listed_twice)
        for name, reason in self.unreadable.items():
            yield f"{name:6s} not read: {reason}"
        yield from self.notes
        if self.num_unlisted:
            yield f"{self.num_unlisted} more videos under {self.root} are in none of these"
        doubled = [f"{path} = {', '.join(rest)}" for path, rest in self.doubles.items()]
        yield from _named("more than once on disk (the first is used)", doubled)
        for what, shared in (("file", self.shared_files), ("group", self.shared_groups)):
            for (one, other), names in shared.items():
                yield f"same {what} in {one} and {other}: {len(names)}"
                yield from _named(f"in {one} and {other}", names)
        if per_class:
            yield from self._class_table()
        if not self.benchmark.mirrors:
            yield "a mirrored clip has another label (left, right): keep flips off"
        yield f"lists: {self.benchmark.lists_from}"
        yield f"videos: {self.benchmark.videos_from}"
        yield f"licence: {self.benchmark.licence}"
        if self.benchmark.note:
            yield f"note: {self.benchmark.note}"

    def _class_table(self) -> Iterator[str]:
        counts = {name: info.class_counts for name, info in self.subsets.items()}
        classes = {
            (record.label, record.class_name or str(record.label))
            for info in self.subsets.values()
            for record in info.records
        }
        yield f"label  {'  '.join(f'{name:>6s}' for name in counts)}  class"
        for label, name in sorted(classes):
            yield f"{label:5d}  {'  '.join(f'{c[name]:6d}' for c in counts.values())}  {name}"


def benchmark_info(
    name: str,
    root: str | os.PathLike,
    split: int | str = 1,
    *,
    annotations: str | os.PathLike | None = None,
    **options,
) -> BenchmarkInfo:
    """Compare a benchmark's official lists with what lies under `root`.

    ValueError when no subset at all can be read: the first one's.
    """
    benchmark = benchmark_named(name)
    check_request(benchmark, benchmark.queries, split, options)
    tree = open_tree(benchmark, root, annotations)
    subsets, errors = {}, {}
    for subset in benchmark.subsets:
        try:
            records = benchmark.read(tree, subset, split, **options)
        except ValueError as error:
            errors[subset] = error
            continue
        count = Counter(record.path for record in records)
        subsets[subset] = SubsetInfo(
            records=records,
            missing=[path for path in count if not os.path.exists(path)],
            listed_twice=[path for path, number in count.items() if number > 1],
            official_size=benchmark.sizes.get((options.get("task", split), subset)),
        )
    if not subsets:
        raise next(iter(errors.values()))
    shared_files, shared_groups = {}, {}
    names = list(subsets)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            pair = (one, other)
            shared_files[pair] = _shared(subsets, pair, lambda record: record.path)
            shared_groups[pair] = _shared(subsets, pair, lambda record: record.group)
    on_disk = {os.path.join(tree.root, path) for path in tree.videos}
    used = {record.path for info in subsets.values() for record in info.records}
    used.update(path for rest in tree.doubles.values() for path in rest)
    return BenchmarkInfo(
        benchmark=benchmark,
        root=os.fspath(root),
        split=split,
        subsets=subsets,
        unreadable={name: str(error) for name, error in errors.items()},
        notes=tree.notes,
        num_unlisted=len(on_disk - used),
        doubles=dict(tree.doubles),
        shared_files=shared_files,
        shared_groups=shared_groups,
    )


def _shared(subsets: dict[str, SubsetInfo], pair: tuple[str, str], of) -> list[str]:
    one, other = ({of(record) for record in subsets[name].records} for name in pair)
    return sorted((one & other) - {""})


def _subset_line(info: SubsetInfo) -> str:
    listed, counts = len(info.records), info.class_counts.values()
    official = "" if info.official_size is None else f" (official: {info.official_size})"
    text = f"{listed} listed{official}"
    if not listed:
        return text
    missing = set(info.missing)
    num_present = sum(record.path not in missing for record in info.records)
    return (
        f"{text}, {num_present} found, {listed - num_present} missing; {len(counts)} classes of {min(counts)} to "
        f"{max(counts)} videos"
    )


def _named(what: str, names: list[str]) -> Iterator[str]:
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        yield f"  {what}: {', '.join(names[:SHOWN])}{more}"
