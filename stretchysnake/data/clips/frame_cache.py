"""A data set decoded once: a memory-mapped uint8 array of frames, keyed by the content of its files.

Training decodes every clip many times; for a set that fits on disk the cache pays for it once. The key hashes the
bytes of the files in order and the settings, not the paths: a moved or copied set is found again, and a changed
file is never mistaken for the old one. The array is written to a temporary name and renamed; its JSON comes last and
holds a checksum of the array: a cache cut short or with one bit changed is decoded anew. A video whose failure may pass
(too slow, missing, its storage, too much memory) is tried once more by each later build.

Neither is read at every start. A `.known` file says which key files of these places, sizes and times of change had, and
the JSON which size and time the array has: only what differs from that is hashed again, or all with `verify`. A time of
change less than two seconds old proves nothing, since clocks of file systems are coarse, so it is not kept.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from stretchysnake.data.clips.bad_clips import TRIES
from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.clips.seen_picture import fitted, read_size
from stretchysnake.data.containers.container_length import is_special
from stretchysnake.data.decoding.fit import fitted_size
from stretchysnake.data.decoding.video import DecodeError, read_frames
from stretchysnake.data.processes.decoder_pool import MEMORY_GIB, TIMEOUT_SECONDS, map_decoding
from stretchysnake.data.records import VideoRecord
from stretchysnake.data.records_key import file_stamp, file_stamps
from stretchysnake.flexibility import Scale
from stretchysnake.whole_file import unfinished_file, write_whole

VERSION = 3
"""Raise it when the same file would give other pixels. 3: resized as in training, turned as ffmpeg turns."""
_COARSEST_CLOCK_NS = 2 * 10**9
"""Of the times of change that file systems keep: FAT's, of two seconds."""


