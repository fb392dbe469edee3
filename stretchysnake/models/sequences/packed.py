"""Clips of different T, H, W and P at once: in one forward pass where a model can pack them, else shape by shape.

n clips, T frames, H W pixels, P patch size, C feature width.

A model that has a method `features_packed` of these arguments puts all tokens into one row, each clip a sequence of its
own, and pads nothing (VideoMamba). Every other backbone is handed the clips of each shape as one batch. Both ways
each clip's feature is the one it has alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.models.backbone import Backbone


class ClipGroup(NamedTuple):
    """The clips of one shape and patch size."""

    video: Tensor
    """(B, 3, T, H, W)"""
    patch_size: int
    places: list[int]
    """Where its clips stand in what was asked."""


def packs_clips(model: Backbone) -> bool:
    """Whether clips of different shapes make one forward pass of this model."""
    return hasattr(model, "features_packed")


def features_packed(
    model: Backbone,
    clips: Sequence[Tensor],
    patch_sizes: Sequence[int | None] | None = None,
    *,
    grid: str = "exact",
    drop_draws: Sequence[Tensor] | None = None,
) -> Tensor:
    """`model.features` (n, C) of n clips (3, T, H, W), each of its own T, H, W and patch size, in their order.

    patch_sizes: one for each clip; None, there or for all, is the stored one. drop_draws: for each clip its
    (num_drop_draws(scale),). Otherwise as `features`; batch norms in training count each shape as a batch.
    ValueError where the clips differ in dtype or device, or one is no clip; it names the clip.
    """
    if packs_clips(model):
        return model.features_packed(clips, patch_sizes, grid=grid, drop_draws=drop_draws)
    clips = list(clips)
    groups = clip_groups(clips, patch_sizes, stored=model.config.native.patch_size)
    draws = checked_draws(drop_draws, len(clips))
    parts = []
    for group in groups:
        drawn = None if draws is None else torch.stack([draws[place] for place in group.places])
        with naming(group):
            parts.append(model.features(group.video, group.patch_size, grid=grid, drop_draws=drawn))
    return in_order(torch.cat(parts), [group.places for group in groups])


def forward_packed(
    model: Backbone,
    clips: Sequence[Tensor],
    patch_sizes: Sequence[int | None] | None = None,
    **how,
) -> Tensor:
    """Class logits (n, num_classes); arguments as in `features_packed`."""
    return model.head(features_packed(model, clips, patch_sizes, **how))


def clip_groups(
    clips: list[Tensor], patch_sizes: Sequence[int | None] | None, *, stored: int
) -> list[ClipGroup]:
    """The clips by shape and patch size, in the order in which each is first met; ValueError as `features_packed`."""
    if not clips:
        raise ValueError(
            "clips (none) must hold at least one clip (3, T, H, W); leave the call out where there is none"
        )
    for place, clip in enumerate(clips):
        _check_clip(place, clip, clips[0])
    sizes = [None] * len(clips) if patch_sizes is None else patch_sizes
    if isinstance(sizes, int) or len(sizes) != len(clips):
        given = sizes if isinstance(sizes, int) else f"{len(sizes)} of them"
        raise ValueError(
            f"patch_sizes ({given}) must be a list of one for each of the {len(clips)} clips; None takes the stored one"
        )
    groups: dict[tuple, list[int]] = {}
    for place, (clip, size) in enumerate(zip(clips, sizes, strict=True)):
        groups.setdefault((clip.shape, stored if size is None else size), []).append(place)
    return [
        ClipGroup(torch.stack([clips[place] for place in places]), size, places)
        for (_, size), places in groups.items()
    ]


def _check_clip(place: int, clip: Tensor, first: Tensor) -> None:
    name = f"clips[{place}]"
    if clip.dim() != 4 or clip.shape[0] != 3 or not clip.is_floating_point():
        way_out = (
            "cut a batch into its clips with list(video)" if clip.dim() == 5 else "see normalise"
        )
        raise ValueError(
            f"{name} (shape {tuple(clip.shape)}, {clip.dtype}) must be one floating point clip (3, T, H, W); {way_out}"
        )
    if clip.dtype != first.dtype:
        raise ValueError(
            f"{name} ({clip.dtype}) must have the dtype of clips[0] ({first.dtype}); "
            f"convert it with .to({first.dtype})"
        )
    if clip.device != first.device:
        raise ValueError(
            f"{name} (device {clip.device}) must be on the device of clips[0] ({first.device}); "
            f"move it with .to({str(first.device)!r})"
        )


def checked_draws(draws: Sequence[Tensor] | None, num_clips: int) -> Sequence[Tensor] | None:
    """The draws; ValueError unless there are as many as clips."""
    if draws is not None and len(draws) != num_clips:
        raise ValueError(
            f"drop_draws ({len(draws)} rows) must have one row for each of the {num_clips} clips"
        )
    return draws


def in_order(rows: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """Rows (n, C) of clips group by group, put back into the order in which the clips were asked.

    `places`: for each group where its clips stand in it.
    """
    order = torch.tensor([place for group in places for place in group]).argsort()
    return rows[order.to(rows.device)]


@contextmanager
def naming(group: ClipGroup) -> Iterator[None]:
    """Within, what is said of a clip's sizes names the first clip that has them."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"clips[{group.places[0]}]: {error}") from None
