"""What models see: activation maps over the frames of videos, and t-SNE of [CLS] features (paper A.7.2, A.7.3).

Command: `stretchysnake visualize VIDEO... --weights a.safetensors --weights b.safetensors --out DIR`.
"""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.eval.features.placement import AUTO, ON_CPU, Placement
from stretchysnake.report.figures.picture import Picture, pyplot
from stretchysnake.report.pages.context import PictureFile, write_pictures_list
from stretchysnake.report.pages.export import write_pictures
from stretchysnake.shown import shown
from stretchysnake.whole_file import unfinished_file, write_whole

if TYPE_CHECKING:
    from stretchysnake.data.records import VideoRecord

Progress = Callable[[str], None]
PAPER_SIZES, PAPER_NATIVE = (112, 192, 224, 448), 224
"""The sizes of Figures A14-A37; T is 16 there."""


def visualize(
    videos: Sequence[str],
    *,
    weights: Sequence[str],
    out: str,
    names: Sequence[str] = (),
    sizes: Sequence[int] | None = None,
    frames: int | None = None,
    tsne: str | None = None,
    seed: int = 0,
    placement: Placement = AUTO,
    num_workers: int = 2,
    batch_size: int = 32,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Progress | None = None,
) -> tuple[list[Path], list[str]]:
    """(files written, reasons of the videos that could not be read); fields as in the verb's VisualizeRun."""
    from stretchysnake.data.records import find_videos, read_records
    from stretchysnake.eval.tsne import checked_tsne

    subjects = named_subjects(weights, names)
    scales = {"sizes": sizes, "num_frames": frames, "progress": progress, "placement": placement}
    scales |= {"timeout_seconds": timeout_seconds, "num_workers": num_workers}
    records = read_records(tsne) if tsne else None
    if records is not None:
        checked_tsne(len(records))  # before the maps, which take their time
    skipped: list[str] = []
    paths = write_activation_maps(out, subjects, find_videos(videos), skipped=skipped, **scales)
    if records is not None:
        paths += write_feature_maps(
            out,
            subjects,
            records,
            seed=seed,
            title=Path(tsne).stem,
            batch_size=batch_size,
            **scales,
        )
    return paths, skipped


def named_subjects(weights: Sequence[str], names: Sequence[str] = ()) -> dict[str, str]:
    """Name -> weights path: the names given, or each file's variant, made unique by its folder."""
    from stretchysnake.eval.features.subject import read_subject

    if not weights:
        raise ValueError("weights (none) must name at least one file")
    if names and len(names) != len(weights):
        raise ValueError(f"names ({len(names)}) must be as many as weights ({len(weights)})")
    labels = list(names) or [read_subject(path, ON_CPU)[1].name for path in weights]
    if not names:
        labels = [
            name if labels.count(name) == 1 else f"{name} {Path(path).resolve().parent.name}"
            for name, path in zip(labels, weights, strict=True)
        ]
    if repeated := [name for name in labels if labels.count(name) > 1]:
        raise ValueError(
            f"names ({repeated[0]}) must differ; give --names [a,b] in the order of --weights"
        )
    return dict(zip(labels, map(str, weights), strict=True))