@dataclass(frozen=True, kw_only=True)
class FrameCache:
    """Frames (num_frames, size, size, 3) uint8 of every readable record.

    `frames[i]` belongs to `listed[i]`, unless `holes` says why there is none.
    """

    listed: list[VideoRecord]
    holes: dict[int, DecodeError]
    frames: np.ndarray
    """With fit keep (n, T, size * size * 3), of which each video fills what its shape has pixels; see `frames_of`."""
    key: str
    size: int
    fit: str = "square"
    shown: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Row -> (height, width) displayed, where pictures keep their shape."""

    def frames_of(self, row: int) -> np.ndarray:
        """(T, H, W, 3) of a row, H x W at most size x size."""
        if self.fit != "keep":
            return self.frames[row]
        height, width = held_size(*self.shown[row], size=self.size)
        pixels = self.frames[row, :, : height * width * 3]
        return pixels.reshape(len(pixels), height, width, 3)

    @property
    def rows(self) -> np.ndarray:
        """The rows of `frames` that hold a video; `frames[rows[i]]` belongs to `records[i]`."""
        return np.array([row for row in range(len(self.listed)) if row not in self.holes])

    @property
    def records(self) -> list[VideoRecord]:
        """The readable ones."""
        return [self.listed[row] for row in self.rows]

    @property
    def failures(self) -> list[tuple[VideoRecord, DecodeError]]:
        """The records that are left out, each with the reason."""
        return [(self.listed[row], error) for row, error in self.holes.items()]

    @staticmethod
    def build(
        records: Sequence[VideoRecord],
        directory: str | os.PathLike,
        *,
        num_frames: int = 16,
        size: int = 64,
        fit: str = "square",
        num_workers: int = 2,
        timeout_seconds: float = TIMEOUT_SECONDS,
        memory_gib: float = MEMORY_GIB,
        verify: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> FrameCache:
        """Open the cache of these records under `directory`, decoding first what is not there yet.

        Each clip keeps `num_frames` uniform frames, the whole picture resized to `size` x `size`, with `fit` crop its
        middle square, with keep in its own shape of no more pixels. Nothing is put in the place of a file that cannot
        be decoded; it is listed in `failures`. Only a set without a single readable file is an error. Decoding runs in
        `num_workers` processes under the limits of decoder_pool.py; 0 decodes in this process, without limits. An array
        whose checksum is wrong is decoded anew.
        Videos and array are hashed where their sizes or times of change are not those known, with `verify` always.
        """
        records, directory = list(records), Path(directory)
        if not records:
            raise ValueError("records is empty; give a list with at least one video.")
        directory.mkdir(parents=True, exist_ok=True)
        began = time.time_ns()
        known, newest = _known_place(records, directory, num_frames, size, fit)
        key = None if verify else _known_key(known)
        all_read = False
        if key is None:
            key, all_read = _key(records, num_frames, size, fit)
        shape = (len(records), num_frames, size, size, 3)
        if fit == "keep":
            shape = (*shape[:2], size * size * 3)
        array_path, note_path = directory / f"{key}.npy", directory / f"{key}.json"
        note = _read_note(note_path, array_path, shape, verify=verify)
        if note is None or os.access(directory, os.W_OK):
            limits = {"num_workers": num_workers, "timeout_seconds": timeout_seconds}
            limits["memory_gib"] = memory_gib
            decode = partial(_decode, num_frames=num_frames, size=size, fit=fit)
            new = _decode_all(records, array_path, shape, decode, limits, progress, note)
            if new != note:
                write_whole(note_path, json.dumps(new))
            note = new
        if all_read and _is_settled(newest, began):
            with suppress(OSError):  # a folder that may only be read
                write_whole(known, f"{key}\n")
        holes = _holes(note, records)
        if len(holes) == len(records):
            raise ValueError(f"none of {len(records)} videos can be decoded; first: {holes[0]}")
        frames = np.load(array_path, mmap_mode="r")
        shown = {int(row): tuple(sides) for row, sides in note.get("shown", {}).items()}
        return FrameCache(
            listed=records, holes=holes, frames=frames, key=key, size=size, fit=fit, shown=shown
        )

    def __len__(self) -> int:
        return len(self.listed) - len(self.holes)


def held_size(height: int, width: int, *, size: int) -> tuple[int, int]:
    """(H, W) at which a picture shown as height x width is cached where it keeps its shape."""
    return fitted_size(height, width, scale=Scale(1, size, 1), fit="keep")


def _settings(num_frames: int, size: int, fit: str) -> str:
    return f"{VERSION} {num_frames} {size}" + ("" if fit == "square" else f" {fit}")


def _key(
    records: list[VideoRecord], num_frames: int, size: int, fit: str = "square"
) -> tuple[str, bool]:
    """(the key by the files' bytes, whether all that are there could be read: a storage may only have stumbled)"""
    all_read = True
    digest = hashlib.sha1(_settings(num_frames, size, fit).encode())
    for record in records:
        try:
            if is_special(record.path):
                raise OSError(errno.EINVAL, "is no file")
            with open(record.path, "rb") as file:
                whole = hashlib.sha1()
                while block := file.read(1 << 20):
                    whole.update(block)
                content = whole.digest()
        except OSError as error:
            content = f"unreadable {error.errno}".encode()
            all_read &= error.errno == errno.ENOENT
        digest.update(content + f"{record.start} {record.end}".encode())
    return digest.hexdigest()[:20], all_read


def _known_place(
    records: list[VideoRecord], directory: Path, num_frames: int, size: int, fit: str
) -> tuple[Path, int]:
    """(the file that holds `_key` where it is known, the newest time of change of a video in ns); opens no video."""
    told, newest = hashlib.sha256(_settings(num_frames, size, fit).encode()), 0
    for record, stamp in zip(records, file_stamps(records), strict=True):
        place = os.fsencode(os.path.abspath(record.path))
        told.update(place + f"\n{stamp} {record.start} {record.end}\n".encode())
        newest = max(newest, stamp[1] if stamp else 0)
    return directory / f"{told.hexdigest()[:20]}.known", newest


def _known_key(known: Path) -> str | None:
    with suppress(OSError, ValueError):
        key = known.read_text().strip()
        if len(bytes.fromhex(key)) == 10:
            return key
    return None


def _is_settled(changed_ns: int, now_ns: int) -> bool:
    """Whether a further change now would give another time of change."""
    return abs(now_ns - changed_ns) > _COARSEST_CLOCK_NS


def _read_note(
    note_path: Path, array_path: Path, shape: tuple[int, ...], *, verify: bool
) -> dict | None:
    """The finished cache's note, or None when the cache has to be (re)written."""
    try:
        note = json.loads(note_path.read_text())
        stamp = file_stamp(array_path)
        if tuple(note["shape"]) != shape or stamp is None or stamp[0] != note["num_bytes"]:
            return None
        if not verify and note.get("changed_ns") == stamp[1]:
            return note
        now = time.time_ns()
        if _checksum(array_path) != note["crc32"]:
            print(
                f"frame cache {array_path}: its content changed on disk; decoding again",
                file=sys.stderr,
            )
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if _is_settled(stamp[1], now) and note.get("changed_ns") != stamp[1]:
        with suppress(OSError):
            write_whole(note_path, json.dumps({**note, "changed_ns": stamp[1]}))
    return note


def _checksum(array_path: Path) -> int:
    """CRC-32 of the file's bytes: finds every single changed bit, at the speed of reading."""
    crc = 0
    with open(array_path, "rb") as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


def _holes(note: dict, records: Sequence[VideoRecord]) -> dict[int, DecodeError]:
    return {
        row: DecodeError(kind, records[row].path, reason, False, *may_pass)
        for row, kind, reason, *may_pass in note["failures"]
    }


def _decode_all(
    records, array_path: Path, shape, decode, limits: dict, progress, earlier: dict | None
) -> dict:
    """The note of the array, made now; of an `earlier` one with what failed then and may pass, tried once."""
    failed, left = {}, range(len(records))
    if earlier:
        failed = _holes(earlier, records)
        left = [row for row, error in failed.items() if error.may_pass]
    if not left:
        return earlier
    shown, started = dict(earlier.get("shown", {})) if earlier else {}, time.perf_counter()
    with ExitStack() as opened:
        array = None if earlier else _array(array_path, opened, shape)
        for number in range(1 if earlier else TRIES):  # then those whose trouble may have passed
            tasks = [(records[row].path, records[row]) for row in left]
            answers = map_decoding(decode, tasks, **limits)
            for done, (row, answer) in enumerate(zip(left, answers, strict=True), 1):
                if isinstance(answer, DecodeError):
                    failed[row] = answer
                else:
                    failed.pop(row, None)
                    array = _array(array_path, opened) if array is None else array
                    frames, sides = answer
                    if sides is not None:
                        shown[row], frames = sides, frames.reshape(len(frames), -1)
                    array[row, :, : frames.shape[1]] = frames
                if progress:
                    rate = done / max(1e-6, time.perf_counter() - started)
                    again = f" at try {number + 1}" if number else ""
                    progress(
                        f"frame cache: {done} of {len(left)} videos decoded{again}, {rate:.0f}/s"
                    )
            left = [row for row, error in failed.items() if error.transient]
            if not left:
                break
        failures = [
            [row, error.kind, error.reason, error.may_pass] for row, error in sorted(failed.items())
        ]
        if array is None:
            return {**earlier, "failures": failures}
        array.flush()
        checksum = _checksum(array.filename)
    num_bytes = array_path.stat().st_size
    note = {"shape": list(shape), "num_bytes": num_bytes, "crc32": checksum, "failures": failures}
    return {**note, "shown": shown} if shown else note


def _array(array_path: Path, opened: ExitStack, shape: tuple[int, ...] | None = None) -> np.memmap:
    """An unfinished array to write to: an empty one of this shape, else a copy of the one that is there."""
    path = opened.enter_context(unfinished_file(array_path))
    if shape is not None:
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    shutil.copyfile(array_path, path)
    return np.load(path, mmap_mode="r+")


def _decode(
    record: VideoRecord, *, num_frames: int, size: int, fit: str
) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The frames of a record, and where they keep their shape the (height, width) displayed."""
    shown: dict[tuple[int, int], tuple[int, int]] = {}

    def kept(height: int, width: int) -> tuple[int, int]:
        held = held_size(height, width, size=size)
        shown.setdefault(held, (height, width))
        return held

    square = Scale(1, size, 1)
    frames = read_frames(
        record.path,
        partial(uniform_indices, num_frames=num_frames),
        size=kept if fit == "keep" else read_size(square, fit),
        start_seconds=record.start,
        end_seconds=record.end,
    )
    if fit == "keep":
        return frames, shown[frames.shape[1:3]]
    return fitted(torch.from_numpy(frames), square, fit).numpy(), None
