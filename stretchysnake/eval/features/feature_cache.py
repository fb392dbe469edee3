"""FeatureSets on disk: safetensors with a JSON manifest beside it, and a cache of them keyed by what they are.

A file pair `NAME.safetensors` (features, labels) and `NAME.json` (paths, groups, scale, model, sha256 of the
former). The manifest is written last, so a pair without one is unfinished. No pickle is ever read.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from stretchysnake.data.clips.seen_picture import shown_fit
from stretchysnake.data.records_key import records_key
from stretchysnake.eval.features.extraction import FeatureSet, extract, model_hash
from stretchysnake.eval.features.placed_model import precision_of
from stretchysnake.flexibility import Scale
from stretchysnake.models.backbone import Backbone
from stretchysnake.ranks import SINGLE, Runtime
from stretchysnake.whole_file import Damaged, write_whole

VERSION = 2
"""Raise it when the same weights and clips would give other features. 2: resized as in training; entries of 1 are
made anew under another name, and can be deleted."""
VIEWS = "1 view"


def save_features(path: str | os.PathLike, features: FeatureSet) -> None:
    """Write path (ending in .safetensors) and its manifest; each appears whole or not at all."""
    path = _checked(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save({"features": features.features.contiguous(), "labels": features.labels})
    manifest = {
        "version": VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        "model": features.model,
        "scale": asdict(features.scale),
        "num_expected": features.num_expected,
        "views": VIEWS,
        "paths": features.paths,
        "groups": features.groups,
        "segments": features.segments,
        "precision": features.precision,
        "fit": features.fit,
    }
    _manifest(path).unlink(missing_ok=True)
    write_whole(path, content)
    write_whole(_manifest(path), json.dumps(manifest, indent=1))


def load_features(path: str | os.PathLike, *, model: str | None = None) -> FeatureSet:
    """The FeatureSet of `save_features`; `model` is the model_hash it must be of, where one is asked for.

    Damaged, a ValueError, when a file is missing, torn or changed; ValueError for other weights.
    """
    path = _checked(path)
    if not path.is_file() or not _manifest(path).is_file():
        absent = path if not path.is_file() else _manifest(path)
        raise Damaged(f"{path}: {absent.name} is missing; extract the features again")
    try:
        manifest = json.loads(_manifest(path).read_text())
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
            raise Damaged(f"{path}: content differs from its sha256; extract it again")
        if model is not None and manifest["model"] != model:
            raise ValueError(
                f"{path}: features of model {manifest['model']}, not of {model}; they do not belong to "
                "these weights, use another folder or delete them"
            )
        tensors = load(content)
        return FeatureSet(
            tensors["features"],
            tensors["labels"],
            manifest["groups"],
            manifest["paths"],
            Scale(**manifest["scale"]),
            manifest["num_expected"],
            manifest["model"],
            [tuple(segment) for segment in manifest.get("segments", [])],
            manifest.get("fit", "square"),
            manifest.get("precision", "fp32"),
        )
    except (
        json.JSONDecodeError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        SafetensorError,
    ) as error:
        raise Damaged(
            f"{path}: not a stored feature set ({type(error).__name__}: {error}); extract it again"
        ) from None


def cached_features(
    model: Backbone,
    clips,
    scale: Scale,
    *,
    folder: str | os.PathLike | None,
    batch_size: int = 32,
    progress: Callable[[str], None] | None = None,
    notes: list[str] | None = None,
    weights: str | None = None,
    num_views: int = 1,
    runtime: Runtime = SINGLE,
) -> FeatureSet:
    """`extract`, or what it gave before: kept in folder under (weights, clips, scale, views, precision).

    None as folder extracts. A damaged entry is extracted again, and said in notes; one of other weights
    under this key (a renamed file) is refused. The batch size is no part of the key. With several ranks rank 0
    alone reads and writes the folder, and the others get None for what it found there.
    """
    weights = weights or model_hash(model)
    options = {
        "batch_size": batch_size,
        "progress": progress,
        "weights": weights,
        "num_views": num_views,
        "runtime": runtime,
    }
    if folder is None:
        return extract(model, clips, scale, **options)
    features = None
    if runtime.is_first:
        views = {"num_views": num_views, "precision": precision_of(model)}
        key = features_key(weights, clips, scale, **views)
        path = Path(folder) / f"{key}.safetensors"
        if _manifest(path).exists():
            try:
                features = load_features(path, model=weights)
                # of the centre, earlier versions kept the fit that was asked for first
                features = replace(features, fit=shown_fit(clips.picture, clips.fit))
            except Damaged as error:
                (notes if notes is not None else []).append(str(error))
    if runtime.from_first("" if features is None else "found"):
        return features  # None on the other ranks: rank 0 alone measures
    features = extract(model, clips, scale, **options)
    if runtime.is_first:
        save_features(path, features)
    return features


def features_key(
    weights: str, clips, scale: Scale, *, precision: str = "fp32", num_views: int = 1
) -> str:
    """32 hex digits for (weights, clips, scale, views, precision, and what the views see of the videos).

    Clips are named by `records_key`, with whole paths, which a stored FeatureSet holds. Those of a frame cache have
    the cache's key, a hash of their bytes, instead of sizes and times of change.
    """
    cache = getattr(clips, "cache", None)
    described = {
        "version": VERSION,
        "weights": weights,
        "views": VIEWS if num_views == 1 else f"{num_views} views",
        "picture": clips.picture or "whole",
        "sampling": clips.sampling.name,
        "scale": asdict(scale),
        "cache": cache.key if cache is not None else None,
        "failures": len(clips.failures),
        "records": records_key(clips.records, whole_paths=True, files=cache is None),
    }
    if clips.decoder != "pyav":  # features of earlier versions keep their names
        described["decoder"] = clips.decoder
    if precision != "fp32":  # likewise
        described["precision"] = precision
    if clips.fit == "keep":  # a crop is the picture "centre"
        described["fit"] = clips.fit
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]


def _checked(path: str | os.PathLike) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path ({path}) must end in .safetensors; the manifest goes beside it")
    return path


def _manifest(path: Path) -> Path:
    return path.with_suffix(".json")
