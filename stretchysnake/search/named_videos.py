"""The videos that files, folders and lists name: which there are, which are gone, which are as an index has them."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from stretchysnake.data.lists import LIST_EXTENSIONS
from stretchysnake.data.records import find_videos, read_records
from stretchysnake.data.records_key import file_stamp
from stretchysnake.search.decoding import Video
from stretchysnake.search.index import VideoFile


def videos_named(paths, *, absolute: bool = False) -> list[Video]:
    """The videos that files, folders and lists name, each once; groups and classes from lists, or UCF-101's names.

    A list needs no label here: paths alone do.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    by_path: dict[str, Video] = {}
    for path in paths:
        if Path(path).suffix.lower() in LIST_EXTENSIONS and not Path(path).is_dir():
            for record in read_records(path, labelled=False):
                if record.start is not None or record.end is not None:
                    raise ValueError(
                        f"{path}: gives start and end of {record.path}; an index is of whole videos or of "
                        "windows (window_seconds), leave these columns out"
                    )
                place = os.path.abspath(record.path) if absolute else record.path
                group = record.group or group_of(place)
                by_path[place] = Video(path=place, group=group, class_name=record.class_name)
            continue
        for video in find_videos([path]):
            place = os.path.abspath(video) if absolute else video
            by_path.setdefault(place, Video(path=place, group=group_of(place)))
    return list(by_path.values())


def group_of(path: str) -> str:
    """The group that a UCF-101 file name tells, `v_Archery_g01` of v_Archery_g01_c03.avi; "" for other names."""
    match = re.fullmatch(r"(v_\w+_g\d+)_c\d+", Path(path).stem)
    return match[1] if match else ""


def shard_of(text: str) -> tuple[int, int]:
    """(k, n) of a text k/n, 1 <= k <= n; ValueError for another."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(
            f"shard ({text}) must be k/n with k from 1 to n, e.g. 2/5 for the second of five parts, or env"
        )
    return number, count


def in_shard(videos: list[Video], shard: tuple[int, int]) -> list[Video]:
    """Those of the k-th of n parts. The hash of its path says where a video belongs, so a list may grow meanwhile."""
    number, count = shard
    return [video for video in videos if _hash(video.path) % count == number - 1]


def _hash(path: str) -> int:
    # the first 8 bytes of SHA-256: the same on every machine, and of nothing but the path
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def gone_from(
    paths, indexed_under: Callable[[str], Iterable[str]], video_paths: set[str]
) -> list[str]:
    """Videos of the index that lie under a folder given and are not found there any more.

    indexed_under gives the videos of the index whose path begins with a text.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    folders = [os.path.join(os.path.abspath(path), "") for path in paths if os.path.isdir(path)]
    indexed = dict.fromkeys(path for folder in folders for path in indexed_under(folder))
    return [path for path in indexed if path not in video_paths]


def is_unchanged(video: Video, file: VideoFile) -> bool:
    """Whether the file has the size and time that the index knows, and the group and class."""
    same = file_stamp(video.path) == (file.size, file.mtime_ns)
    return same and (video.group, video.class_name) == (file.group, file.class_name)
