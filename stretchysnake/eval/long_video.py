"""Features of a video of any length in constant memory: by windows that carry the scan's state, or exactly.

    lecture = long_features("lecture.mp4", weights="weights.safetensors", frames_per_second=2)
    lecture.feature                        # (C,), of the whole video
    lecture.windows, lecture.seconds       # (n, C) and (begin, end) of each window

What the two forms compute is said in models/long_sequence.py; docs/long_videos.md compares them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.data.containers.packet_index import PacketIndex
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.frame_windows import frame_windows
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.data.records import find_videos
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.long_embeddings import LongEmbeddings
from stretchysnake.flexibility import Scale, eval_scale
from stretchysnake.models.long_sequence import exact_features, window_features
from stretchysnake.models.videomamba import VideoMamba
from stretchysnake.train.checkpoints.checkpoint import sha256_of


@dataclass(frozen=True, kw_only=True)
class LongSampling:
    """How a long video is read."""

    exact: bool = False
    """One sequence of all frames, through a temporary file; else windows, whose features are averaged."""
    num_frames: int | None = None
    """Frames of the whole video, spread evenly over its frames; or give frames_per_second."""
    frames_per_second: float | None = None
    """Frames per second of the video, spread evenly over its time: each is the one on screen at its second."""
    window: int | None = None
    """Most frames in memory at once, and in the form by windows most frames of a window; None: the native number."""
    stretches: int = 1
    """By windows: the frames read are cut into so many stretches, and the means of each one's windows are put behind
    one another: a feature of stretches·C numbers, which keeps the order that one mean forgets."""
    scratch: str | None = None
    """Folder for the temporary file of the exact form; None: the system's."""

    def __post_init__(self):
        if (self.num_frames is None) == (self.frames_per_second is None):
            raise ValueError(
                f"num_frames ({self.num_frames}) or frames_per_second ({self.frames_per_second}) must be given, "
                "and not both: how many frames of a long video are read is for you to say"
            )
        for name in ("num_frames", "frames_per_second", "window", "stretches"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} ({value}) must be more than 0")
        if self.exact and self.stretches != 1:
            raise ValueError(
                f"stretches ({self.stretches}) must be 1 in the exact form, which is one sequence"
            )
        if self.scratch is not None and not os.path.isdir(self.scratch):
            raise ValueError(f"scratch ({self.scratch}) must be an existing folder; make it first")
        if self.scratch is not None and not self.exact:
            raise ValueError(
                f"scratch ({self.scratch}) is used by the exact form only; leave it out"
            )

    def frames_of(self, duration_seconds: float, tubelet: int) -> int:
        """How many frames of a video are read: at least one per stretch, and a multiple of the tubelet."""
        wanted = self.num_frames
        if wanted is None:
            wanted = round(duration_seconds * self.frames_per_second)
        return max(self.stretches, round(wanted / tubelet)) * tubelet

    def __str__(self) -> str:
        rate = (
            f"{self.num_frames} frames"
            if self.num_frames
            else f"{self.frames_per_second:g} frames per second"
        )
        form = "one exact sequence" if self.exact else "the mean of windows that carry the state"
        order = f", in {self.stretches} stretches" if self.stretches > 1 else ""
        return f"{rate} spread evenly over the video, {form}{order}"


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
    of it is decoded within timeout_seconds. Raises DecodeError when the video cannot be read.
    """
    sampling = LongSampling(
        exact=exact,
        num_frames=num_frames,
        frames_per_second=frames_per_second,
        window=window,
        stretches=stretches,
        scratch=scratch,
    )
    model, scale = _subject_and_scale(weights, window, size)
    return features_of_long_video(
        model,
        scale,
        path,
        sampling,
        num_workers=num_workers,
        timeout_seconds=timeout_seconds,
        progress=progress,
    )


def features_of_long_video(
    model: VideoMamba,
    scale: Scale,
    path: str | os.PathLike,
    sampling: LongSampling,
    *,
    num_workers: int = 1,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Callable[[str], None] | None = None,
) -> LongFeatures:
    """`long_features` with a model at hand; scale says size, patch and the frames of a window."""
    plan, decoded = frame_windows(
        path,
        partial(_plan, sampling=sampling, scale=scale, tubelet=model.config.tubelet_size),
        size=scale.size,
        num_workers=num_workers,
        timeout_seconds=timeout_seconds,
    )
    num_frames, spans, repeated = plan.num_frames, plan.spans, plan.repeated
    device = next(model.parameters()).device

    def parts() -> Iterator[Tensor]:
        for frames in decoded:
            yield normalise(torch.from_numpy(frames))[None].to(device)

    if sampling.exact:
        feature = exact_features(
            model,
            parts(),
            scale.patch_size,
            num_frames=num_frames,
            grid="floor",
            scratch=sampling.scratch,
            progress=progress,
        )[0]
        scale = replace(scale, num_frames=num_frames)
        none = torch.empty(0, len(feature))
        return LongFeatures(_on_cpu(feature), none, [], num_frames, scale, repeated)
    per_window = []
    for feature in window_features(model, parts(), scale.patch_size, grid="floor"):
        per_window.append(_on_cpu(feature[0]))
        if progress:
            progress(f"window {len(per_window)} of {len(spans)}")
    windows = torch.stack(per_window)
    feature = torch.cat([part.mean(0) for part in windows.tensor_split(sampling.stretches)])
    scale = replace(scale, num_frames=max(stop - start for start, stop in spans))
    return LongFeatures(feature, windows, plan.seconds, num_frames, scale, repeated)


class _Plan(NamedTuple):
    """What is read of a video."""

    num_frames: int
    spans: list[tuple[int, int]]
    """(start, stop) of each window among the frames read."""
    seconds: list[tuple[float, float]]
    repeated: bool


def _plan(
    index: PacketIndex, *, sampling: LongSampling, scale: Scale, tubelet: int
) -> tuple[_Plan, list[list[int]]]:
    """The plan, and the frame numbers of each window: by time where seconds are asked for, else by number."""
    duration, total = index.duration, len(index.stamps)
    count = sampling.frames_of(duration, tubelet)
    if sampling.frames_per_second is None:
        indices = uniform_indices(total, count)
    else:
        indices = [index.shown_at((i + 0.5) * duration / count) for i in range(count)]
    spans = window_spans(count, scale.num_frames, tubelet, at_least=sampling.stretches)

    def second(place: int) -> float:
        """Where the segment of the place-th frame read begins; frames are as long as they are on screen."""
        if sampling.frames_per_second is not None:
            return place * duration / count
        frame, part = divmod(place * total, count)
        if frame == total:
            return duration
        begin, end = (index.seconds(i) if i < total else duration for i in (frame, frame + 1))
        return begin + part / count * (end - begin)

    seconds = [(second(start), second(stop)) for start, stop in spans]
    plan = _Plan(count, spans, seconds, len(set(indices)) < count)
    return plan, [indices[start:stop] for start, stop in spans]


def embed_long(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    sampling: LongSampling,
    *,
    weights: str | os.PathLike,
    size: int | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Callable[[str], None] | None = None,
) -> LongEmbeddings:
    """`embed` of long videos, one after another: one feature per file, bad files listed and never replaced."""
    videos = find_videos([paths] if isinstance(paths, (str, os.PathLike)) else paths)
    model, scale = _subject_and_scale(weights, sampling.window, size)
    read, features, failures, repeated = [], [], [], []
    for number, path in enumerate(videos, 1):

        def say(text: str, number: int = number) -> None:
            if progress:
                progress(f"video {number}/{len(videos)}: {text}")

        try:
            result = features_of_long_video(
                model, scale, path, sampling, timeout_seconds=timeout_seconds, progress=say
            )
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
        else torch.empty(0, sampling.stretches * model.config.embed_dim)
    )
    digest = sha256_of(Path(weights))
    return LongEmbeddings(stacked, read, scale, failures, repeated, digest, sampling=str(sampling))


def window_spans(
    num_frames: int, longest: int, tubelet: int = 1, *, at_least: int = 1
) -> list[tuple[int, int]]:
    """(start, stop) of the fewest windows of at most `longest` frames, as equal as the tubelet allows."""
    tokens, most = num_frames // tubelet, longest // tubelet
    if most < 1:
        raise ValueError(f"window ({longest}) must be at least tubelet_size ({tubelet})")
    count = max(at_least, -(-tokens // most))
    ends = [tubelet * (i * tokens // count) for i in range(count + 1)]
    return list(pairwise(ends))


def _subject_and_scale(
    weights: str | os.PathLike, window: int | None, size: int | None
) -> tuple[VideoMamba, Scale]:
    model, variant, _ = read_subject(weights)
    native = variant.sets.native
    num_frames = window or native.num_frames
    return model, eval_scale(variant, num_frames=num_frames, size=size or native.size)


def _on_cpu(feature: Tensor) -> Tensor:
    return (
        feature.float().cpu().clone()
    )  # a clone of an inference tensor outside of it is an ordinary one
