"""An index on disk: features of videos, what each row is of, and what they were made with.

    index/
      features.npy    (rows, C) fp32, sorted by path and time; readable with np.load(mmap_mode="r")
      meta.jsonl      one line per row: path, start, end (seconds), group, class, size and SHA-256 of the file
      manifest.json   weights (path, SHA-256), scale, sampling, decoder, SHA-256 of the two files, bad videos

The manifest is believed only when both files are the ones it names.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path

import numpy as np

from stretchysnake.data.clips.transforms import RESAMPLER
from stretchysnake.data.decoding.fit import checked_fit
from stretchysnake.data.decoding.video_track import OLDEST_AV
from stretchysnake.eval.features.feature_table import FEATURES, MANIFEST, META, write_feature_table
from stretchysnake.flexibility import Scale
from stretchysnake.whole_file import Damaged, sha256_of

FORMAT = "stretchysnake-index-1"
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
        """The settings that `asdict` and JSON made these values from."""
        return cls(**{**values, "scale": Scale(**values["scale"])})

    def differences(self, other: "IndexSettings") -> str:
        """In words, what other has differently; empty when nothing."""
        different = []
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if field.name == "architecture" and not (mine and theirs):
                continue
            if mine != theirs:
                mine, theirs = (
                    str(v)[:12] if "sha256" in field.name else v for v in (mine, theirs)
                )
                different.append(f"{field.name} {mine} against {theirs}")
        return "; ".join(different)


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """A video as it was when its features were made."""

    path: str
    size: int
    mtime_ns: int
    sha256: str
    group: str = ""
    """Videos of one group are parts of one recording, e.g. `g01` of UCF-101; "" where nothing is known."""
    class_name: str = ""


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """What one row of the features is of."""

    file: VideoFile
    start: float = 0.0
    end: float | None = None
    """Seconds; None means the video's end."""
    repeated: bool = False
    """Fewer than T different frames were there."""

    @classmethod
    def from_dict(cls, values: dict) -> "IndexRow":
        part = {name: values[name] for name in ("start", "end", "repeated")}
        names = [field.name for field in fields(VideoFile)]
        return cls(file=VideoFile(**{name: values[name] for name in names}), **part)

    def to_dict(self) -> dict:
        part = {"start": self.start, "end": self.end, "repeated": self.repeated}
        return {**asdict(self.file), **part}


@dataclass(frozen=True, kw_only=True)
class Index:
    """A checked index, its features mapped from disk."""

    folder: str
    settings: IndexSettings
    weights: str
    """Where the weights were when the index was made."""
    features: np.ndarray
    rows: list[IndexRow]
    failures: list[tuple[str, str]]
    """(path, reason) of each video that could not be read."""
    av: str = ""
    """The version of PyAV that decoded; "" where it is not known."""


def is_index(folder: str | os.PathLike) -> bool:
    """Whether a finished index, of whatever format, lies there."""
    return (Path(folder) / MANIFEST).is_file()


def read_index(folder: str | os.PathLike) -> Index:
    """The index of a folder, every byte checked; Damaged, a ValueError, says what to do."""
    folder = Path(folder)
    again = "embed the videos again"
    if not is_index(folder):
        what = "is not there" if not folder.is_dir() else f"holds no {MANIFEST}"
        raise Damaged(
            f"index ({folder}) {what}; make it with: stretchysnake embed VIDEOS -o {folder} --weights W"
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest.get("format") != FORMAT:
            raise Damaged(
                f"index ({folder}) is of format {manifest.get('format', '(none, an older one)')}, this "
                f"version reads {FORMAT}; {again} into a new folder"
            )
        for name in (FEATURES, META):
            if sha256_of(folder / name) != manifest["sha256"][name]:
                raise Damaged(
                    f"index ({folder}): {name} is not the one its manifest names; it is being written or was "
                    "interrupted (run the same embed once more), or it is damaged (delete the folder and embed again)"
                )
        lines = (folder / META).read_text(encoding="utf-8").splitlines()
        rows = [IndexRow.from_dict(json.loads(line)) for line in lines]
        features = np.load(folder / FEATURES, mmap_mode="c")
        settings = IndexSettings.from_dict(manifest["settings"])
        failures = [(one["path"], one["reason"]) for one in manifest["failures"]]
        weights = str(manifest["weights"])
        av = str(manifest.get("versions", {}).get("av", ""))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(
            f"index ({folder}) cannot be read ({type(error).__name__}: {error}); {again}"
        ) from None
    except OSError as error:
        raise Damaged(f"index ({folder}): {error}; {again}") from None
    if features.shape != (len(rows), settings.width):
        raise Damaged(f"index ({folder}): features are {features.shape}; {again}")
    return Index(
        folder=str(folder),
        settings=settings,
        weights=weights,
        features=features,
        rows=rows,
        failures=failures,
        av=av,
    )


def made_otherwise(settings: IndexSettings, av: str = "") -> str:
    """What an index of an earlier version has in other pixels than a query of this one gets; "" when nothing."""
    reasons = []
    if settings.resampler != RESAMPLER:
        reasons.append(f"frames were resized by {settings.resampler}, now {RESAMPLER}")
    if av[:3].rstrip(".").isdigit() and int(av.split(".")[0]) < OLDEST_AV:
        reasons.append(f"av {av} read HD videos in other colours")
    return "; ".join(reasons)


def write_parts(
    folder: Path,
    settings: IndexSettings,
    weights: str,
    rows: Sequence[IndexRow],
    features: Iterable[np.ndarray],
    failures: Iterable[tuple[str, str]],
) -> None:
    """Write the three files of an index into `folder`, the manifest last. `features` gives row after row."""

    def manifest(hashes: dict[str, str]) -> dict:
        return {
            "format": FORMAT,
            "count": len(rows),
            "videos": len({row.file.path for row in rows}),
            "settings": asdict(settings),
            "weights": weights,
            "versions": {name: _version(name) for name in ("stretchysnake", "torch", "av")},
            "sha256": hashes,
            "failures": [{"path": path, "reason": reason} for path, reason in sorted(failures)],
        }

    meta = [row.to_dict() for row in rows]
    write_feature_table(folder, features, meta, width=settings.width, manifest=manifest)


def digest(rows: np.ndarray) -> str:
    """16 hex digits of the bytes of feature rows."""
    return hashlib.sha256(np.ascontiguousarray(rows, "<f4").tobytes()).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
