"""Features of frames that somebody else decoded: the one door for other packages' loaders, with a check of the axes."""

import numpy as np
import torch

from stretchysnake.eval.features.passes import features_of
from stretchysnake.flexibility import Scale
from stretchysnake.models.backbone import Backbone

CHANNELS = ("last", "first")
_LAYOUTS = {"last": "(n, T, H, W, 3)", "first": "(n, T, 3, H, W)"}


def features_of_frames(
    model: Backbone,
    scale: Scale,
    frames: np.ndarray | torch.Tensor,
    *,
    channels: str | None = None,
    batch_size: int = 1,
) -> np.ndarray:
    """(n, C) fp32: the features of n clips, bit for bit those of `embed` where the frames are those it decodes.

    frames are uint8 RGB (n, T, H, W, 3), or (n, T, 3, H, W) as mteb and transformers hold them with channels="first".
    T must be the scale's; H and W may be any: the model reads them as they are, with the scale's patch size (`embed`
    reads squares of scale.size pixels). Without `channels` the shape must say by itself that the last axis is RGB.
    ValueError names the axes and the way out. The model computes where it is placed, batch_size clips in a pass: one
    alone depends on no other, more are quicker on a GPU. A model and its scale: `open_weights`.
    """
    frames = torch.as_tensor(frames)
    if frames.dtype != torch.uint8:
        raise ValueError(
            f"frames ({frames.dtype}) must be uint8, 0 to 255 as decoded: they are standardised here"
        )
    if channels is not None and channels not in CHANNELS:
        raise ValueError(f"channels ({channels!r}) must be one of: {', '.join(CHANNELS)}, or None")
    if frames.dim() != 5:
        raise ValueError(
            f"frames (shape {tuple(frames.shape)}) must be {_LAYOUTS[channels or 'last']}; for one clip add an axis "
            "with frames[None]"
        )
    _check_axes(tuple(frames.shape), channels)
    if channels == "first":
        frames = frames.permute(0, 1, 3, 4, 2)
    if frames.shape[1] != scale.num_frames:
        raise ValueError(
            f"frames (shape {tuple(frames.shape)}) hold {frames.shape[1]} frames a clip, and scale says "
            f"{scale.num_frames}; give clips of {scale.num_frames} frames, or a scale of {frames.shape[1]}"
        )
    if not len(frames):
        return np.empty((0, model.config.feature_dim), np.float32)
    return features_of(model, scale, frames.contiguous().numpy(), batch_size=batch_size)


def _check_axes(shape: tuple[int, ...], channels: str | None) -> None:
    """ValueError where RGB is not on the axis that `channels` names, or, without it, might be on another as well."""
    if channels is not None:
        axis = {"last": 4, "first": 2}[channels]
        if shape[axis] != 3:
            raise ValueError(
                f"frames (shape {shape}) must be {_LAYOUTS[channels]} for channels={channels!r}, and axis {axis} holds "
                f"{shape[axis]}; {_others(shape)}"
            )
        return
    if shape[4] != 3:
        raise ValueError(f"frames (shape {shape}) must be (n, T, H, W, 3); {_others(shape)}")
    if shape[2] == 3:
        raise ValueError(
            f"frames (shape {shape}) may be (n, T, H, W, 3) or (n, T, 3, H, W): both axes hold 3; say which with "
            "channels='last' or channels='first'"
        )


def _others(shape: tuple[int, ...]) -> str:
    """The way out, by the axes that hold 3."""
    ways = []
    if shape[2] == 3:
        ways.append("channels='first' if they are (n, T, 3, H, W)")
    if shape[4] == 3:
        ways.append("channels='last' if they are (n, T, H, W, 3)")
    if shape[1] == 3:
        ways.append("frames.transpose(1, 2) and channels='first' if they are (n, 3, T, H, W)")
    return f"say {', or '.join(ways)}" if ways else "no axis holds the 3 of RGB"
