"""A change of an index: prepared beside it under a lock, and made by moving one file, its manifest.

    index/.unfinished/
      lock
      segment.npy, segment.safetensors    a segment that is being written
      manifest.json                       once it is there the change only has to be moved

Segments are put beside the old ones before the manifest, and those that no manifest names are deleted after it. So a
reader sees the old index or the new one, and a process that ends at any instruction leaves one of them.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stretchysnake.eval.features.feature_table import FEATURES, MANIFEST, META
from stretchysnake.search.index import FORMAT
from stretchysnake.search.segments.segment import features_file, removed_file, rows_file

UNFINISHED = ".unfinished"
ROWS, LINES = "features.f32", "done.jsonl"
"""The journal's files; no change that is ready to be moved needs them."""
_OURS = re.compile(
    r"\.?(features|rows|removed|ivf)-[0-9a-f]{16}(\.\d+\.part)?\.(npy|safetensors|faiss)"
    rf"|{re.escape(FEATURES)}|{re.escape(META)}"
)


@contextmanager
def written_index(folder: Path) -> Iterator[Path]:
    """The folder for what is unfinished; locked, and a change that only had to be moved is moved.

    Left behind is what a journal needs to go on, and nothing else. ValueError where the folder is another's, or where
    another process writes.
    """
    refuse_other_folders(folder)
    place = folder / UNFINISHED
    place.mkdir(parents=True, exist_ok=True)
    lock = locked(place / "lock", f"out ({folder}) is being written")
    try:
        if (place / MANIFEST).is_file():
            commit(folder)
        clean(folder)
        yield place
    finally:
        lock.close()
        lines = place / LINES
        if place.exists() and not (lines.exists() and lines.stat().st_size):  # nothing to keep
            shutil.rmtree(place)
            clean(folder)
            if not any(folder.iterdir()):
                folder.rmdir()


def commit(folder: Path) -> None:
    """Move the manifest that lies ready to its place, and delete what it does not name."""
    place = folder / UNFINISHED
    for name in (FEATURES, META):  # of an earlier version, killed while it moved them
        if (place / name).exists():
            os.replace(place / name, folder / name)
    for name in (LINES, ROWS):
        (place / name).unlink(missing_ok=True)
    os.replace(place / MANIFEST, folder / MANIFEST)
    clean(folder)


def clean(folder: Path) -> None:
    """Delete the files of segments that the manifest of the folder does not name, left by a change or a kill."""
    named = {FEATURES, META}
    if (folder / MANIFEST).is_file():
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
        except ValueError:
            return  # whoever reads it says so
        if manifest.get("format") == FORMAT:
            named = set(manifest.get("approximate", {}).get("files", {}).values())
            for entry in manifest["segments"]:
                named |= {features_file(entry["name"]), rows_file(entry["name"])}
                if entry.get("removed"):
                    named.add(removed_file(entry["removed"]["name"]))
    for path in list(folder.iterdir()):
        if path.name not in named and _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)


def refuse_other_folders(folder: Path) -> None:
    """ValueError where a folder holds something and is no index."""
    if not folder.is_dir():
        return
    names = {path.name for path in folder.iterdir()}
    if names and not names & {MANIFEST, UNFINISHED}:
        foreign = {name for name in names if not _OURS.fullmatch(name)}
        raise ValueError(
            f"out ({folder}) holds {min(foreign or names)}, which is no index; choose an empty folder"
        )


def refuse_unfinished(place: Path, folder: Path) -> None:
    """ValueError where an `embed` into the folder was interrupted and its videos are not in the index yet."""
    lines = place / LINES
    if lines.exists() and lines.stat().st_size:
        raise ValueError(
            f"index ({folder}) holds videos of an interrupted embed; run the same embed once more first"
        )


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
