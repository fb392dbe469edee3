"""What lies in a folder: its videos, found the same way by every verb, and what is passed over, counted.

Hidden and system folders are passed over, linked folders are followed, each real folder once. The folder that a caller
names is read whatever its name.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from stretchysnake.data.containers.container_length import first_bytes
from stretchysnake.data.lists import is_video_name

_SYSTEM_NAMES = {
    # archives of macOS and its servers
    *("__macosx", "network trash folder", "temporary items", "icon\r"),
    # Windows
    *("$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db"),
    "desktop.ini",
    # Linux, and the servers of Synology, QNAP and NetApp
    *("lost+found", "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "~snapshot"),
    "@recently-snapshot",
    "__pycache__",
}
"""In lower case; a system keeps its own there. Names that begin with a dot are hidden besides."""

_PROGRAM_TEXT = (".ts", ".mts")  # TypeScript carries the endings of transport streams


@dataclass(kw_only=True)
class PassedOver:
    """What lies in a folder, or stands in a list, and is not read; as text it is one line, "" when there is nothing."""

    endings: Counter = field(default_factory=Counter)
    """Files that are no videos, by their ending."""
    hidden_folders: list[str] = field(default_factory=list)
    hidden_files: int = 0
    links: list[str] = field(default_factory=list)
    """Linked folders whose files were found at another place already, or that lead back to a folder around them."""
    closed: list[str] = field(default_factory=list)
    """Folders that this user may not open."""
    beside: int = 0
    """Videos beside the class folders, which have no class."""
    empty: list[str] = field(default_factory=list)
    """Class folders without a video."""
    comments: int = 0
    """Lines of a list that begin with #."""

    def as_json(self) -> dict:
        return {**vars(self), "endings": dict(sorted(self.endings.items()))}

    def __str__(self) -> str:
        often = sorted(self.endings.items(), key=lambda item: (-item[1], item[0]))
        others = ", ".join(f"{name} {count}" for name, count in often[:6])
        more = ", ..." if len(self.endings) > 6 else ""
        parts = [
            _counted(self.endings.total(), "file that is no video", "files that are no videos")
            + f" ({others}{more})",
            _named(self.hidden_folders, "hidden folder", "hidden folders"),
            _counted(self.hidden_files, "hidden file", "hidden files"),
            _named(self.links, "linked folder seen already", "linked folders seen already"),
            _named(self.closed, "folder that cannot be opened", "folders that cannot be opened"),
            _counted(
                self.beside, "video beside the class folders", "videos beside the class folders"
            ),
            _named(self.empty, "class folder without a video", "class folders without a video"),
            _counted(self.comments, "comment line", "comment lines"),
        ]
        told = [part for part in parts if not part.startswith("0 ")]
        return f"passed over: {', '.join(told)}" if told else ""


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _named(names: list[str], one: str, many: str) -> str:
    first = ", ".join(dict.fromkeys(PurePath(name).name for name in names[:30]))
    return f"{_counted(len(names), one, many)} ({first[:80]}{'...' if len(first) > 80 else ''})"


def is_hidden(name: str) -> bool:
    """Whether a file's or folder's own name says that it belongs to a system, not to the data."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def files_in(root: str | os.PathLike, passed: PassedOver | None = None) -> Iterator[str]:
    """Every file under `root`, relative to it, with '/'; `passed` is told what is left out.

    Real folders come first, so that a file that lies inside keeps its own place when a link leads to it as well. A
    link to a file is a file, also one that leads nowhere: whoever opens it says so.
    """
    passed = PassedOver() if passed is None else passed
    root = os.fspath(root)
    around = os.path.join(os.path.realpath(root), "")
    seen: set[str] = set()
    linked = deque([""])
    while linked:
        start = linked.popleft()
        real = os.path.realpath(os.path.join(root, start))
        if start and around.startswith(os.path.join(real, "")):
            passed.links.append(start)
            continue
        folders = [(start, real)]
        while folders:
            inside, real = folders.pop()
            if real in seen:
                passed.links.append(inside)
                continue
            seen.add(real)
            below, files = _listed(root, inside, passed, linked)
            yield from files
            folders += [(f"{inside}/{name}" if inside else name, os.path.join(real, name))
                        for name in reversed(below)]  # fmt: skip


def _listed(
    root: str, inside: str, passed: PassedOver, linked: deque[str]
) -> tuple[list[str], list[str]]:
    """(names of the real folders, relative paths of the files) of one folder, sorted; linked folders go to `linked`."""
    folders, files = [], []
    try:
        with os.scandir(os.path.join(root, inside)) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:
        passed.closed.append(inside or root)
        return folders, files
    for entry in entries:
        is_folder = _is_folder(entry)
        if is_hidden(entry.name):
            if is_folder:
                passed.hidden_folders.append(entry.name)
            else:
                passed.hidden_files += 1
            continue
        path = f"{inside}/{entry.name}" if inside else entry.name
        if not is_folder:
            if entry.is_symlink() or entry.is_file():
                files.append(path)
            else:  # a pipe or a device: opening it may wait for ever
                passed.endings["special"] += 1
        elif entry.is_symlink():
            linked.append(path)
        else:
            folders.append(entry.name)
    return folders, files


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def videos_in(root: str | os.PathLike, passed: PassedOver | None = None) -> Iterator[str]:
    """The files under `root` that end like videos, relative to it; others are counted in `passed`."""
    passed = PassedOver() if passed is None else passed
    for path in files_in(root, passed):
        ending = PurePath(path).suffix.lower()
        if not is_video_name(path):
            passed.endings[ending or "no ending"] += 1
        elif ending in _PROGRAM_TEXT and _is_text(os.path.join(root, path)):
            passed.endings[f"{ending} of text"] += 1
        else:
            yield path


def _is_text(path: str) -> bool:
    """Whether a file begins like text; a transport stream has control characters in its first packet."""
    head = first_bytes(path, 1024)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    text = head.decode("utf-8", errors="ignore")  # the last character may be cut
    return bool(text) and all(letter.isprintable() or letter in "\t\r\n\f\ufeff" for letter in text)


def class_folders(
    folder: str | os.PathLike, passed: PassedOver | None = None
) -> dict[str, list[str]]:
    """Class name -> its videos, both sorted, of a folder with one sub-folder per class; "" holds those beside."""
    passed = PassedOver() if passed is None else passed
    by_class: dict[str, list[str]] = {}
    for path in videos_in(folder, passed):
        name, slash, _ = path.partition("/")
        by_class.setdefault(name if slash else "", []).append(str(Path(folder, path)))
    passed.beside += len(by_class.get("", ())) if len(by_class) > 1 else 0
    links = set(passed.links)
    passed.empty += sorted(
        entry.name
        for entry in Path(folder).iterdir()
        if entry.is_dir() and not is_hidden(entry.name) and entry.name not in {*by_class, *links}
    )
    return {
        name: sorted(by_class[name], key=lambda path: path.split("/")) for name in sorted(by_class)
    }
