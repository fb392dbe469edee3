"""RandAugment (arXiv:1909.13719) on whole clips: a few operations of random kind, the same for every frame.

The operations, their strengths and their pixels are those of torchvision 0.28 (`transforms.v2.RandAugment`, nearest
sampling, black outside), so that its published settings keep their meaning; held by recorded values in the tests.
None of them mirrors a clip. Frames are uint8 (T, H, W, 3); statistics (contrast, equalize) are those of each frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

NUM_BINS = 31
_GREY = (0.2989, 0.587, 0.114)


def _blend(frames: Tensor, other: Tensor | float, ratio: float) -> Tensor:
    """frames · ratio + other · (1 - ratio), cut to bytes."""
    return (frames.float() * ratio + other * (1 - ratio)).clamp_(0, 255).to(torch.uint8)


def _grey(frames: Tensor) -> Tensor:
    """Luminance (T, H, W, 1) in whole steps."""
    return (frames.float() @ torch.tensor(_GREY, device=frames.device))[..., None].floor_()


def brightness(frames: Tensor, amount: float) -> Tensor:
    """Blend with black; -1 is black, 0 changes nothing, 1 doubles."""
    return _blend(frames, 0.0, 1 + amount)


def color(frames: Tensor, amount: float) -> Tensor:
    """Blend with each pixel's grey; -1 is grey."""
    return _blend(frames, _grey(frames), 1 + amount)


def contrast(frames: Tensor, amount: float) -> Tensor:
    """Blend with each frame's mean grey; -1 is flat."""
    return _blend(frames, _grey(frames).mean((1, 2, 3), keepdim=True), 1 + amount)


