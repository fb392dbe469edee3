"""An index on disk: features of videos, what each row is of, and what they were made with.

    index/
      manifest.json                   weights (path, SHA-256), scale, sampling, decoder, the segments and the SHA-256 of
                                      their files, bad videos
      features-NAME.npy               a segment each: (rows, C) fp32, sorted by path and time (segments/segment.py)
      rows-NAME.safetensors           what its rows are of: path, start, end (seconds), group, class, size, SHA-256
      removed-NAME.npy                which of its videos count no longer, where there are such

A segment is written once. Adding videos writes what is new, and joins it with small neighbours (segments/joining.py);
the manifest, written last, says which segments count, so a reader sees the index before a change or after it.
Opening maps the files and compares lengths; an index below HASHED bytes is hashed too, a larger one
on request (`check=True`). Indexes of format 1 (features.npy, meta.jsonl) are read, and renewed by the next change.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from importlib import metadata
from pathlib import Path

import numpy as np

from stretchysnake.data.clips.transforms import RESAMPLER
from stretchysnake.data.decoding.fit import checked_fit
from stretchysnake.data.decoding.video_track import OLDEST_AV
from stretchysnake.eval.features.feature_table import MANIFEST
from stretchysnake.flexibility import Scale
from stretchysnake.search.segments.flat import FLAT_FORMAT, check_flat, flat_segment
from stretchysnake.search.segments.rows import IndexRow, VideoFile
from stretchysnake.search.segments.segment import (
    Rows,
    Segment,
    check_segment,
    num_bytes,
    open_segment,
    refuse_changed,
)
from stretchysnake.whole_file import Damaged, write_whole

__all__ = ["Index", "IndexRow", "IndexSettings", "VideoFile", "read_index"]

FORMAT = "stretchysnake-index-2"
HASHED = 2**25
"""Bytes; an index of at most that size is hashed whole whenever it is opened, in less than a tenth of a second."""
AREA = "area"
EVEN_FRAMES = "uniform segments, frames repeated when the part is shorter than T"


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """What decides the features of a video; features of different settings cannot be compared."""

    weights_sha256: str
    width: int
    """Numbers per row."""
    scale: Scale
    window_seconds: float | None = None
    """Length of the windows, each a row of its own; None: one row per video."""
    stride_seconds: float | None = None
    """From the start of one window to the start of the next."""
    sampling: str = EVEN_FRAMES
    decoder: str = "pyav"
    resampler: str = AREA
    """How frames were resized; indexes of earlier versions do not say, and were made by area averaging."""
    architecture: str = ""
    """Of the model; indexes of earlier versions do not say, and their weights' SHA-256 tells as much."""
    precision: str = "fp32"
    """In which the model computed, as in Placement; those of earlier versions are of fp32."""
    fit: str = "square"
    """How pictures were fitted (data/decoding/fit.py); indexes of earlier versions do not say, and all are square."""

    def __post_init__(self):
        checked_fit(self.fit)
        for name in ("window_seconds", "stride_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} ({value}) must be more than 0 seconds")
        if self.decoder != "pyav" and self.window_seconds is not None:
            raise ValueError(
                f"decoder ({self.decoder}) decodes whole videos, and windows of window_seconds "
                f"({self.window_seconds:g}) come from one pass by pyav; leave the windows out, or use decoder pyav"
            )
        if self.stride_seconds is not None and self.window_seconds is None:
            raise ValueError(
                f"stride_seconds ({self.stride_seconds}) needs window_seconds; give both or neither"
            )

    @classmethod
    def from_dict(cls, values: dict) -> "IndexSettings":
        """The settings that `asdict` and JSON made these values from; ones that are not there have their defaults.

        ValueError for one that this version does not know: then a newer version made the index.
        """
        if unknown := sorted(values.keys() - {one.name for one in fields(cls)}):
            raise ValueError(
                f"settings ({', '.join(unknown)}) are of a newer version; update stretchysnake"
            )
        return cls(**{**values, "scale": Scale(**values["scale"])})

    def differences(self, other: "IndexSettings") -> str:
        """In words, what other has differently; empty when nothing."""
        different = []
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if one.name == "architecture" and not (mine and theirs):
                continue
            if mine != theirs:
                mine, theirs = (str(v)[:12] if "sha256" in one.name else v for v in (mine, theirs))
                different.append(f"{one.name} {mine} against {theirs}")
        return "; ".join(different)


@dataclass(frozen=True, kw_only=True)
class Index:
    """An open index, its segments mapped from disk."""

    folder: str
    settings: IndexSettings
    weights: str
    """Where the weights were when the index was made."""
    segments: list[Segment]
    failures: list[tuple[str, str]]
    """(path, reason) of each video that could not be read."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of stretchysnake and torch, when it was last written; of PyAV, the oldest that decoded."""
    approximate: dict = field(default_factory=dict)
    """What the manifest says of the approximate index beside it; {} where there is none (stores/ivf.py)."""

    @property
    def av(self) -> str:
        """The version of PyAV that decoded; "" where it is not known."""
        return str(self.versions.get("av", ""))

    @property
    def is_flat(self) -> bool:
        """Whether it is of the format of earlier versions."""
        return any(not segment.name for segment in self.segments)

    @cached_property
    def rows(self) -> Rows:
        """What every row is of, as a sequence: the segments one after the other, each sorted by path and time."""
        return Rows(self.segments)

    @property
    def num_videos(self) -> int:
        return sum(segment.num_videos for segment in self.segments)

    @property
    def features(self) -> np.ndarray:
        """(rows, C) fp32 in the order of `rows`: mapped where all lie in one segment, otherwise a copy in memory."""
        if len(self.segments) == 1 and not len(self.segments[0].removed):
            return self.segments[0].features
        parts = [segment.features[segment.counts()] for segment in self.segments]
        return np.concatenate([np.empty((0, self.settings.width), "<f4"), *parts])

    def pair(self, number: int) -> tuple[IndexRow, np.ndarray]:
        """What a row is of, and its features (C,)."""
        segment, row = self.rows.place(number)
        return segment.row(row), segment.features[row]

    def features_at(self, numbers: Iterable[int]) -> np.ndarray:
        """(n, C) fp32 of the rows of these numbers, copied."""
        places = [self.rows.place(number) for number in numbers]
        rows = [segment.features[row] for segment, row in places]
        return np.stack(rows) if rows else np.empty((0, self.settings.width), "<f4")

    def find(self, path: str) -> tuple[Segment, int] | None:
        """The segment of a video and its number there, None where the index does not hold it."""
        for segment in reversed(self.segments):
            if (video := segment.find(path)) is not None:
                return segment, video
        return None

    def under(self, prefix: str) -> Iterator[str]:
        """The paths that begin so."""
        for segment in self.segments:
            for video in segment.under(prefix):
                yield segment.file(video).path


