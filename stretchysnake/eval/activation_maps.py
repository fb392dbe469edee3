"""How active each patch of a video is, frame by frame, at several sizes (paper A.7.3, Figs. A22-A37).

Paper does not say how a patch token becomes one number; we use the cosine of the patch token with the
[CLS] token of the same clip, both from the last layer after the final norm, because [CLS] is the feature
that retrieval compares, and a cosine can be set side by side for two models and all sizes. (The token's
length says nothing: the final norm fixes it.)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import read_frames
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS, map_decoding
from stretchysnake.eval.features.placed_model import inference
from stretchysnake.flexibility import Scale, Variant, eval_scale
from stretchysnake.models.accepted_scales import check_scales
from stretchysnake.models.backbone import Backbone, pixels_of


@dataclass(frozen=True)
class VideoActivations:
    """Maps of one video: by (subject, size asked for) the activations (t, h, w) fp32 and the frames seen."""

    path: str
    maps: dict[tuple[str, int], np.ndarray]
    frames: dict[tuple[str, int], np.ndarray]
    """(T, S, S, 3) uint8, as that model saw them."""
    scales: dict[tuple[str, int], Scale]
    indices: list[int]
    """Frame numbers in the video; repeated where it has fewer frames than T."""
    total: int
    """Frames in the video."""


def patch_activations(model: Backbone, frames: np.ndarray, scale: Scale) -> np.ndarray:
    """(t, h, w) fp32 in [-1, 1]: the cosine of every patch token with [CLS], or with the mean where there is none.

    frames (T, S, S, 3) uint8.
    """
    video = normalise(torch.from_numpy(np.ascontiguousarray(frames)), **pixels_of(model.config))
    model.eval()
    check_grid(model)
    with inference(model) as device:
        tokens = model.tokens(video[None].to(device), scale.patch_size, grid="floor")
        patches = tokens.patches[0].float()
        # without [CLS], the mean of the tokens is the feature
        centre = patches.mean((0, 1, 2)) if tokens.cls is None else tokens.cls[0].float()
        cosine = F.cosine_similarity(patches, centre.expand_as(patches), dim=-1)
    return cosine.cpu().numpy()


def check_grid(model: Backbone) -> None:
    """ValueError unless the model has a grid of tokens at its end."""
    if not hasattr(model, "tokens"):
        raise ValueError(
            f"activation maps need a grid of tokens at the end; {model.config.architecture} has none: "
            "choose weights of another model"
        )


def scales_of(
    subjects: dict[str, tuple[Backbone, Variant]], *, sizes: Sequence[int], num_frames: int
) -> dict[tuple[str, int], Scale]:
    """The scale of every subject at every size; ValueError names a size that a subject cannot take."""
    scales = {
        (name, size): eval_scale(variant, num_frames=num_frames, size=size)
        for name, (_, variant) in subjects.items()
        for size in sizes
    }
    for (name, _), scale in scales.items():
        check_scales(subjects[name][0].config, [scale], way_out="choose other --sizes or --frames")
    return scales


def activation_maps(
    subjects: dict[str, tuple[Backbone, Variant]],
    videos: Sequence[str],
    *,
    sizes: Sequence[int],
    num_frames: int,
    num_workers: int = 2,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Callable[[str], None] | None = None,
) -> Iterator[VideoActivations | DecodeError]:
    """The maps of each video in order, or the reason why it cannot be read.

    num_frames frames are spread evenly over the video, resized to each size; `num_workers` processes decode.
    """
    for model, _ in subjects.values():
        check_grid(model)
    scales = scales_of(subjects, sizes=sizes, num_frames=num_frames)
    pixels = tuple(sorted({scale.size for scale in scales.values()}))
    decode = partial(_decode, num_frames=num_frames, pixels=pixels)
    limits = {"num_workers": num_workers, "timeout_seconds": timeout_seconds}
    answers = map_decoding(decode, ((path, path) for path in videos), **limits)
    for number, (path, answer) in enumerate(zip(videos, answers, strict=True), 1):
        if isinstance(answer, DecodeError):
            yield answer
            continue
        seen, indices, total = answer
        frames = {place: seen[scale.size] for place, scale in scales.items()}
        maps = {
            place: patch_activations(subjects[place[0]][0], frames[place], scale)
            for place, scale in scales.items()
        }
        if progress:
            progress(f"activation maps: {number} of {len(videos)} videos")
        yield VideoActivations(str(path), maps, frames, scales, indices, total)


def _decode(path: str, *, num_frames: int, pixels: tuple[int, ...]):
    """(size -> frames, frame numbers, number of frames in the video)"""
    seen = []

    def indices(total: int) -> list[int]:
        seen[:] = [total]
        return uniform_indices(total, num_frames)

    frames = {size: read_frames(path, indices, size=(size, size)) for size in pixels}
    return frames, uniform_indices(seen[0], num_frames), seen[0]
