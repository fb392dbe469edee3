"""What of CAST depends on T, H, W and P: its stems and its tables, and how each follows.

B batch, T frames, P patch size, t = T / 2, h w tokens of a frame, N = h·w, C width, D width of a table.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.models.resample import resize_table, resize_temporal_positions, resize_volume
from stretchysnake.models.transformers.layers.clip.tower import (
    resize_clip_kernel,
    resize_clip_positions,
)

TUBELET = 2
"""Frames per temporal token of VideoMAE's path; CLIP's path sees the second of them."""


def embedded(
    model: nn.Module, video: Tensor, patch: int, shape: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """What a CAST's two paths begin with: CLIP's (B, t, 1 + N, C), [CLS] first, and VideoMAE's (B, t, N, C).

    Stored weights are resized to patch and shape (t, h, w); at the config's own they are used as they are.
    """
    native, grid = model.config.shape, shape[1:]

    def resized(name: str, stored: Tensor, size: tuple[int, ...], resize) -> Tensor:
        return model.resized((name, *size), stored, resize, training=model.training)

    def for_patch(kernel: Tensor) -> Tensor:
        return resize_clip_kernel(kernel, (patch, patch))

    image_kernel = resized("image kernel", model.clip_conv1.weight, (patch,), for_patch)
    places = resized(
        "places",
        model.clip_positional_embedding,
        grid,
        lambda table: resize_clip_positions(table, native[1:], grid),
    )
    video = video.to(image_kernel.dtype)
    s = F.conv3d(video[:, :, 1::TUBELET], image_kernel.unsqueeze(2), stride=(1, patch, patch))
    s = s.flatten(3).permute(0, 2, 3, 1)  # (B, t, N, C)
    cls = model.clip_class_embedding.to(s.dtype).expand(*s.shape[:2], 1, -1)
    s = model.clip_ln_pre(torch.cat([cls, s], dim=2) + places)

    stem = model.patch_embed["proj"]
    kernel = resized("kernel", stem.weight, (patch,), for_patch)
    frame_places = resized(
        "frame places",
        model.frame_places,
        shape,
        lambda table: resize_volume(table, native, shape),
    )
    v = F.conv3d(video, kernel, stem.bias, stride=(TUBELET, patch, patch))
    v = v.flatten(3).permute(0, 2, 3, 1) + frame_places.unflatten(0, (shape[0], -1))
    return s, v


def sine_table(num_tokens: int, width: int) -> Tensor:
    """Fixed sines and cosines of p / 10000^(2·⌊j/2⌋/C) for token p and channel j, (tokens, C), fp32.

    Even channels are sines, odd ones cosines. p counts through all frames, so that the formula knows its own grid
    alone: for another one the table is interpolated, since all that follows its first row would move.
    """
    channel = torch.arange(width, dtype=torch.float64)
    rate = 10000.0 ** (-2 * torch.div(channel, 2, rounding_mode="floor") / width)
    angle = torch.arange(num_tokens, dtype=torch.float64).unsqueeze(1) * rate
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


def resize_cross_table(table: Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> Tensor:
    """A table over frames, (t, D) with sizes (t,), or over places, (h·w, D) with sizes (h, w), for another size."""
    if tuple(before) == tuple(after):
        return table
    if len(after) == 2:
        return resize_table(table, before, after)
    return resize_temporal_positions(table.unsqueeze(0), after[0]).squeeze(0)
