"""Features of a video of any length in constant memory: by windows that carry the scan's state, or exactly.

    lecture = long_features("lecture.mp4", weights="weights.safetensors", frames_per_second=2)
    lecture.feature                        # (C,), of the whole video
    lecture.windows, lecture.seconds       # (n, C) and (begin, end) of each window

What the two forms compute is said in models/sequences/long_sequence.py; docs/long_videos.md compares them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from stretchysnake.data.clips.transforms import normalise
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.frame_windows import frame_windows
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.data.records import find_videos
from stretchysnake.eval.features.placed_model import inference
from stretchysnake.eval.features.placement import AUTO, Placement
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.long_embeddings import LongEmbeddings
from stretchysnake.eval.long_reading import LongReading, windowed_frames
from stretchysnake.flexibility import Scale, eval_scale
from stretchysnake.models.accepted_scales import check_scales
from stretchysnake.models.backbone import Backbone, pixels_of
from stretchysnake.models.sequences.long_sequence import (
    check_recurrent,
    exact_features,
    window_features,
)
from stretchysnake.models.weights.published.named import weights_file
from stretchysnake.whole_file import sha256_of


@dataclass(frozen=True)
class LongFeatures:
    """The feature (C,) of a whole video, fp32; by windows also theirs, (n, C), with (begin, end) in seconds."""

    feature: Tensor
    windows: Tensor
    seconds: list[tuple[float, float]]
    num_frames: int
    """Frames read of the whole video."""
    scale: Scale
    """Size and patch, and the frames of the longest window; in the exact form those of the whole video."""
    repeated: bool
    """Frames were read more than once: the video has fewer than asked for, or one stood still for long."""


def long_features(
    path: str | os.PathLike,
    *,
    weights: str | os.PathLike,
    num_frames: int | None = None,
    frames_per_second: float | None = None,
    exact: bool = False,
    window: int | None = None,
    stretches: int = 1,
    size: int | None = None,
    scratch: str | None = None,
    placement: Placement = AUTO,
    num_workers: int = 1,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Callable[[str], None] | None = None,
) -> LongFeatures:
    """The feature of a video of any length; memory depends on the window, not on the length.

    Frames are num_frames segment centres of all its frames, or those on screen at the centres of so many equal parts
    of its time that there are frames_per_second; they are resized to size × size (the weights' native size when
    None). `exact=True` gives what `model.features` gives for all frames as one clip (to 1e-5 in fp32), through a
    temporary file in `scratch` of 8·L·C bytes for L tokens; otherwise the feature is the mean over windows, or with
    `stretches` the means over so many stretches of them behind one another. A file is given up when no more second
    of it is decoded within timeout_seconds. The model computes where `placement` says. Raises DecodeError when
    the video cannot be read.
    """
    reading = LongReading(
        exact=exact,
        num_frames=num_frames,
        frames_per_second=frames_per_second,
        window=window,
        stretches=stretches,
        scratch=scratch,
    )
    model, scale = _subject_and_scale(weights, window, size, placement)
    return features_of_long_video(
        model,
        scale,
        path,
        reading,
        num_workers=num_workers,
        timeout_seconds=timeout_seconds,
        progress=progress,
    )


def features_of_long_video(
    model: Backbone,
    scale: Scale,
    path: str | os.PathLike,
    reading: LongReading,
    *,
    num_workers: int = 1,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Callable[[str], None] | None = None,
) -> LongFeatures:
    """`long_features` with a model at hand; scale says size, patch and the frames of a window."""
    frames_read, decoded = frame_windows(
        path,
        partial(windowed_frames, reading=reading, scale=scale, tubelet=model.config.frame_multiple),
        size=scale.size,
        num_workers=num_workers,
        timeout_seconds=timeout_seconds,
    )
    num_frames, spans, seconds, repeated = frames_read

    def parts(device: torch.device) -> Iterator[Tensor]:
        for frames in decoded:
            yield normalise(torch.from_numpy(frames), **pixels_of(model.config))[None].to(device)

    if reading.exact:
        with inference(model) as device:
            feature = exact_features(
                model,
                parts(device),
                scale.patch_size,
                num_frames=num_frames,
                grid="floor",
                scratch=reading.scratch,
                progress=progress,
            )[0]
        scale = replace(scale, num_frames=num_frames)
        none = torch.empty(0, len(feature))
        return LongFeatures(_on_cpu(feature), none, [], num_frames, scale, repeated)
    per_window = []
    with inference(model) as device:
        for feature in window_features(model, parts(device), scale.patch_size, grid="floor"):
            per_window.append(feature[0].float().cpu())
            if progress:
                progress(f"window {len(per_window)} of {len(spans)}")
    windows = torch.stack(per_window)
    feature = torch.cat([part.mean(0) for part in windows.tensor_split(reading.stretches)])
    scale = replace(scale, num_frames=max(stop - start for start, stop in spans))
    return LongFeatures(feature, windows, seconds, num_frames, scale, repeated)


def embed_long(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    reading: LongReading,
    *,
    weights: str | os.PathLike,
    size: int | None = None,
    placement: Placement = AUTO,
    num_workers: int = 1,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Callable[[str], None] | None = None,
) -> LongEmbeddings:
    """`embed` of long videos, one after another: one feature per file, bad files listed and never replaced."""
    videos = find_videos([paths] if isinstance(paths, (str, os.PathLike)) else paths)
    model, scale = _subject_and_scale(weights, reading.window, size, placement)
    read, features, failures, repeated = [], [], [], []
    for number, path in enumerate(videos, 1):

        def say(text: str, number: int = number) -> None:
            if progress:
                progress(f"video {number}/{len(videos)}: {text}")

        limits = {"num_workers": num_workers, "timeout_seconds": timeout_seconds}
        try:
            result = features_of_long_video(model, scale, path, reading, **limits, progress=say)
        except DecodeError as error:
            failures.append((str(path), str(error)))
            continue
        features.append(result.feature)
        read.append(str(path))
        if result.repeated:
            repeated.append(str(path))
    stacked = (
        torch.stack(features)
        if features
        else torch.empty(0, reading.stretches * model.config.feature_dim)
    )
    digest = sha256_of(weights_file(weights))
    told = {"sampling": str(reading), "precision": placement.precision}
    return LongEmbeddings(stacked, read, scale, failures, repeated, digest, **told)


def _subject_and_scale(
    weights: str | os.PathLike, window: int | None, size: int | None, placement: Placement
) -> tuple[Backbone, Scale]:
    model, variant, _ = read_subject(weights, placement)
    check_recurrent(model)
    scale = eval_scale(variant, num_frames=window, size=size)
    if size is not None:
        one = replace(scale, num_frames=model.config.frame_multiple)  # windows are cut to fit
        check_scales(model.config, [one], way_out="choose another --size")
    return model, scale


def _on_cpu(feature: Tensor) -> Tensor:
    return (
        feature.float().cpu().clone()
    )  # a clone of an inference tensor outside of it is an ordinary one