def is_index(folder: str | os.PathLike) -> bool:
    """Whether a finished index, of whatever format, lies there."""
    return (Path(folder) / MANIFEST).is_file()


def read_index(folder: str | os.PathLike, *, check: bool = False) -> Index:
    """The index of a folder; Damaged, a ValueError, says what to do.

    Every byte is checked with `check`, or where there are at most HASHED of them; else the lengths of all files.
    """
    folder = Path(folder)
    again = "embed the videos again"
    for _ in range(20):
        if not is_index(folder):
            what = f"holds no {MANIFEST}" if folder.is_dir() else "is not there"
            if folder.is_file():
                raise Damaged(f"index ({folder}) is a file, and an index is a folder; give that")
            raise Damaged(
                f"index ({folder}) {what}; make it with: stretchysnake embed VIDEOS -o {folder} --weights W"
            )
        try:
            content = (folder / MANIFEST).read_bytes()
            return _opened(folder, json.loads(content), check)
        except Damaged:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise Damaged(
                f"index ({folder}) cannot be read ({type(error).__name__}: {error}); {again}"
            ) from None
        except OSError as error:
            # joined by a writer between the reading of the manifest and the opening of a segment
            changed = (folder / MANIFEST).is_file() and (folder / MANIFEST).read_bytes() != content
            if not (isinstance(error, FileNotFoundError) and changed):
                raise Damaged(f"index ({folder}): {error}; {again}") from None
    raise Damaged(f"index ({folder}) is being written all the time; try again")


def _opened(folder: Path, manifest: dict, check: bool) -> Index:
    form = manifest.get("format")
    if form not in (FORMAT, FLAT_FORMAT):
        raise Damaged(
            f"index ({folder}) is of format {form or '(none, an older one)'}, this "
            f"version reads {FORMAT}; embed the videos again into a new folder"
        )
    settings = IndexSettings.from_dict(manifest["settings"])
    if form == FLAT_FORMAT:
        check_flat(folder, manifest)
        segments = [flat_segment(folder, settings.width)]
    else:
        entries = manifest["segments"]
        if check or sum(num_bytes(folder, entry) for entry in entries) <= HASHED:
            for entry in entries:
                check_segment(folder, entry)
        if check:
            lists = manifest.get("approximate", {})
            for name, file in lists.get("files", {}).items():
                refuse_changed(folder, file, lists["sha256"][name])
        segments = [open_segment(folder, entry, settings.width) for entry in entries]
    return Index(
        folder=str(folder),
        settings=settings,
        weights=str(manifest["weights"]),
        segments=segments,
        failures=[(one["path"], one["reason"]) for one in manifest["failures"]],
        versions=dict(manifest.get("versions", {})),
        approximate=dict(manifest.get("approximate", {})),
    )


def made_otherwise(settings: IndexSettings, av: str = "") -> str:
    """What an index of an earlier version has in other pixels than a query of this one gets; "" when nothing."""
    reasons = []
    if settings.resampler != RESAMPLER:
        reasons.append(f"frames were resized by {settings.resampler}, now {RESAMPLER}")
    if av[:3].rstrip(".").isdigit() and int(av.split(".")[0]) < OLDEST_AV:
        reasons.append(f"av {av} read HD videos in other colours")
    return "; ".join(reasons)


def write_manifest(
    place: Path,
    settings: IndexSettings,
    weights: str,
    entries: Sequence[dict],
    failures: Iterable[tuple[str, str]],
    *,
    before: Sequence[Index] = (),
    approximate: dict | None = None,
) -> None:
    """Write the manifest of an index of these segments to a file; `before`: the indexes that rows were taken from."""
    versions = {name: _version(name) for name in ("stretchysnake", "torch", "av")}
    decoders = [version for version in [versions["av"], *(one.av for one in before)] if version]
    versions["av"] = min(decoders, key=_number_of)
    removed = [entry["removed"] for entry in entries if entry.get("removed")]
    manifest = {
        "format": FORMAT,
        "count": sum(entry["rows"] for entry in entries) - sum(one["rows"] for one in removed),
        "videos": sum(entry["videos"] for entry in entries) - sum(one["videos"] for one in removed),
        "settings": asdict(settings),
        "weights": weights,
        "versions": versions,
        "segments": list(entries),
        "failures": [{"path": path, "reason": reason} for path, reason in sorted(failures)],
        **({"approximate": approximate} if approximate else {}),
    }
    write_whole(place, json.dumps(manifest, indent=1))


def _number_of(version: str) -> list[int]:
    """To sort versions by; one that is none sorts last."""
    parts = version.split(".")
    return [int(part) if part.isdigit() else 10**6 for part in parts]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