def sharpness(frames: Tensor, amount: float) -> Tensor:
    """Blend with a 3 x 3 smoothing of all but the border; -1 is smooth."""
    if min(frames.shape[1:3]) < 3:
        return frames
    # in whole numbers: a convolution may be rounded by a GPU, and 13 parts have no half
    rows = frames[:, :-2].short() + frames[:, 1:-1] + frames[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * frames[:, 1:-1, 1:-1].short()
    smooth = frames.float()
    smooth[:, 1:-1, 1:-1] = (total + 6).div(13, rounding_mode="floor").float()
    return _blend(frames, smooth, 1 + amount)


def posterize(frames: Tensor, bits: float) -> Tensor:
    """Keep the highest `bits` bits of each byte."""
    return frames & (256 - (1 << (8 - int(bits))))


def solarize(frames: Tensor, threshold: float) -> Tensor:
    """Invert bytes at or above this share of 255."""
    return torch.where(frames >= 255 * threshold, 255 - frames, frames)


def autocontrast(frames: Tensor, _: float = 0) -> Tensor:
    """Stretch each frame's channels to 0..255; flat ones stay."""
    values = frames.float()
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    flat = low == high
    scale = torch.where(flat, 1.0, 255 / (high - low))
    low = torch.where(flat, 0.0, low)
    return ((values - low) * scale).clamp_(0, 255).to(torch.uint8)


def equalize(frames: Tensor, _: float = 0) -> Tensor:
    """Even out the histogram of each frame's channels."""
    planes = frames.permute(0, 3, 1, 2).flatten(0, 1).flatten(1).long()  # (T * 3, H * W)
    counts = torch.zeros(len(planes), 256, dtype=torch.int64, device=frames.device)
    counts.scatter_add_(1, planes, torch.ones_like(planes))
    total = counts.cumsum(1)
    # the brightest value there is does not count: it maps to 255 already
    brightest = counts.gather(1, planes.amax(1, keepdim=True))
    step = (planes.shape[1] - brightest).div(255, rounding_mode="floor")
    table = (total + step.div(2, rounding_mode="floor")).div(
        step.clamp(min=1), rounding_mode="floor"
    )
    table = torch.cat([torch.zeros_like(table[:, :1]), table[:, :-1]], 1).clamp_(0, 255)
    even = torch.where(step == 0, planes, table.gather(1, planes)).to(torch.uint8)
    num_frames, height, width, _ = frames.shape
    return even.view(num_frames, 3, height, width).permute(0, 2, 3, 1)


def _sampled(frames: Tensor, matrix: list[list[float]]) -> Tensor:
    """Each output pixel taken from where `matrix` (2 x 3) sends its centre, in pixels; nearest, black outside."""
    height, width = frames.shape[1:3]
    rows, columns = (torch.arange(n, device=frames.device) + 0.5 for n in (height, width))
    (a, b, c), (d, e, f) = matrix
    x = (columns * a + rows[:, None] * b + c) * (2 / width) - 1
    y = (columns * d + rows[:, None] * e + f) * (2 / height) - 1
    grid = torch.stack([x, y], -1)[None].expand(len(frames), -1, -1, -1)
    planes = frames.permute(0, 3, 1, 2).float()
    moved = F.grid_sample(planes, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.to(torch.uint8).permute(0, 2, 3, 1)


def shear_x(frames: Tensor, amount: float) -> Tensor:
    return _sampled(frames, [[1, amount, 0], [0, 1, 0]])


def shear_y(frames: Tensor, amount: float) -> Tensor:
    return _sampled(frames, [[1, 0, 0], [amount, 1, 0]])


def translate_x(frames: Tensor, pixels: float) -> Tensor:
    return _sampled(frames, [[1, 0, -int(pixels)], [0, 1, 0]])


def translate_y(frames: Tensor, pixels: float) -> Tensor:
    return _sampled(frames, [[1, 0, 0], [0, 1, -int(pixels)]])


def rotate(frames: Tensor, degrees: float) -> Tensor:
    """Turn counter-clockwise about the centre."""
    height, width = frames.shape[1:3]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return _sampled(frames, [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]])


# name -> (operation, strength at a share 0..1 of the scale for a frame of (height, width), whether it has a sign)
OPERATIONS = {
    "identity": (lambda frames, _: frames, lambda share, height, width: 0.0, False),
    "shear_x": (shear_x, lambda share, height, width: 0.3 * share, True),
    "shear_y": (shear_y, lambda share, height, width: 0.3 * share, True),
    "translate_x": (translate_x, lambda share, height, width: 150 / 331 * width * share, True),
    "translate_y": (translate_y, lambda share, height, width: 150 / 331 * height * share, True),
    "rotate": (rotate, lambda share, height, width: 30 * share, True),
    "brightness": (brightness, lambda share, height, width: 0.9 * share, True),
    "color": (color, lambda share, height, width: 0.9 * share, True),
    "contrast": (contrast, lambda share, height, width: 0.9 * share, True),
    "sharpness": (sharpness, lambda share, height, width: 0.9 * share, True),
    "posterize": (posterize, lambda share, height, width: round(8 - 4 * share), False),
    "solarize": (solarize, lambda share, height, width: 1 - share, False),
    "autocontrast": (autocontrast, lambda share, height, width: 0.0, False),
    "equalize": (equalize, lambda share, height, width: 0.0, False),
}


def rand_augment(
    frames: Tensor, generator: torch.Generator, *, num_ops: int = 2, magnitude: int = 9
) -> Tensor:
    """Return the clip after `num_ops` operations drawn once for all its frames; `magnitude` is 0 to 30."""
    settings = {"num_ops": num_ops, "magnitude": magnitude}
    return operated(frames, drawn_operations(*frames.shape[1:3], generator, **settings))


def operated(frames: Tensor, operations: Sequence[tuple[str, float]]) -> Tensor:
    """The clip after these (name, strength), on the device of its frames."""
    for name, amount in operations:
        operation, _, _ = OPERATIONS[name]
        frames = operation(frames, amount)
    return frames


def drawn_operations(
    height: int, width: int, generator: torch.Generator, *, num_ops: int = 2, magnitude: int = 9
) -> tuple[tuple[str, float], ...]:
    """(name, strength) of operations on frames of this size; two random numbers each, always."""
    if num_ops < 0 or not 0 <= magnitude < NUM_BINS:
        raise ValueError(
            f"num_ops ({num_ops}) must be at least 0 and magnitude ({magnitude}) between 0 and {NUM_BINS - 1}."
        )
    names, drawn = list(OPERATIONS), []
    for kind, sign in torch.rand(num_ops, 2, generator=generator).tolist():
        name = names[int(kind * len(names))]
        _, strength, signed = OPERATIONS[name]
        amount = strength(magnitude / (NUM_BINS - 1), height, width)
        drawn.append((name, -amount if signed and sign <= 0.5 else amount))
    return tuple(drawn)
