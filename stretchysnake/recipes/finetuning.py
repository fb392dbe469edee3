"""A classifier from a folder per class: fine-tuned, or a probe or k-NN where there are too few clips for that."""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from stretchysnake.data.classes import Classes, number_classes
from stretchysnake.data.clips.loader import DecodedClips, DecodingLimits
from stretchysnake.data.copies import doubles_of, same_content, with_copies_grouped
from stretchysnake.data.decoding.fit import checked_fit
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.data.records import VideoRecord, is_utf8, place_of, read_records, write_records
from stretchysnake.eval.features.extraction import FeatureSet, extract
from stretchysnake.eval.features.placement import AUTO, Placement
from stretchysnake.eval.features.shapes import check_fit
from stretchysnake.eval.features.subject import fit_of, read_subject
from stretchysnake.eval.protocols.classifier import KINDS, WEIGHTS, Classifier, save_classifier
from stretchysnake.eval.protocols.probe import choose_strength, fit, held_out
from stretchysnake.flexibility import eval_scale
from stretchysnake.models.weights.files import save_model
from stretchysnake.results.intervals import Interval, wilson_interval
from stretchysnake.shown import shown
from stretchysnake.train.loop import train
from stretchysnake.train.run import OptimConfig, TrainRun

PROBE_NEEDS, FINETUNE_NEEDS = 5, 20
"""Training clips of the smallest class. Paper does not say; we use round numbers: a probe chooses its regularisation
on a fifth of them, and fine-tuning on fewer than twenty of a class mostly learns these clips by heart."""


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What was made, why this kind, and what it does on the videos held out."""

    kind: str
    reason: str
    classes: list[str]
    num_train: int
    paths: list[str]
    """Of the held-out videos that could be read."""
    labels: list[int]
    predicted: list[int]
    failures: list[str]

    @property
    def confusion(self) -> list[list[int]]:
        """Counts, one row per true class, one column per predicted one."""
        pairs = Counter(zip(self.labels, self.predicted, strict=True))
        return [[pairs[t, p] for p in range(len(self.classes))] for t in range(len(self.classes))]

    @property
    def num_right(self) -> int:
        return sum(t == p for t, p in zip(self.labels, self.predicted, strict=True))

    @property
    def accuracy(self) -> float:
        return self.num_right / len(self.labels)

    @property
    def interval(self) -> Interval:
        return wilson_interval(self.num_right, len(self.labels))


def finetune_folder(
    data: str,
    *,
    weights: str,
    out: str,
    method: str = "auto",
    num_frames: int | None = None,
    size: int | None = None,
    fit: str | None = None,
    steps: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    placement: Placement = AUTO,
    num_workers: int = 2,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Callable[[str], None] | None = None,
) -> Finetuned:
    """Make a classifier of the classes of a folder or list, write it into `out`, and judge it on a fifth held out.

    method "auto" takes what the smallest class has clips for: k-NN below 5, a linear probe below 20, else the whole
    model is fine-tuned, in the weights' own variant. The classes are the labels that occur. Videos held out train
    nothing; whole groups are held out together, and so are files with the same bytes. `fit` (data/decoding/fit.py) is
    by default how the weights were trained. batch_size clips share a step and a pass; num_workers processes decode.
    """
    if method not in ("auto", *KINDS):
        raise ValueError(f"method ({method!r}) must be one of: auto, {', '.join(KINDS)}")
    numbered = number_classes(read_records(data))
    classes = numbered.names
    if len(classes) < 2:
        raise ValueError(
            f"data holds one class ({classes[0]}); give a folder with one sub-folder per class"
        )
    copies = same_content(record.path for record in numbered.records)
    doubles = doubles_of(place_of(data), numbered.records, copies)
    doubtful = [double for double in doubles if len(double.labels) > 1]
    records = with_copies_grouped(numbered.records, copies)
    _say(data, [*_notes(numbered, copies), *doubtful[:5]])
    labels = torch.tensor([record.label for record in records])
    held = held_out(labels, [record.group for record in records], seed=seed)
    if not held.any():
        raise ValueError(
            f"data ({data}: {len(records)} videos) must have two videos of some class, to hold one out"
            + (", that are no copies or parts of one file" if records != numbered.records else "")
            + "; add videos"
        )
    train_records = [r for r, out_ in zip(records, held.tolist(), strict=True) if not out_]
    test_records = [r for r, out_ in zip(records, held.tolist(), strict=True) if out_]
    judged = {record.label for record in test_records}
    if lost := [name for label, name in enumerate(classes) if label not in judged]:
        told = f"{', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}"
        _say(data, [f"no video is held out of: {told}; nothing is measured on such classes"])
    distinct = {(copies[r.path], r.start, r.end, r.label): r for r in train_records}
    kind, reason = _method(method, list(distinct.values()), classes)
    if steps is not None and kind != "finetune":
        raise ValueError(
            f"steps ({steps}) are of fine-tuning, and this is none ({reason}); leave them out, or use method finetune"
        )
    model, variant, metadata = read_subject(weights, placement)
    scale = eval_scale(variant, num_frames=num_frames, size=size)
    fitted_as = checked_fit(fit or fit_of(metadata))
    check_fit(model.config, [scale], fit=fitted_as, way_out="choose other --frames or --size")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    failures: list[str] = []

    def features_of_records(records: list[VideoRecord]) -> FeatureSet:
        limits = DecodingLimits(num_workers=num_workers, timeout_seconds=timeout_seconds)
        clips = DecodedClips(records, fit=fitted_as, limits=limits)
        found = extract(model, clips, scale, batch_size=batch_size, progress=progress)
        failures.extend(str(error) for error in clips.bad.quarantine.values())
        failures.extend(str(error) for _, error in clips.failures)
        return found

    if kind == "finetune":
        absolute = [replace(r, path=str(Path(r.path).resolve())) for r in train_records]
        ending = "csv" if all(is_utf8(record.path) for record in absolute) else "jsonl"
        write_records(folder / f"train.{ending}", absolute)
        run = TrainRun(
            data=str(folder / f"train.{ending}"),
            out=out,
            variant=variant.name,
            sets=variant.sets,
            model=replace(model.config, num_classes=len(classes)),
            weights=weights,
            # Paper does not say; we use VideoMamba's fine-tuning layer decay and a third of the rate of pre-training.
            optim=OptimConfig(lr=3e-4, weight_decay=0.05, warmup=0.1, layer_decay=0.8),
            steps=400 if steps is None else steps,
            batch_size=batch_size,
            seed=seed,
            device=placement.device,
            precision=placement.precision,
            num_workers=num_workers,
            timeout_seconds=timeout_seconds,
            fit=fitted_as,
        )
        train(run, progress=progress)
        model, _, _ = read_subject(folder / WEIGHTS, placement)
    else:
        save_model(folder / WEIGHTS, model, **metadata)
        gallery = features_of_records(train_records)
        tensors = _fitted(kind, gallery)
    classifier = Classifier(
        model=model,
        kind=kind,
        classes=classes,
        scale=scale,
        tensors=tensors,
        fit=fitted_as,
        precision=placement.precision,
    )
    save_classifier(folder, classifier)
    test = features_of_records(test_records)
    if not test.paths:
        raise ValueError(
            f"none of the {len(test_records)} videos held out could be read; {failures[0]}"
        )
    return Finetuned(
        kind=kind,
        reason=reason,
        classes=classes,
        num_train=len(train_records),
        paths=test.paths,
        labels=test.labels.tolist(),
        predicted=classifier.probabilities(test.features).argmax(1).tolist(),
        failures=failures,
    )


def _say(data: str, notes: Sequence[object]) -> None:
    for note in notes:
        print(shown(f"{data}: {note}"), file=sys.stderr)


def _notes(numbered: Classes, content: dict[str, str]) -> list[str]:
    copies = [path for path, first in content.items() if path != first]
    notes = list(numbered.notes)
    if copies:
        one = len(copies) == 1
        notes.append(
            f"{len(copies)} of {len(content)} files {'is a copy of another' if one else 'are copies of others'}, e.g. "
            f"{copies[0]} = {content[copies[0]]}; copies are held out together"
        )
    return notes


def _method(method: str, records: Sequence[VideoRecord], classes: list[str]) -> tuple[str, str]:
    """(kind, why) of the classifier that these training videos are enough for."""
    counts = Counter(record.label for record in records)
    label, least = min(counts.items(), key=lambda item: (item[1], item[0]))
    if method != "auto":
        return method, f"{method}: asked for"
    told = f"{least} training clip{'s' * (least != 1)} in the smallest class ({classes[label]})"
    if least < PROBE_NEEDS:
        return (
            "knn",
            f"k-NN instead of fine-tuning: {told}; a linear probe needs {PROBE_NEEDS}, fine-tuning {FINETUNE_NEEDS}",
        )
    if least < FINETUNE_NEEDS:
        return (
            "probe",
            f"a linear probe instead of fine-tuning: {told}; fine-tuning needs {FINETUNE_NEEDS}",
        )
    return "finetune", f"fine-tuned: {told}"


def _fitted(kind: str, gallery: FeatureSet) -> dict[str, Tensor]:
    if kind == "knn":
        return {"features": gallery.features, "labels": gallery.labels}
    strength, _ = choose_strength(gallery)
    fitted = fit(gallery.features, gallery.labels, strength=strength)
    return {name: getattr(fitted, name) for name in ("classes", "weight", "bias", "mean", "scale")}
