"""Which data a number or a training belongs to: one key of a list of records and of the files behind them."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import chain
from operator import attrgetter

from stretchysnake.data.containers.container_length import is_special
from stretchysnake.data.records import VideoRecord
from stretchysnake.ranks import Runtime

_FIELDS = attrgetter(*(field.name for field in fields(VideoRecord) if field.name != "path"))
ENDS = 1 << 16
"""Bytes at either end of a file that `ends_of` reads."""
_THREADS, _STAMPED_AT_ONCE = 16, 1000


def records_key(
    records: Sequence[VideoRecord],
    *,
    whole_paths: bool = False,
    files: bool = True,
    times: bool = True,
    stamps: Sequence[tuple[int, int] | None] | None = None,
) -> str:
    """32 hex digits of every field of the records, in order, and of their files' sizes and times of change.

    Paths count from the deepest folder that holds all files, so a data set moved as it is keeps its key; with
    `whole_paths` they count as they are. `files` False leaves sizes and times out, `times` False the times:
    copies on several machines agree in sizes only. A missing file is marked as missing. No file is opened: one
    `stat` a file, some seconds for 240,000, or none where the caller has their `stamps` (`file_stamps`).
    """
    paths = [record.path for record in records] if whole_paths else relative_paths(records)
    if not files:
        stamps = [None] * len(records)
    elif stamps is None:
        stamps = file_stamps(records)
    listed = []
    for record, path, stamp in zip(records, paths, stamps, strict=True):
        listed.append([path, *_FIELDS(record), stamp if times or stamp is None else stamp[0]])
    # surrogates of names that are not UTF-8 are written as escapes
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:32]


def refuse_unequal_records(
    sources, runtime: Runtime, *, stamps: Sequence[tuple[int, int] | None] | None = None
) -> None:
    """ValueError when some rank can read other videos than another: they would draw other clips, or measure them.

    Without times of change: each machine may have a copy of its own, made at a time of its own. One rank of a machine
    asks for the sizes of its files; `stamps` are those of a single source, where the caller has them.
    """
    if runtime.world_size == 1:
        return
    told = ""
    if runtime.local_rank == 0:
        asked = {"whole_paths": True, "times": False, "stamps": stamps}
        told = " ".join(records_key(clips.records, **asked) for clips in sources)
    if len(set(filter(None, runtime.gather(told)))) > 1:
        raise ValueError(
            "ranks do not read the same videos: some files are readable on one machine and not on another, or "
            "of other sizes; compare the skipped files above"
        )


def relative_paths(records: Sequence[VideoRecord]) -> list[str]:
    """The path of each record from the deepest folder that holds all of them, with "/" between its parts."""
    whole = [os.path.abspath(record.path).replace(os.sep, "/") for record in records]
    # by characters, and then back to the last "/"; the first and the last in order share what all share
    shared = os.path.commonprefix([min(whole), max(whole)]) if whole else ""  # noqa: RUF071
    return [path[shared.rfind("/") + 1 :] for path in whole]


def file_stamp(path: str | os.PathLike) -> tuple[int, int] | None:
    """(bytes, time of change in ns) of a file; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def file_stamps(records: Sequence[VideoRecord]) -> list[tuple[int, int] | None]:
    """`file_stamp` of each; many at once, since a disk of the network answers each late."""
    paths = [record.path for record in records]
    if len(paths) <= _STAMPED_AT_ONCE:
        return list(map(file_stamp, paths))
    parts = [
        paths[first : first + _STAMPED_AT_ONCE] for first in range(0, len(paths), _STAMPED_AT_ONCE)
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        stamped = pool.map(lambda part: list(map(file_stamp, part)), parts)
        return list(chain.from_iterable(stamped))


def ends_of(path: str | os.PathLike) -> str | None:
    """SHA-256 of the first and last 64 KiB of a file; None where it cannot be read."""
    digest = hashlib.sha256()
    if is_special(path):
        return None
    try:
        with open(path, "rb") as file:
            digest.update(file.read(ENDS))
            file.seek(max(ENDS, file.seek(0, os.SEEK_END) - ENDS))
            digest.update(file.read(ENDS))
    except OSError:
        return None
    return digest.hexdigest()