def told_apart(paths: Sequence[str | os.PathLike]) -> list[str]:
    """The files' names, each behind as many of its folders as it takes to tell them apart."""
    paths = [Path(path) for path in paths]
    for depth in range(1, 1 + max((len(path.parts) for path in paths), default=1)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return list(map(shown, names))


def write_activation_maps(
    out: str | os.PathLike,
    subjects: dict[str, str | os.PathLike],
    videos: Sequence[str | os.PathLike],
    *,
    sizes: Sequence[int] | None = None,
    num_frames: int | None = None,
    placement: Placement = AUTO,
    num_workers: int = 2,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Progress | None = None,
    skipped: list[str] | None = None,
) -> list[Path]:
    """Writes one picture (PNG, SVG) and its numbers (.npz) for each video; returns the paths.

    subjects: name -> weights file. sizes default to the paper's four scaled to the first model's native
    size, num_frames to its native T. A video that cannot be read goes to `skipped`, or to stderr without it;
    ValueError when none can be. pictures.json tells `report --pictures` what is there.
    """
    from stretchysnake.data.decode_error import DecodeError
    from stretchysnake.eval.activation_maps import activation_maps, scales_of
    from stretchysnake.report.figures.activation_picture import activation_picture

    models = _read(subjects, placement)
    sizes, num_frames = _scales(models, sizes, num_frames)
    scales_of(models, sizes=sizes, num_frames=num_frames)
    pyplot()
    videos = [os.fspath(video) for video in videos]
    paths, listed, failed = [], [], []
    maps = activation_maps(
        models,
        videos,
        sizes=sizes,
        num_frames=num_frames,
        num_workers=num_workers,
        timeout_seconds=timeout_seconds,
        progress=progress,
    )
    names = _file_names(videos)
    for name, title, seen in zip(names, told_apart(videos), maps, strict=True):
        if isinstance(seen, DecodeError):
            failed.append(str(seen))
            continue
        if seen.total < num_frames:
            title += f" ({seen.total} frames, repeated)"
        picture = activation_picture(
            f"activation-{name}", seen.maps, seen.frames, title=title, frame_numbers=seen.indices
        )
        paths += write_pictures(out, [picture])
        listed.append(_listed(picture, "Activation maps"))
        numbers = {
            f"{subject}/{size}": heat.astype(np.float16)
            for (subject, size), heat in seen.maps.items()
        }
        path = Path(out) / f"{picture.file_name}.npz"
        with unfinished_file(path) as part:
            np.savez_compressed(part, frame_indices=np.array(seen.indices), **numbers)
        paths.append(path)
    if not listed:
        raise ValueError(f"none of the {len(videos)} videos could be read: {failed[0]}")
    write_pictures_list(out, listed)
    _tell(failed, skipped)
    return paths


def write_feature_maps(
    out: str | os.PathLike,
    subjects: dict[str, str | os.PathLike],
    records: Sequence[VideoRecord],
    *,
    sizes: Sequence[int] | None = None,
    num_frames: int | None = None,
    seed: int = 0,
    title: str = "the videos",
    cache: str | None = None,
    placement: Placement = AUTO,
    num_workers: int = 2,
    batch_size: int = 32,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes the t-SNE of every subject at every size as one picture (PNG, SVG) and a CSV; returns the paths.

    Arguments as in `write_activation_maps`; `cache` is a folder of the frame cache. Videos that cannot be
    read are said on stderr and counted in the caption.
    """
    from stretchysnake.data.clips.loader import DecodingLimits, open_clips
    from stretchysnake.eval.activation_maps import scales_of
    from stretchysnake.eval.features.extraction import extract
    from stretchysnake.eval.tsne import checked_tsne, feature_map
    from stretchysnake.report.figures.feature_map_picture import PlanePoints, feature_map_picture

    models = _read(subjects, placement)
    sizes, num_frames = _scales(models, sizes, num_frames)
    scales = scales_of(models, sizes=sizes, num_frames=num_frames)
    checked_tsne(len(records))
    pyplot()
    limits = DecodingLimits(num_workers=num_workers, timeout_seconds=timeout_seconds)
    clips = open_clips(records, cache=cache, limits=limits, progress=progress)
    panels, lines, perplexity = {}, [], 0.0
    try:
        for (name, size), scale in scales.items():
            features = extract(
                models[name][0], clips, scale, batch_size=batch_size, progress=progress
            )
            plane = feature_map(features, seed=seed)
            panels[name, size] = PlanePoints(plane.places, plane.labels, plane.top1)
            perplexity = plane.perplexity
            lines += [
                (name, size, num_frames, path, label, f"{x:.4f}", f"{y:.4f}")
                for path, label, (x, y) in zip(plane.paths, plane.labels, plane.places, strict=True)
            ]
            if progress:
                progress(f"t-SNE: {len(panels)} of {len(scales)}")
    finally:
        clips.close()
    picture = feature_map_picture(
        f"tsne-{title}",
        panels,
        class_names=_class_names(records),
        num_expected=len(records),
        title=title,
        settings=f"T = {num_frames}; unit-length features, perplexity {perplexity:.3g}, seed {seed}.",
    )
    paths = write_pictures(out, [picture])
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([("model", "size", "num_frames", "path", "label", "x", "y"), *lines])
    paths.append(Path(out) / f"{picture.file_name}.csv")
    write_whole(paths[-1], table.getvalue())
    write_pictures_list(out, [_listed(picture, "Features in the plane")])
    return paths


def _read(subjects: dict[str, str | os.PathLike], placement: Placement) -> dict:
    from stretchysnake.eval.features.subject import read_subject

    if not subjects:
        raise ValueError("subjects (none) must name at least one weights file")
    return {name: read_subject(path, placement)[:2] for name, path in subjects.items()}


def _scales(models: dict, sizes, num_frames: int | None) -> tuple[list[int], int]:
    native = next(iter(models.values()))[1].sets.native
    if sizes is None:
        sizes = default_sizes(native.size, native.patch_size)
    if not sizes:
        raise ValueError("sizes (none) must hold at least one; leave them out for the paper's")
    return list(sizes), native.num_frames if num_frames is None else num_frames


def default_sizes(size: int, patch_size: int) -> list[int]:
    """The paper's four sizes times size/224, each the nearest multiple of patch_size, at least one patch.

    >>> default_sizes(224, 16), default_sizes(32, 8)
    ([112, 192, 224, 448], [16, 24, 32, 64])
    """
    scaled = (wanted * size / PAPER_NATIVE / patch_size for wanted in PAPER_SIZES)
    return sorted({max(1, int(count + 0.5)) * patch_size for count in scaled})


def _file_names(videos: Sequence[str]) -> list[str]:
    """The videos' stems as they stand in names of files, numbered where they repeat; 100 letters of a long one."""
    stems = [
        re.sub(r"[^A-Za-z0-9._]+", "-", Path(video).stem)[:100].strip("-.") for video in videos
    ]
    return [
        stem if stems.count(stem) == 1 else f"{number:04d}-{stem}"
        for number, stem in enumerate(stems)
    ]


def _class_names(records: Sequence[VideoRecord]) -> dict[int, str]:
    names = {record.label: shown(record.class_name or record.label) for record in records}
    return dict(sorted(names.items()))


def _listed(picture: Picture, section: str) -> PictureFile:
    return PictureFile(
        path=f"{picture.file_name}.png", alt=picture.alt, caption=picture.caption, section=section
    )


def _tell(failed: list[str], skipped: list[str] | None) -> None:
    if skipped is not None:
        skipped += failed
        return
    for reason in failed:
        print(f"skipped {shown(reason)}", file=sys.stderr)
