"""Features of any videos: in memory, or in an index on disk that a kill at any moment does not harm."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from stretchysnake.data.clips.transforms import RESAMPLER
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.fit import checked_fit
from stretchysnake.data.decoding.video import checked_decoder
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.eval.features.passes import clips_a_pass, features_of, keeps_bits
from stretchysnake.eval.features.placement import AUTO, Placement
from stretchysnake.eval.features.shapes import check_fit
from stretchysnake.eval.features.subject import fit_of, read_subject
from stretchysnake.flexibility import Scale, eval_scale
from stretchysnake.models.backbone import Backbone
from stretchysnake.models.sequences.packed import packs_clips
from stretchysnake.models.weights.published.named import weights_file
from stretchysnake.search.decoding import Decoded, Unreadable, Video, decoded, rows_at_once
from stretchysnake.search.index import IndexRow, IndexSettings, VideoFile
from stretchysnake.search.journal import Journal
from stretchysnake.search.named_videos import gone_from, in_shard, is_unchanged, videos_named
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
    fit: str = "square"


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
    placement: Placement = AUTO,
    fit: str | None = None,
) -> tuple[Backbone, IndexSettings]:
    """The model and the settings of its features; T and S default to the weights' native scale, `fit` to how they were
    trained."""
    checked_decoder(decoder)
    model, variant, metadata = read_subject(weights, placement)
    fit = checked_fit(fit or fit_of(metadata))
    scale = eval_scale(variant, num_frames=num_frames, size=size)
    check_fit(model.config, [scale], fit=fit, way_out="choose other --frames or --size")
    settings = IndexSettings(
        weights_sha256=sha256_of(weights_file(weights)),
        width=model.config.feature_dim,
        scale=scale,
        window_seconds=window_seconds,
        stride_seconds=stride_seconds if stride_seconds is not None else window_seconds,
        decoder=decoder,
        resampler=RESAMPLER,
        architecture=model.config.architecture,
        precision=placement.precision,
        fit=fit,
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
    placement: Placement = AUTO,
    batch_size: int | None = None,
    fit: str | None = None,
    num_workers: int = 2,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Callable[[str], None] | None = None,
) -> Embeddings:
    """The [CLS] features of videos: files, lists, or folders searched for videos, whatever their length and size.

    T and S default to the weights' native scale; each video gives num_frames frames spread evenly over
    its whole length, resized to S×S, or otherwise fitted as `fit` says (data/decoding/fit.py; None: as the weights were
    trained, "square" where they do not say); a video with fewer frames repeats them (listed in `repeated`). With
    window_seconds each window of that length, one every stride_seconds, is a row of its own.
    A file that cannot be read, or that crashes or stalls the decoder, is listed in `failures` with the reason, never
    replaced; ValueError when there is nothing to read at all. Files are decoded in `num_workers` processes, and one is
    given up when no more second of it comes within timeout_seconds. `decoder` as in `read_frames`; of windows, "pyav".
    `placement` says where the model computes. batch_size clips share a forward pass; None: as many as 2^14 tokens, on
    the CPU in fp32 only where a video's features are the same to the last bit whoever is in its pass.
    """
    videos = videos_named(paths)
    model, settings = open_weights(
        weights,
        num_frames=num_frames,
        size=size,
        window_seconds=window_seconds,
        stride_seconds=stride_seconds,
        decoder=decoder,
        placement=placement,
        fit=fit,
    )
    answers = {}
    limits = {"num_workers": num_workers, "timeout_seconds": timeout_seconds}
    parts = decoded(videos, settings, **limits, num_kept=batch_size)
    found = _embedded(model, settings, parts, num_videos=len(videos), batch_size=batch_size)
    for number, answer in enumerate(found, 1):
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
        settings.fit,
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
    placement: Placement = AUTO,
    batch_size: int | None = None,
    fit: str | None = None,
    num_workers: int = 2,
    timeout_seconds: float = TIMEOUT_SECONDS,
    shard: tuple[int, int] | None = None,
    progress: Callable[[str], None] | None = None,
) -> EmbedResult:
    """Bring the index in the folder `out` up to date with these videos; a killed call goes on where it stopped.

    A video whose size and time, or else whose content, are those of the index is not embedded again; one that
    changed is. Videos of the index that were under one of the folders given and are gone are removed; other
    ones stay. However often the work was interrupted, the index is the same: byte for byte on the CPU in fp32, and
    elsewhere, or with a batch_size of one's own, to rounding. placement and batch_size as in `embed`. Settings other
    than the index's are refused. Of a shard (k, n) only the k-th of n parts of the videos is embedded, chosen by their
    paths; the index may then be empty. `segments.merging.merge` makes one index of all parts.
    """
    videos = videos_named(paths, absolute=True)
    model, settings = open_weights(
        weights,
        num_frames=num_frames,
        size=size,
        window_seconds=window_seconds,
        stride_seconds=stride_seconds,
        decoder=decoder,
        placement=placement,
        fit=fit,
    )
    all_paths = {video.path for video in videos}
    if shard is not None:
        videos = in_shard(videos, shard)
    video_paths = {video.path for video in videos}
    failures: list[tuple[str, str]] = []
    with Journal(out, settings, os.path.abspath(weights_file(weights))) as journal:
        removed = gone_from(paths, journal.under, all_paths)
        todo = []
        for video in videos:
            old = journal.file(video.path)
            if old is None:
                todo.append(video)
                continue
            video = replace(  # a folder tells neither; a list of an earlier call may have
                video, group=video.group or old.group, class_name=video.class_name or old.class_name
            )
            if not is_unchanged(video, old):
                todo.append(replace(video, known_sha256=old.sha256))
        num_new = 0
        limits = {"num_workers": num_workers, "timeout_seconds": timeout_seconds}
        parts = decoded(todo, settings, **limits, num_kept=batch_size)
        found = _embedded(model, settings, parts, num_videos=len(todo), batch_size=batch_size)
        for number, answer in enumerate(found, 1):
            if isinstance(answer, Unreadable):
                failures.append((answer.video.path, str(answer.error)))
                removed += [answer.video.path] * (journal.file(answer.video.path) is not None)
            elif answer.features is None:
                old, _ = journal.video(answer.file.path)
                journal.keep([replace(row, file=answer.file) for row in old])
            else:
                journal.add(answer.rows, answer.features)
                num_new += 1
            if progress:
                before = len(videos) - len(todo)
                progress(f"embedded {before + number}/{len(videos)} videos")
        failures.sort()
        if shard is None and journal.num_videos == len(set(removed)):
            raise ValueError(
                f"none of the {len(failures)} videos could be read; nothing was written. The first: "
                f"{failures[0][1]}"
            )
        journal.finish(failures, removed)
        index = journal.index
        there = video_paths - set(removed) - {path for path, _ in failures}
        repeated = sorted(path for path in there if journal.is_repeated(path))
    return EmbedResult(
        settings=settings,
        num_rows=len(index.rows),
        num_videos=index.num_videos,
        num_new=num_new,
        removed=sorted(set(removed) - {path for path, _ in failures}),
        failures=failures,
        repeated=repeated,
    )


class _Embedded(NamedTuple):
    """All rows of a video and their features (n, C); None where the content is the known one."""

    video: Video
    file: VideoFile
    rows: list[IndexRow]
    features: np.ndarray | None


def _embedded(
    model: Backbone,
    settings: IndexSettings,
    parts: Iterable[Decoded | Unreadable],
    *,
    num_videos: int,
    batch_size: int | None,
) -> Iterator[_Embedded | Unreadable]:
    """Every video once, as it ends; its parts are embedded as they come, and their frames are let go.

    Videos of one row share forward passes (passes.py), of any shapes where the model packs; one of windows has its own.
    """
    scale, together = settings.scale, 1
    at_once = batch_size or rows_at_once(scale)
    if settings.window_seconds is None:
        # of pictures that keep their shapes each shape would have to be tried
        tried = 0 if settings.fit == "keep" else num_videos
        together = batch_size or clips_a_pass(model, scale, num_clips=tried, most=at_once)
    # a smaller pass at the end was not tried, as one of clips_a_pass was
    at_end = at_once if batch_size or not keeps_bits(model) else 1
    done: dict[str, list[tuple[list[IndexRow], np.ndarray]]] = {}
    failed: set[str] = set()
    waiting: dict[tuple[int, ...], list[Decoded]] = {}  # by shape, or all where shapes share a pass
    packs = settings.fit == "keep" and together > 1 and packs_clips(model)

    def passed(alike: list[Decoded], size: int) -> Iterator[_Embedded | Unreadable]:
        clips = [clip for part in alike for clip in part.frames]
        blocks = features_of(model, scale, clips, batch_size=size)
        ends = np.cumsum([len(part.rows) for part in alike])[:-1]
        for part, features in zip(alike, np.split(blocks, ends), strict=True):
            path = part.video.path
            if not np.isfinite(features).all():
                reason = "its features are not finite; the weights are damaged or it shows nothing."
                done.pop(path, None)
                failed.add(path)
                yield Unreadable(part.video, DecodeError("corrupt", path, reason))
                continue
            done.setdefault(path, []).append((part.rows, features))
            if part.last:
                ended = done.pop(path)
                rows = [row for rows, _ in ended for row in rows]
                features = np.concatenate([features for _, features in ended])
                yield _Embedded(part.video, part.file, rows, features)
        alike.clear()

    for part in parts:
        path = part.video.path
        if path in failed:
            continue
        if isinstance(part, Unreadable):
            done.pop(path, None)
            failed.add(path)
            yield part
        elif part.frames is None:
            yield _Embedded(part.video, part.file, [], None)
        else:
            alike = waiting.setdefault(() if packs else part.frames.shape[1:], [])
            alike.append(part)
            if len(alike) == together:
                yield from passed(alike, at_once)
    for alike in waiting.values():
        if alike:
            yield from passed(alike, at_end)
