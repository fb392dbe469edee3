"""What every flexible stem needs: the token grid of a clip, and stored weights resized to it.

B batch, T frames, H W pixels, P patch size, t h w tokens, C width. The mathematics of resizing is in resample.py.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.flexibility import size_message
from stretchysnake.models.resample import resize_patch_kernel


def check_clip(video: Tensor, patch_size: int, grid: str) -> None:
    """ValueError unless video is a floating point (B, 3, T, H, W), and patch_size and grid are what they may be."""
    if video.dim() != 5 or video.shape[1] != 3 or not video.is_floating_point():
        raise ValueError(
            f"video (shape {tuple(video.shape)}, {video.dtype}) must be floating point of shape "
            "(B, 3, T, H, W); for one clip add a batch axis with video[None]"
        )
    if grid not in ("exact", "floor"):
        raise ValueError(f'grid ({grid!r}) must be "exact" or "floor"')
    if not isinstance(patch_size, int) or patch_size < 1:
        raise ValueError(f"patch_size ({patch_size!r}) must be a positive integer")


def token_grid(
    video: Tensor, patch_size: int, grid: str, *, tubelet: int = 1
) -> tuple[int, int, int]:
    """(t, h, w) of a clip (B, 3, T, H, W) cut into patches without overlap.

    T must be a multiple of the tubelet, H and W of the patch (ValueError names the nearest sizes that fit);
    `grid="floor"` instead leaves the rest of H and W that does not fill a patch unused.
    """
    check_clip(video, patch_size, grid)
    _, _, num_frames, height, width = video.shape
    if num_frames == 0 or num_frames % tubelet:
        nearest = num_frames // tubelet * tubelet
        near = f"{nearest}, {nearest + tubelet}" if nearest else f"{tubelet}"
        raise ValueError(
            f"num_frames ({num_frames}) must be a positive multiple of tubelet_size ({tubelet}); "
            f"nearest: {near}"
        )
    for name, size in (("height", height), ("width", width)):
        if size < patch_size or (size % patch_size and grid == "exact"):
            raise ValueError(size_message(name, size, patch_size))
    return num_frames // tubelet, height // patch_size, width // patch_size


class ResizedWeights:
    """Stored weights at other sizes, remembered while no gradient can flow: `resized(key, stored, resize)`."""

    def __init__(self):
        self._remembered: dict[tuple, tuple[Tensor, Tensor]] = {}

    def clear(self) -> None:
        self._remembered.clear()

    def __call__(
        self,
        key: tuple,
        stored: Tensor,
        resize: Callable[[Tensor], Tensor],
        *,
        training: bool = False,
    ) -> Tensor:
        """resize(stored), anew while training or where a gradient can flow; `key` says which weight at which size."""
        if training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return resize(stored)
        if stored.is_meta or hasattr(stored, "fake_mode"):  # no content to compare
            return resize(stored)
        # The copy is compared by content: version counters miss writes through `.data` (EMA, some loaders).
        remembered = self._remembered.get(key)
        if remembered is not None:
            copy, resized = remembered
            if (
                copy.dtype == stored.dtype
                and copy.device == stored.device
                and torch.equal(copy, stored)
            ):
                return resized
        resized = resize(stored)
        if resized is stored:
            return stored
        if len(self._remembered) >= 64:
            self._remembered.clear()
        self._remembered[key] = (stored.detach().clone(), resized.detach())
        return resized


class Flexed(NamedTuple):
    """How a stored weight follows the sizes of the input."""

    what: str
    """What notes call it."""
    how: str
    """By which interpolation."""
    size_of: Callable[[Tensor], tuple[int, ...]]
    """The size that a tensor was stored for."""
    resize: Callable[[Tensor, tuple[int, ...]], Tensor]
    """(stored, size) -> the weight for that size, the very tensor where it is the stored one."""


def fit_flexed(
    state: dict[str, Tensor], stored_here: dict[str, Tensor], flexed: dict[str, Flexed]
) -> list[str]:
    """Resize in `state` what was stored for other sizes than `own`; a note for each."""
    notes = []
    for name, flex in flexed.items():
        stored = state.get(name)
        if stored is None or stored.dim() != stored_here[name].dim():
            continue  # named by whoever loads
        before, after = flex.size_of(stored), flex.size_of(stored_here[name])
        if before != after:
            state[name] = flex.resize(stored, after)
            before, after = ("x".join(map(str, size)) for size in (before, after))
            notes.append(f"{flex.what} {before} -> {after} ({flex.how})")
    return notes


def flexed_stem(mode: str) -> Flexed:
    """A patch kernel (C, 3, P, P) or (C, 3, t, P, P), whose size is (P, P)."""
    from_video = partial(resize_patch_kernel, mode=mode)
    return Flexed(
        what="patch kernel",
        how=mode,
        size_of=lambda kernel: tuple(kernel.shape[-2:]),
        resize=lambda kernel, size: (
            from_video(kernel, size[0])
            if kernel.dim() == 5
            else from_video(kernel.unsqueeze(2), size[0]).squeeze(2)
        ),
    )
