"""`stretchysnake index`: what an index holds, and what can be made of it without the videos."""

from dataclasses import dataclass

from stretchysnake.cli.options import parsed
from stretchysnake.shown import shown

EXAMPLES = (
    "stretchysnake index info index/\n"
    "  stretchysnake index merge part1/ part2/ -o index/\n"
    "  stretchysnake index list index/ -o videos.csv   # then: stretchysnake embed videos.csv --weights OTHER -o new/"
)

ACTIONS = ("info", "check", "compact", "merge", "list", "export", "approximate")


@dataclass(frozen=True, kw_only=True)
class InfoRun:
    """Settings, videos, rows and segments of indexes; opens them, and reads no row.

    The paths are index folders, or folders of such.
    """


@dataclass(frozen=True, kw_only=True)
class CheckRun:
    """Read every byte of indexes, and say which file is not the one that was written.

    The paths are index folders, or folders of such.
    """


@dataclass(frozen=True, kw_only=True)
class CompactRun:
    """Join all segments of an index into one, without what was removed; needs room for it once more meanwhile.

    The paths are index folders. The result has the bytes of an index that was made at once.
    """


@dataclass(frozen=True, kw_only=True)
class MergeRun:
    """One index of all videos of several with equal settings, as the parts of `stretchysnake embed --shard` are.

    The paths are index folders, or folders of such; they are not changed. What the target holds already stays.
    """

    out: str
    """-o: folder of the new index."""


@dataclass(frozen=True, kw_only=True)
class ListRun:
    """The videos of an index as a list, with groups and classes: to embed them again with other weights."""

    out: str
    """-o: a .csv or .jsonl."""


@dataclass(frozen=True, kw_only=True)
class ExportRun:
    """The rows of an index as features.npy and meta.jsonl (a line per row), for other tools."""

    out: str
    """-o: an empty folder."""


@dataclass(frozen=True, kw_only=True)
class ApproximateRun:
    """Lists for `stretchysnake search --backend approximate`, which reads a part of the rows; needs the extra faiss.

    The path is an index. How many of the nearest it finds is measured on rows of the index, and told at every search.
    """

    recall: float = 0.95
    """Share of the 10 nearest that shall be found; as many lists are read as that takes."""
    sample: int = 200
    """Rows on which it is measured."""


def run(argv: list[str]) -> int:
    verbs = dict(
        zip(ACTIONS, (_info, _check, _compact, _merge, _list, _export, _approximate), strict=True)
    )
    if argv[:1] in (["-h"], ["--help"]):
        print(f"usage: stretchysnake index {{{','.join(verbs)}}} ...\n\nexample:\n  {EXAMPLES}")
        raise SystemExit(0)
    if not argv or argv[0] not in verbs:
        found = f"({argv[0]})" if argv else "is not given and"
        raise ValueError(f"index action {found} must be one of: {', '.join(verbs)}")
    return verbs[argv[0]](argv[1:])


def _given(action: str, run_class: type, argv: list[str], *, one: bool = False):
    words = "one index" if one else "indexes, or folders of them"
    short = {"-o": "--out"}
    run, paths = parsed(f"index {action}", run_class, EXAMPLES, argv, paths=words, short=short)
    if one and len(paths) != 1:
        raise ValueError(f"index {action} ({' '.join(paths)}) must name one index")
    return run, paths


def _info(argv: list[str]) -> int:
    from stretchysnake.search.index import read_index
    from stretchysnake.search.segments.report import info_lines
    from stretchysnake.search.stores.found_indexes import indexes_in

    _, paths = _given("info", InfoRun, argv)
    for path in (one for given in paths for one in indexes_in(given)):
        print(*map(shown, info_lines(read_index(path))), sep="\n")
    return 0


def _check(argv: list[str]) -> int:
    from stretchysnake.search.index import read_index
    from stretchysnake.search.stores.found_indexes import indexes_in

    _, paths = _given("check", CheckRun, argv)
    for path in (one for given in paths for one in indexes_in(given)):
        index = read_index(path, check=True)
        print(f"{shown(path)}: {len(index.rows)} rows, every file is the one that was written")
    return 0


def _compact(argv: list[str]) -> int:
    from stretchysnake.search.index import read_index
    from stretchysnake.search.segments.merging import compact

    _, paths = _given("compact", CompactRun, argv)
    for path in paths:
        before = len(read_index(path).segments)
        index = compact(path)
        print(f"{shown(path)}: {len(index.rows)} rows, {before} segments before, one now")
    return 0


def _merge(argv: list[str]) -> int:
    from stretchysnake.search.segments.merging import merge
    from stretchysnake.search.stores.found_indexes import indexes_in

    run, paths = _given("merge", MergeRun, argv)
    sources = [index for path in paths for index in indexes_in(path)]
    done = merge(sources, run.out, note=lambda text: print(shown(text)))
    twice = f", {done.num_doubles} of them in several" if done.num_doubles else ""
    was = "" if done.is_new else " (there was nothing to do)"
    index = done.index
    print(f"{shown(run.out)}: {index.num_videos} videos{twice}, {len(index.rows)} rows{was}")
    return 0


def _list(argv: list[str]) -> int:
    from stretchysnake.search.index import read_index
    from stretchysnake.search.segments.export import export_list

    run, paths = _given("list", ListRun, argv, one=True)
    print(f"{export_list(read_index(paths[0]), run.out)} videos: {shown(run.out)}")
    return 0


def _export(argv: list[str]) -> int:
    from stretchysnake.search.index import read_index
    from stretchysnake.search.segments.export import export_flat

    run, paths = _given("export", ExportRun, argv, one=True)
    print(f"{export_flat(read_index(paths[0], check=True), run.out)} rows: {shown(run.out)}")
    return 0


def _approximate(argv: list[str]) -> int:
    from stretchysnake.cli.progress import Progress
    from stretchysnake.search.stores.ivf import build_lists

    run, paths = _given("approximate", ApproximateRun, argv, one=True)
    progress = Progress()
    found = build_lists(paths[0], recall=run.recall, sample=run.sample, progress=progress)
    progress.close()
    print(
        f"{shown(paths[0])}: {found['recall']:.1%} of the {found['nearest']} nearest found for {found['sample']} rows, "
        f"with {found['num_probes']} of {max(found['lists'].values())} lists read"
    )
    return 0
