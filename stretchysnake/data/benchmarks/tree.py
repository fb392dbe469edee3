"""What lies under a data set's folder, listed once: official files found by name, videos found by key.

Official archives are unpacked in many ways (with or without the archive's own folder, classes in folders or flat), so
nothing is looked up at one fixed place: of several candidates the shallowest is taken, then the first by name.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from stretchysnake.data.folders import PassedOver, files_in
from stretchysnake.data.lists import is_video_name, read_text

_LIST_EXTENSIONS = (".txt", ".csv", ".json")


def _videos_and_lists(root: str, passed: PassedOver) -> tuple[list[str], list[str]]:
    videos, lists = [], []
    # there may be millions of extracted frames, too many to keep
    for path in files_in(root, passed):
        if is_video_name(path):
            videos.append(path)
        elif path.lower().endswith(_LIST_EXTENSIONS):
            lists.append(path)
    return videos, lists


def _shallowest(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=lambda path: (path.count("/"), path))


class Tree:
    """The folder of one data set.

    Reading fills `doubles`, the videos that lie there more than once (path used -> the others), and `notes`, what the
    reader left out.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        *,
        name: str,
        lists_from: str,
        annotations: str | os.PathLike | None = None,
    ):
        self.root, self.name, self.lists_from = os.fspath(root), name, lists_from
        self.annotations = self.root if annotations is None else os.fspath(annotations)
        for folder in (self.root, self.annotations):
            if not os.path.isdir(folder):
                raise ValueError(f"{folder}: no such folder; give the folder that holds {name}")
        passed = PassedOver()
        self.videos, self._lists = _videos_and_lists(self.root, passed)
        if annotations is not None:
            _, self._lists = _videos_and_lists(self.annotations, PassedOver())
        self.doubles: dict[str, list[str]] = {}
        self.notes: list[str] = [str(passed)] if str(passed) else []

    def find(self, *names: str) -> Path | None:
        """The official file whose path ends with the first of `names` that is there; None without any."""
        for name in names:
            if matches := _shallowest(p for p in self._lists if f"/{p}".endswith(f"/{name}")):
                return Path(self.annotations, matches[0])
        return None

    def official(self, *names: str) -> Path:
        """As `find`; ValueError saying where to get the file when there is none."""
        path = self.find(*names)
        if path is None:
            raise ValueError(
                f"{self.name}: no {names[0]} under {self.annotations}; get it from {self.lists_from}, "
                "or give the folder where it is as annotations (--annotations FOLDER)"
            )
        return path

    def matching(self, fits: Callable[[str], bool]) -> list[Path]:
        """The official files whose name fits, all from one folder, in sorted order."""
        paths = [path for path in self._lists if fits(PurePosixPath(path).name)]
        if not paths:
            return []
        folder = PurePosixPath(_shallowest(paths)[0]).parent
        return sorted(Path(self.annotations, p) for p in paths if PurePosixPath(p).parent == folder)

    def index(self, key: Callable[[PurePosixPath], Hashable | None]) -> dict[Hashable, list[str]]:
        """The videos by key; those with key None are no part of the data set."""
        by_key = defaultdict(list)
        for path in self.videos:
            value = key(PurePosixPath(path))
            if value is not None:
                by_key[value].append(path)
        return dict(by_key)

    def locate(self, index: dict[Hashable, list[str]], key: Hashable, expected: str) -> str:
        """The path of the video with this key; where it should lie when it is missing.

        Of several, the one at `expected` is taken, else a replacement (CVDF's `replacement_for_corrupted_k400`
        repairs files that stay beside it), else the shallowest.
        """
        candidates = _shallowest(index.get(key, ()))
        if not candidates:
            return os.path.join(self.root, expected)
        best = next((path for path in candidates if "replacement" in path.lower()), None)
        best = best or (expected if expected in candidates else candidates[0])
        path = os.path.join(self.root, best)
        if len(candidates) > 1:
            self.doubles[path] = [os.path.join(self.root, p) for p in candidates if p != best]
        return path


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, text) of the lines that are not blank; any line end, byte-order mark or not."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def read_json(path: Path, kind: type) -> list | dict:
    """The content of a JSON file, which must be of this kind (list or dict)."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise ValueError(
            f"{path} {place}: is no valid JSON ({error.msg}); get the file again"
        ) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of "["
        raise ValueError(f"{path}: is no usable JSON; get the file again") from None
    if not isinstance(content, kind):
        expected = {list: "an array", dict: "an object"}[kind]
        raise ValueError(f"{path}: found no {expected[3:]} at the top, expected {expected}")
    return content


def value(item, key, kind: type, place: str):
    """`item[key]` of one entry of an official JSON file; integers are labels, so 0 or more.

    ValueError naming place and key when it is not so.
    """
    content = item.get(key) if isinstance(item, dict) else None
    fits = isinstance(content, kind) and not isinstance(content, bool)
    if not fits or (kind is int and not 0 <= content < 10**9):
        expected = {str: "a string", int: "a whole number of 0 or more", dict: "an object"}[kind]
        raise ValueError(
            f"{place} ({key}): found {str(content)[:60]!r}, expected {expected}; get the official file again"
        )
    return content


def integer(text: str, place: str) -> int:
    """The whole number of 0 or more that `text` spells."""
    if not (text.isdecimal() and len(text) <= 9):
        raise ValueError(f"{place}: found {text[:60]!r}, expected a whole number of 0 or more")
    return int(text)
