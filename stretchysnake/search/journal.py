"""An index being made: what is done survives a kill at any moment, and the last step is all or nothing.

    index/.unfinished/
      lock, settings.json
      features.f32    rows of finished videos, appended
      done.jsonl      one line per finished video, appended after its rows
      features.npy, meta.jsonl, manifest.json    the whole new index; once the manifest is there it only has to be moved

Rows are believed when their digest is that of their line; a torn end is cut off and made again.

Covered: a process that ends at any instruction loses the video it was at and no other; a reader sees the old index, the
new one, or the error that it is being written, never a mixture; two writers on one machine (a lock); features changed
by accident. Not covered: features and lines changed together on purpose, since a digest is no signature; a power cut,
after which lines that the system had not written are made again; two writers on several machines, where the file
system does not pass locks on, or on Windows.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import numpy as np

from stretchysnake.search.index import (
    FEATURES,
    MANIFEST,
    META,
    IndexRow,
    IndexSettings,
    digest,
    is_index,
    read_index,
    write_parts,
)
from stretchysnake.whole_file import write_whole


class Journal:
    """The videos done so far of an index with these settings, old ones included; a context manager.

    ValueError when the folder holds an index of other settings, other files, or is being written by another process.
    """

    def __init__(self, folder: str | os.PathLike, settings: IndexSettings, weights: str):
        self.folder, self.settings, self.weights = Path(folder), settings, weights
        self.place = self.folder / ".unfinished"
        self.done: dict[str, list[tuple[IndexRow, np.ndarray]]] = {}
        self._fresh = 0
        self._was_finished = False

    def __enter__(self) -> "Journal":
        self._refuse_other_folders()
        self.place.mkdir(parents=True, exist_ok=True)
        self._lock = locked(self.place / "lock", f"out ({self.folder}) is being written")
        try:
            if (self.place / MANIFEST).is_file():  # killed while the finished files were moved
                self._move()
            self._read_old()
            self._read_unfinished()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (getattr(self, "_rows", None), getattr(self, "_lines", None), self._lock):
            if file is not None:
                file.close()
        done = self.place / "done.jsonl"
        if self.place.exists() and not (done.exists() and done.stat().st_size):  # nothing to keep
            shutil.rmtree(self.place)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _refuse_other_folders(self) -> None:
        if not self.folder.is_dir():
            return
        ours = {FEATURES, META, MANIFEST, ".unfinished"}
        names = {path.name for path in self.folder.iterdir()}
        if names and not names & {MANIFEST, ".unfinished"}:
            raise ValueError(
                f"out ({self.folder}) holds {min(names - ours or names)}, which is no index; choose an empty folder"
            )

    def _read_old(self) -> None:
        if not is_index(self.folder):
            return
        old = read_index(self.folder)
        self._same(old.settings, "an index")
        self._was_finished = True
        self._old_failures, self._old_weights = sorted(old.failures), old.weights
        for row, features in zip(old.rows, old.features, strict=True):
            self.done.setdefault(row.file.path, []).append((row, features))

    def _read_unfinished(self) -> None:
        settings = self.place / "settings.json"
        if settings.exists():
            try:
                earlier = IndexSettings.from_dict(json.loads(settings.read_text()))
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{settings} is damaged; delete {self.place} to start over"
                ) from None
            self._same(earlier, "an unfinished index")
        else:
            write_whole(settings, json.dumps(asdict(self.settings)))
        self._rows = open(self.place / "features.f32", "ab+")  # noqa: SIM115 closed by __exit__
        self._lines = open(self.place / "done.jsonl", "ab+")  # noqa: SIM115
        self._lines.seek(0)
        width, first, good = self.settings.width, 0, 0
        whole = os.fstat(self._rows.fileno()).st_size // (4 * width)
        stored = np.zeros((0, width), "<f4")
        if whole:
            stored = np.memmap(self.place / "features.f32", "<f4", "c", shape=(whole, width))
        for line in self._lines.read().splitlines(keepends=True):
            entry = _entry(line)
            if entry is None:
                break
            rows = [IndexRow.from_dict(row) for row in entry["rows"]]
            block = stored[first : first + len(rows)]
            if len(block) != len(rows) or digest(block) != entry["digest"]:
                break
            self.done[entry["path"]] = list(zip(rows, block, strict=True))
            self._fresh += 1
            first, good = first + len(rows), good + len(line)
        self._rows.truncate(first * 4 * width)
        self._lines.truncate(good)

    def _same(self, earlier: IndexSettings, what: str) -> None:
        if difference := earlier.differences(self.settings):
            raise ValueError(
                f"out ({self.folder}) holds {what} of other settings ({difference}); choose another folder, "
                "or delete it to start over"
            )

    def add(self, rows: Sequence[IndexRow], features: np.ndarray) -> None:
        """Keep the rows of one finished video; features (n, C) fp32."""
        path = rows[0].file.path
        block = np.ascontiguousarray(features, "<f4")
        entry = {"path": path, "digest": digest(block), "rows": [row.to_dict() for row in rows]}
        self._rows.write(block.tobytes())
        self._rows.flush()
        self._lines.write((json.dumps(entry) + "\n").encode())
        self._lines.flush()
        self.done[path] = list(zip(rows, block, strict=True))
        self._fresh += 1

    def keep(self, rows: Sequence[IndexRow]) -> None:
        """The same content under a new time stamp: its features stay."""
        self.add(rows, np.stack([features for _, features in self.done[rows[0].file.path]]))

    def finish(self, failures: Sequence[tuple[str, str]], dropped: Sequence[str]) -> None:
        """Write the index, without the videos in `dropped`, and remove the journal."""
        gone = {path for path in dropped if self.done.pop(path, None) is not None}
        unchanged = self._was_finished and not self._fresh and not gone
        latest = (sorted(failures), self.weights)
        if unchanged and latest == (self._old_failures, self._old_weights):
            shutil.rmtree(self.place)
            return
        pairs = [pair for path in sorted(self.done) for pair in self.done[path]]
        rows = [row for row, _ in pairs]
        write_parts(
            self.place, self.settings, self.weights, rows, (pair[1] for pair in pairs), failures
        )
        self._move()
        shutil.rmtree(self.place)

    def _move(self) -> None:
        # the manifest last: without it the move starts again
        for name in (FEATURES, META, MANIFEST):
            if (self.place / name).exists():
                os.replace(self.place / name, self.folder / name)
        for name in ("features.f32", "done.jsonl"):
            (self.place / name).unlink(missing_ok=True)


def _entry(line: bytes) -> dict | None:
    """A line of done.jsonl, None when it is torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"path", "digest", "rows"} <= entry.keys() else None


def locked(path: Path, what: str):
    """The open lock file, held until it is closed or this process ends; forked processes do not inherit it.

    ValueError, "`what` by another process", where another one holds it.
    """
    file = open(path, "a+")  # noqa: SIM115 held open
    try:
        import fcntl
    except ImportError:  # Windows: two writers at once are not noticed
        return file
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ValueError(f"{what} by another process; wait for it to end") from None
    return file
