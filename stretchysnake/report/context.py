"""What the page tells beside the numbers: suites, trainings, how it was made. Saved as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from stretchysnake.whole_file import write_whole


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
    sample_clips: Sequence[str | Path] = ()
    """mp4 files; the first six below 200 kB are embedded."""


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


@dataclass(frozen=True, kw_only=True)
class ReportContext:
    """Everything on the page that is not a measured row."""

    title: str = "One video model, every scale"
    summary: str = ""
    suites: Sequence[SuiteInfo] = ()
    training: Sequence[TrainingInfo] = ()
    commands: Sequence[str] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    """The run's resolved settings, by name."""
    seeds: Sequence[int] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """As `results.environment()` returns it."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    notes: Sequence[str] = ()
    """Further limits of this very run, one sentence each."""


def write_context(path: str | Path, context: ReportContext) -> None:
    """Writes the context as JSON, whole or not at all: a page can be made again from it."""
    text = json.dumps(asdict(context), indent=1, default=os.fspath, allow_nan=False)
    write_whole(path, text + "\n")


def read_context(path: str | Path) -> ReportContext:
    """Reads what `write_context` wrote."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        suites = [SuiteInfo(**suite) for suite in found.pop("suites", ())]
        training = [TrainingInfo(**training) for training in found.pop("training", ())]
        return ReportContext(**found, suites=suites, training=training)
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a report context ({error}).") from None
