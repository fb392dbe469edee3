"""Features of any videos: in memory, or in an index on disk that a kill at any moment does not harm."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from stretchysnake.data.clips.transforms import RESAMPLER, normalise
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import checked_decoder
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.flexibility import Scale, eval_scale
from stretchysnake.models.accepted_scales import check_scales
from stretchysnake.models.backbone import Backbone, pixels_of
from stretchysnake.models.weights.published.named import weights_file
from stretchysnake.search.decoding import Decoded, Unreadable, Video, decoded, rows_at_once
from stretchysnake.search.index import IndexRow, IndexSettings, VideoFile
from stretchysnake.search.journal import Journal
from stretchysnake.search.named_videos import gone_from, is_unchanged, videos_named
from stretchysnake.whole_file import sha256_of


@dataclass(frozen=True)
class Embeddings:
    """features (n, C) fp32, the paths they belong to, the scale used, and the files that could not be read."""

    features: torch.Tensor
    paths: list[str]
    scale: Scale
    failures: list[tuple[str, str]]
    """(path, reason) of each file left out."""
    repeated: list[str]
    """Videos with fewer frames than T, whose frames were repeated."""
    weights_sha256: str
    times: list[tuple[float, float | None]]
    """(start, end) of each row in seconds; None is the end of the video."""


@dataclass(frozen=True, kw_only=True)
class EmbedResult:
    """What `embed_into` did."""

    settings: IndexSettings
    num_rows: int
    num_videos: int
    num_new: int
    """Videos embedded now; the others were in the index already, or came back from an interrupted call."""
    removed: list[str]
    """Videos of the index that are no longer in the folders given."""
    failures: list[tuple[str, str]]
    repeated: list[str]


def open_weights(
    weights: str | os.PathLike,
    *,
    num_frames: int | None = None,
    size: int | None = None,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    decoder: str = "pyav",
) -> tuple[Backbone, IndexSettings]:
    """The model and the settings of its features; T and S default to the weights' native scale."""
    checked_decoder(decoder)
    model, variant, _ = read_subject(weights)
    native = variant.sets.native
    scale = eval_scale(
        variant, num_frames=num_frames or native.num_frames, size=size or native.size
    )
    check_scales(model.config, [scale], way_out="choose other --frames or --size")
    settings = IndexSettings(
        weights_sha256=sha256_of(weights_file(weights)),
        width=model.config.feature_dim,
        scale=scale,
        window_seconds=window_seconds,
        stride_seconds=stride_seconds if stride_seconds is not None else window_seconds,
        decoder=decoder,
        resampler=RESAMPLER,
        architecture=model.config.architecture,
    )
    return model, settings


def embed(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    weights: str | os.PathLike,
    num_frames: int | None = None,
    size: int | None = None,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    decoder: str = "pyav",
    num_workers: int = 2,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Callable[[str], None] | None = None,
) -> Embeddings:
    """The [CLS] features of videos: files, lists, or folders searched for videos, whatever their length and size.

    T and S default to the weights' native scale; each video gives num_frames frames spread evenly over
    its whole length, resized to S×S; a video with fewer frames repeats them (listed in `repeated`). With
    window_seconds each window of that length, one every stride_seconds, is a row of its own.
    A file that cannot be read, or that crashes or stalls the decoder, is listed in `failures` with the reason, never
    replaced; ValueError when there is nothing to read at all. Files are decoded in `num_workers` processes, and one is
    given up when no more second of it comes within timeout_seconds. `decoder` as in `read_frames`; of windows, "pyav".
    """
    videos = videos_named(paths)
    model, settings = open_weights(
        weights,
        num_frames=num_frames,
        size=size,
        window_seconds=window_seconds,
        stride_seconds=stride_seconds,
        decoder=decoder,
    )
    answers = {}
    parts = decoded(videos, settings, num_workers=num_workers, timeout_seconds=timeout_seconds)
    for number, answer in enumerate(_embedded(model, settings, parts), 1):
        answers[answer.video.path] = answer
        if progress:
            progress(f"embedded {number}/{len(videos)} videos")
    blocks, rows, failures = [], [], []
    for answer in (answers[video.path] for video in videos):
        if isinstance(answer, Unreadable):
            failures.append((answer.video.path, str(answer.error)))
        else:
            rows += answer.rows
            blocks.append(torch.from_numpy(answer.features))
    return Embeddings(
        torch.cat(blocks) if blocks else torch.empty(0, settings.width),
        [row.file.path for row in rows],
        settings.scale,
        failures,
        list(dict.fromkeys(row.file.path for row in rows if row.repeated)),
        settings.weights_sha256,
        [(row.start, row.end) for row in rows],
    )


