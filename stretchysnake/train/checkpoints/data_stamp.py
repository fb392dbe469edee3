"""What a run's data was when it began: out/data.safetensors, by which `--resume` knows the data again, moved or not.

n records: their fields as one hash; size and time of change of each file (-1: missing); the ends of a sample of files.
Some 24 bytes a record, so that a message can name the file that differs.

A move keeps names, sizes and times. A copy may lose the times (`cp -r`, rsync without -t), so a file whose time differs
is compared by its ends, 64 KiB each: they hold the headers and the last pictures, and reading whole files would take
hours for a large set. Up to SAMPLED files all are compared; above, an even sample of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stretchysnake.data.records import VideoRecord
from stretchysnake.data.records_key import ends_of, file_stamps, records_key, relative_paths
from stretchysnake.whole_file import write_whole

NAME = "data.safetensors"
SAMPLED = 1024
MOST_REPLACED = 3
MISSING, NOT_READ = -1, 0
Stamps = Sequence[tuple[int, int] | None]
"""`file_stamp` of each file of a list."""


@dataclass(frozen=True, kw_only=True)
class DataStamp:
    """The data of a run at one moment."""

    records: str
    """records_key of the fields alone."""
    sizes: Tensor
    """(n,) int64 bytes"""
    times: Tensor
    """(n,) int64 ns"""
    ends: Tensor
    """(n,) int64 of `ends_of`; NOT_READ outside the sample"""


def data_stamp(
    records: Sequence[VideoRecord], *, sampled: int = SAMPLED, stamps: Stamps | None = None
) -> DataStamp:
    """The stamp of these records now; reads the ends of `sampled` files, evenly spread over the list.

    `stamps` are the files' sizes and times (`file_stamps`) where the caller has them.
    """
    stamps = file_stamps(records) if stamps is None else stamps
    columns = [stamp or (MISSING, MISSING) for stamp in stamps]
    sizes, times = torch.tensor(columns, dtype=torch.int64).reshape(-1, 2).unbind(1)
    ends = torch.full_like(sizes, NOT_READ)
    if sampled:
        for index in range(0, len(records), -(-len(records) // sampled)):
            ends[index] = _ends(records[index])
    key = records_key(records, files=False)
    return DataStamp(
        records=key, sizes=sizes.contiguous(), times=times.contiguous(), ends=ends.contiguous()
    )


def write_stamp(out: Path, stamp: DataStamp) -> None:
    """Write the stamp into the folder of a run."""
    tensors = {name: getattr(stamp, name) for name in ("sizes", "times", "ends")}
    write_whole(out / NAME, save(tensors, metadata={"records": stamp.records}))


def with_missing_files(now: DataStamp, then: DataStamp | None) -> DataStamp:
    """`now` with what `then` knows of files that are missing now: one that comes back must still be the same."""
    if then is None or then.records != now.records or len(then.sizes) != len(now.sizes):
        return now
    gone = now.sizes == MISSING
    held = {name: getattr(now, name).clone() for name in ("sizes", "times", "ends")}
    for name, tensor in held.items():
        tensor[gone] = getattr(then, name)[gone]
    return DataStamp(records=now.records, **held)


def read_stamp(out: Path) -> DataStamp | None:
    """The stamp of a run; None where it has none (earlier versions), ValueError when it is damaged."""
    path = out / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("sizes", "times", "ends")}
            return DataStamp(records=(file.metadata() or {})["records"], **tensors)
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged ({error}), so the run's data cannot be known again; remove the folder "
            "and train anew, or bring the file back"
        ) from None


def other_data(
    then: DataStamp, now: DataStamp, records: Sequence[VideoRecord], *, unfinished: bool = False
) -> str | None:
    """What shows that these records are not the data of `then`, in words; None when they are the same.

    A file that is missing now, or was then, is no other data: training leaves it out and says so. Nor are a few files
    that were damaged or repaired while a training is `unfinished`: MOST_REPLACED of them, or 1 %, are told (`told`).
    """
    if len(then.sizes) != len(now.sizes):
        return f"{len(then.sizes)} videos there, {len(now.sizes)} here"
    if then.records != now.records:
        return "other names, labels, groups or segments"
    names = relative_paths(records)
    both = (then.sizes != MISSING) & (now.sizes != MISSING)
    allowed = max(MOST_REPLACED, len(names) // 100) if unfinished else 0
    changed = both & (then.sizes != now.sizes)
    moved = both & ~changed & (then.times != now.times)
    compared = moved & (then.ends != NOT_READ)
    others = [
        index
        for index in compared.nonzero().flatten().tolist()
        if _ends(records[index]) != int(then.ends[index])
    ]
    if int(changed.sum()) + len(others) > allowed:
        if not changed.any():
            return f"{names[others[0]]} has the same size and other bytes"
        first = int(changed.nonzero()[0])
        return (
            f"{int(changed.sum())} files have another size, first {names[first]}: "
            f"{then.sizes[first]} bytes there, {now.sizes[first]} here"
        )
    unverified = moved & ~compared
    if int(unverified.sum()) > allowed and not (compared.any() and moved.equal(both & ~changed)):
        # A copy that lost its times lost all of them: single ones are files that were replaced.
        first = int(unverified.nonzero()[0])
        return f"{int(moved.sum())} files changed since, first {names[first]}"
    return None


def told(then: DataStamp, now: DataStamp) -> list[str]:
    """What a user should know of data that is the same: files of another size or time of change, or missing."""
    notes = []
    both = (then.sizes != MISSING) & (now.sizes != MISSING)
    changed = both & (then.sizes != now.sizes)
    if changed.any():
        notes.append(
            f"data: {int(changed.sum())} of {len(changed)} files have another size than when the run began; they are "
            "drawn as they are now"
        )
    moved = both & ~changed & (then.times != now.times)
    if moved.any():
        compared = int((moved & (then.ends != NOT_READ)).sum())
        notes.append(
            f"data: {int(moved.sum())} of {len(moved)} files have another time of change than when the run "
            f"began; taken as copies, by equal sizes and the same first and last 64 KiB of {compared} of them"
        )
    gone = (then.sizes != MISSING) & (now.sizes == MISSING)
    if gone.any():
        notes.append(
            f"data: {int(gone.sum())} of {len(gone)} files were there when the run began and are missing"
        )
    return notes


def _ends(record: VideoRecord) -> int:
    digest = ends_of(record.path)
    # 63 bits, and never NOT_READ
    return MISSING if digest is None else int(digest[:15], 16) or 1
