"""Resize what depends on the input size: patch kernel, spatial and temporal positions (paper §3.3).

C width, P patch size, N places, T temporal tokens, h w patches per column and row.

The single home of interpolation: forward passes, checkpoint loading and fine-tuning all call these. Each
is differentiable to the stored parameter and returns the very tensor it was given at the native size.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from stretchysnake.models.config import PATCH_RESIZES


def resize_patch_kernel(weight: Tensor, patch_size: int, *, mode: str = "bicubic") -> Tensor:
    """The patch kernel for another patch size: (C, 3, t, P0, P0) -> (C, 3, t, P, P).

    `bicubic` is the paper's: plain 2-D bicubic interpolation, which changes the size of the embeddings by
    about (P/P0)². `area` multiplies by (P0/P)², which undoes that. `pi` is FlexiViT's pseudo-inverse
    resize (Beyer et al. 2023, Eq. 5): the kernel whose response on a resized patch is nearest to the
    old response on the old patch. Dtype follows the weight; half precision is interpolated in fp32.
    """
    if mode not in PATCH_RESIZES:
        raise ValueError(f"patch_resize ({mode!r}) must be one of: {', '.join(PATCH_RESIZES)}")
    native = weight.shape[-1]
    if weight.shape[-2] != native:
        raise ValueError(f"patch kernel {tuple(weight.shape)} must be square in its last two axes")
    if patch_size == native:
        return weight
    planes = _at_least_fp32(weight).flatten(1, 2)  # (C, 3t, P0, P0)
    if mode == "pi":
        matrix = _pseudo_inverse(native, patch_size).to(planes)  # (P², P0²)
        resized = (planes.flatten(2) @ matrix.T).unflatten(2, (patch_size, patch_size))
    else:
        # Paper does not say whether to antialias; we do not because PyTorch's default does not.
        resized = F.interpolate(
            planes, size=(patch_size, patch_size), mode="bicubic", align_corners=False
        )
        if mode == "area":
            resized = resized * (native / patch_size) ** 2
    return resized.reshape(*weight.shape[:3], patch_size, patch_size).to(weight.dtype)


def resize_spatial_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """E_pos for another grid: (1, 1 + h0·w0, C) -> (1, 1 + h·w, C), 2-D bicubic; row 0 ([CLS]) is kept.

    The stored grid is square, as in every VideoMamba; the wanted one need not be.
    """
    native = native_grid(positions)
    same_size = not any(
        isinstance(side, torch.SymInt) for side in grid
    )  # else torch.export would fix it
    if same_size and tuple(grid) == (native, native):
        return positions
    plane = _at_least_fp32(positions[:, 1:]).unflatten(1, (native, native)).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, size=tuple(grid), mode="bicubic", align_corners=False)
    return torch.cat(
        [positions[:, :1], plane.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1
    )


def resize_table(
    table: Tensor, before: tuple[int, int], after: tuple[int, int], *, mode: str = "bicubic"
) -> Tensor:
    """A table over a grid, (..., h0·w0, C) row by row, for another grid: (..., h·w, C); the very table where equal.

    `mode` is "bicubic" (paper), "bilinear" or "nearest" (some official code; for parity).
    """
    if tuple(before) == tuple(after):
        return table
    rows = _at_least_fp32(table).reshape(-1, *before, table.shape[-1]).permute(0, 3, 1, 2)
    options = {} if mode == "nearest" else {"align_corners": False}
    rows = F.interpolate(rows, size=tuple(after), mode=mode, **options)
    rows = rows.flatten(2).transpose(1, 2).to(table.dtype)  # (rows, h·w, C)
    return rows.reshape(*table.shape[:-2], after[0] * after[1], table.shape[-1])


def resize_temporal_positions(
    positions: Tensor, num_tokens: int, *, span: tuple[int, int] | None = None
) -> Tensor:
    """E_temp for another number of frames: (1, T0, C) -> (1, T, C), 1-D linear.

    span = (first, stop) computes these rows alone, (1, stop - first, C): a long video's table need
    not exist as a whole.
    """
    native = positions.shape[1]
    first, stop = (0, num_tokens) if span is None else span
    if not isinstance(num_tokens, torch.SymInt) and native == num_tokens:
        return positions if span is None else positions[:, first:stop]
    line = _at_least_fp32(positions)
    if span is None:
        line = F.interpolate(
            line.transpose(1, 2), size=num_tokens, mode="linear", align_corners=False
        )
        return line.transpose(1, 2).to(positions.dtype)
    rows = torch.arange(first, stop, dtype=torch.float64, device=positions.device)
    places = ((rows + 0.5) * (native / num_tokens) - 0.5).clamp_(0, native - 1)
    below = places.long()
    above = (below + 1).clamp_(max=native - 1)
    weight = (places - below).to(line.dtype).unsqueeze(-1)
    return torch.lerp(line[:, below], line[:, above], weight).to(positions.dtype)


def resize_volume(
    table: Tensor, before: tuple[int, int, int], after: tuple[int, int, int]
) -> Tensor:
    """A table over frames and places, (t0·h0·w0, C), for another (t, h, w): linear over time, then bicubic over space.

    The very table where the two are equal.
    """
    if tuple(before) == tuple(after):
        return table
    frames = table.unflatten(0, (before[0], -1)).flatten(1).unsqueeze(0)  # (1, t0, h0·w0·C)
    frames = resize_temporal_positions(frames, after[0])
    frames = frames.reshape(after[0], -1, table.shape[-1])
    return resize_table(frames, before[1:], after[1:]).flatten(0, 1)


def inflate_patch_kernel(weight: Tensor, tubelet_size: int, *, mode: str = "centre") -> Tensor:
    """A 2-D image kernel (C, 3, P, P) as a video kernel (C, 3, t, P, P).

    `centre` puts the image kernel in the middle slice and zeros elsewhere (the kernel then sees one frame);
    `mean` spreads it evenly over time (a still clip then embeds like the image).
    """
    if mode == "mean":
        return weight.unsqueeze(2).repeat(1, 1, tubelet_size, 1, 1) / tubelet_size
    if mode != "centre":
        raise ValueError(f'inflation mode ({mode!r}) must be "centre" or "mean"')
    inflated = weight.new_zeros(*weight.shape[:2], tubelet_size, *weight.shape[2:])
    inflated[:, :, tubelet_size // 2] = weight
    return inflated


def native_grid(positions: Tensor) -> int:
    """Patches per side that E_pos (1, 1 + N, C) was stored for; N must be a square."""
    count = positions.shape[1] - 1
    side = round(count**0.5)
    if side * side != count or count < 1:
        raise ValueError(f"pos_embed holds {count} patch positions; a square number is needed")
    return side


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@lru_cache(maxsize=64)
def _pseudo_inverse(native: int, patch_size: int) -> Tensor:
    """(Rᵀ)⁺ in fp64, (P², P0²), where R (P², P0²) resizes a flattened P0×P0 patch to P×P."""
    with torch.inference_mode(False), torch.no_grad():
        basis = torch.eye(native**2, dtype=torch.float64).reshape(-1, 1, native, native)
        size = (patch_size, patch_size)
        # Antialiased bilinear, because that is how the loader resizes the frames the kernel will see.
        resized = F.interpolate(basis, size=size, mode="bilinear", antialias=True)
        return torch.linalg.pinv(resized.flatten(1))  # rows of `resized` are Rᵀ