def embed_into(
    out: str | os.PathLike,
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    weights: str | os.PathLike,
    num_frames: int | None = None,
    size: int | None = None,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    decoder: str = "pyav",
    num_workers: int = 2,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Callable[[str], None] | None = None,
) -> EmbedResult:
    """Bring the index in the folder `out` up to date with these videos; a killed call goes on where it stopped.

    A video whose size and time, or else whose content, are those of the index is not embedded again; one that
    changed is. Videos of the index that were under one of the folders given and are gone are removed; other
    ones stay. The index is the same, byte for byte, however often the work was interrupted.
    Other settings than the index's are refused.
    """
    videos = videos_named(paths, absolute=True)
    model, settings = open_weights(
        weights,
        num_frames=num_frames,
        size=size,
        window_seconds=window_seconds,
        stride_seconds=stride_seconds,
        decoder=decoder,
    )
    video_paths = {video.path for video in videos}
    failures: list[tuple[str, str]] = []
    with Journal(out, settings, os.path.abspath(weights_file(weights))) as journal:
        removed = gone_from(paths, journal.done, video_paths)
        todo = []
        for video in videos:
            indexed = journal.done.get(video.path)
            if indexed is None:
                todo.append(video)
                continue
            old = indexed[0][0].file
            video = replace(  # a folder tells neither; a list of an earlier call may have
                video, group=video.group or old.group, class_name=video.class_name or old.class_name
            )
            if not is_unchanged(video, old):
                todo.append(replace(video, known_sha256=old.sha256))
        num_new = 0
        parts = decoded(todo, settings, num_workers=num_workers, timeout_seconds=timeout_seconds)
        for number, answer in enumerate(_embedded(model, settings, parts), 1):
            if isinstance(answer, Unreadable):
                failures.append((answer.video.path, str(answer.error)))
                removed += [answer.video.path] * (answer.video.path in journal.done)
            elif answer.features is None:
                old = journal.done[answer.file.path]
                journal.keep([replace(row, file=answer.file) for row, _ in old])
            else:
                journal.add(answer.rows, answer.features)
                num_new += 1
            if progress:
                before = len(videos) - len(todo)
                progress(f"embedded {before + number}/{len(videos)} videos")
        failures.sort()
        if not set(journal.done) - set(removed):
            raise ValueError(
                f"none of the {len(failures)} videos could be read; nothing was written. The first: "
                f"{failures[0][1]}"
            )
        journal.finish(failures, removed)
        rows = [row for pairs in journal.done.values() for row, _ in pairs]
    return EmbedResult(
        settings=settings,
        num_rows=len(rows),
        num_videos=len(journal.done),
        num_new=num_new,
        removed=sorted(set(removed) - {path for path, _ in failures}),
        failures=failures,
        repeated=sorted(
            {row.file.path for row in rows if row.repeated and row.file.path in video_paths}
        ),
    )


class _Embedded(NamedTuple):
    """All rows of a video and their features (n, C); None where the content is the known one."""

    video: Video
    file: VideoFile
    rows: list[IndexRow]
    features: np.ndarray | None


def _embedded(
    model: Backbone, settings: IndexSettings, parts: Iterable[Decoded | Unreadable]
) -> Iterator[_Embedded | Unreadable]:
    """Every video once, as it ends; its parts are embedded as they come, and their frames are let go."""
    done: dict[str, list[tuple[list[IndexRow], np.ndarray]]] = {}
    failed: set[str] = set()
    for part in parts:
        video = part.video
        if video.path in failed:
            continue
        if isinstance(part, Unreadable):
            done.pop(video.path, None)
            failed.add(video.path)
            yield part
            continue
        if part.frames is None:
            yield _Embedded(video, part.file, [], None)
            continue
        features = features_of(model, settings.scale, part.frames)
        if not np.isfinite(features).all():
            reason = "its features are not finite; the weights are damaged or it shows nothing."
            done.pop(video.path, None)
            failed.add(video.path)
            yield Unreadable(video, DecodeError("corrupt", video.path, reason))
            continue
        done.setdefault(video.path, []).append((part.rows, features))
        if part.last:
            blocks = done.pop(video.path)
            rows = [row for rows, _ in blocks for row in rows]
            yield _Embedded(video, part.file, rows, np.concatenate([block for _, block in blocks]))


def features_of(model: Backbone, scale: Scale, frames: np.ndarray) -> np.ndarray:
    """(n, C) fp32 of frames (n, T, S, S, 3)."""
    at_once = rows_at_once(scale)
    blocks, pixels = [], pixels_of(model.config)
    with torch.inference_mode():
        for start in range(0, len(frames), at_once):
            clips = [
                normalise(torch.from_numpy(f), **pixels) for f in frames[start : start + at_once]
            ]
            video = torch.stack(clips)
            blocks.append(model.features(video, scale.patch_size, grid="floor").float().numpy())
    return np.concatenate(blocks)
