"""What the page tells beside the numbers: suites, trainings, how it was made. Saved as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from stretchysnake.whole_file import write_whole

PICTURES = "pictures.json"


@dataclass(frozen=True, kw_only=True)
class SuiteInfo:
    """One data set of the report."""

    name: str
    dataset: str
    """As in `Row.dataset`."""
    description: str
    num_classes: int
    chance: float
    """Accuracy of guessing, a fraction."""
    contact_sheet_png: str | Path | None = None
    labels: Sequence[str] = ()
    """The class each row of the contact sheet shows, from the top."""
    sample_clips: Sequence[str | Path] = ()
    """mp4 files; the first six below 200 kB are embedded."""
    sample_labels: Sequence[str] = ()
    """The class of each sample clip; none: their file names stand alone."""


@dataclass(frozen=True, kw_only=True)
class TrainingInfo:
    """One trained model."""

    model: str
    seed: int
    steps: int
    seconds: float
    clips: int
    """Training clips seen, repeats included."""
    final_loss: float
    loss_curve: Sequence[tuple[int, float]] = ()
    """(step, loss)"""
    parameters: int
    scales: str
    """The scales seen in training, in words."""
    tokens: int = 0
    """Patch tokens seen; 0 in a context of an earlier version: not noted."""


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A picture made elsewhere (`stretchysnake visualize`), shown on the page."""

    path: str | Path
    """png, jpg or webp."""
    alt: str
    caption: str = ""
    section: str = "Features"
    """Heading that it stands under."""


@dataclass(frozen=True, kw_only=True)
class ReportContext:
    """Everything on the page that is not a measured row."""

    title: str = "One video model, every scale"
    summary: str = ""
    suites: Sequence[SuiteInfo] = ()
    training: Sequence[TrainingInfo] = ()
    trained_elsewhere: Sequence[str] = ()
    """Of weights that no training of this run made: whose they are, a sentence each."""
    commands: Sequence[str] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    """The run's resolved settings, by name."""
    seeds: Sequence[int] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """As `results.environment()` returns it."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    pictures: Sequence[PictureFile] = ()
    """Maps of activations and of features; embedded as long as they fit on the page."""
    notes: Sequence[str] = ()
    """Further limits of this very run, one sentence each."""


def write_context(path: str | Path, context: ReportContext, *, compact: bool = False) -> None:
    """Writes the context as JSON, whole or not at all: a page can be made again from it.

    `compact`: on one line, as a loss curve of a number a line weighs as much as the numbers.
    """
    form = {"separators": (",", ":"), "ensure_ascii": False} if compact else {"indent": 1}
    text = json.dumps(asdict(context), default=os.fspath, allow_nan=False, **form)
    write_whole(path, text + "\n")


def read_context(path: str | Path) -> ReportContext:
    """Reads what `write_context` wrote."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        suites = [SuiteInfo(**suite) for suite in values.pop("suites", ())]
        training = [TrainingInfo(**training) for training in values.pop("training", ())]
        pictures = [PictureFile(**picture) for picture in values.pop("pictures", ())]
        return ReportContext(**values, suites=suites, training=training, pictures=pictures)
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a report context ({error}).") from None


def read_pictures(folder: str | Path) -> list[PictureFile]:
    """The pictures that `write_pictures_list` recorded in a folder."""
    path = Path(folder) / PICTURES
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        pictures = [PictureFile(**picture) for picture in entries]
    except FileNotFoundError:
        raise ValueError(
            f"pictures ({folder}) must be a folder that stretchysnake visualize wrote; {PICTURES} is missing"
        ) from None
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path}: not a list of pictures ({error}).") from None
    return [replace(picture, path=Path(folder) / picture.path) for picture in pictures]


def write_pictures_list(folder: str | Path, pictures: Sequence[PictureFile]) -> None:
    """Records pictures that lie in the folder, so that a page can show them; those listed earlier are kept."""
    try:
        listed = {str(Path(p.path).name): p for p in read_pictures(folder)}
    except ValueError:
        listed = {}
    listed |= {Path(picture.path).name: picture for picture in pictures}
    entries = [asdict(replace(p, path=name)) for name, p in listed.items()]
    write_whole(Path(folder) / PICTURES, json.dumps(entries, indent=1) + "\n")
