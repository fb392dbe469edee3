"""Pictures of a handwritten digit that acts: moves, turns, grows, bounces over a textured background.

An act is a path of the actor: per frame a place, an angle and a size. Lengths are shares of the frame's shorter side,
so that in a wide or high frame the digit and its moves are the same; angles are degrees. Everything random comes from
the given numpy generator, so a clip is a function of its seed.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

SIZE = 112
"""Pixels of a frame's shorter side."""
SQUARE = (1.0, 1.0)
"""(width, height) of a frame in shares of its shorter side."""
_MASTER = 144
"""Pixels per side of the enlarged digit that frames are sampled from; soft edges make nearest sampling enough."""

DIRECTIONS = {
    "right": (1, 0),
    "left": (-1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up-right": (1, -1),
    "down-right": (1, 1),
    "up-left": (-1, -1),
    "down-left": (-1, 1),
}


class ActorPath(NamedTuple):
    """Per-frame state of the actor, each (T,)."""

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    extent: np.ndarray
    opacity: np.ndarray


def _placed(rng, offset_x, offset_y, extent, angle=0.0, opacity=1.0, *, room=SQUARE) -> ActorPath:
    """Put the path (offsets from its start) at a random place where the actor stays visible throughout."""
    num_frames = len(offset_x)
    extent = np.broadcast_to(np.asarray(extent, np.float64), num_frames)
    centres = []
    for offset, side in zip((offset_x, offset_y), room, strict=True):
        low, high = np.max(extent / 2 - offset), np.min(side - extent / 2 - offset)
        start = rng.uniform(low, high) if low < high else (low + high) / 2
        centres.append(start + offset)
    return ActorPath(
        *centres, np.broadcast_to(angle, num_frames), extent, np.broadcast_to(opacity, num_frames)
    )


def move(
    rng, direction: str, *, num_frames: int, extent: float, travel: float, room=SQUARE
) -> ActorPath:
    """A straight, even move over `travel`; `room` is the frame's (width, height)."""
    t = np.linspace(0, 1, num_frames)
    dx, dy = DIRECTIONS[direction]
    length = np.hypot(dx, dy)
    return _placed(rng, travel * dx / length * t, travel * dy / length * t, extent, room=room)


def move_in_turn(
    rng,
    directions: tuple[str, ...],
    *,
    num_frames: int,
    extent: float,
    travel: float,
    room=SQUARE,
) -> ActorPath:
    """Several moves, one after the other, each over an equal share of the frames."""
    t = np.linspace(0, len(directions), num_frames)
    x, y = np.zeros(num_frames), np.zeros(num_frames)
    for i, direction in enumerate(directions):
        done = np.clip(t - i, 0, 1) * travel
        x, y = x + done * DIRECTIONS[direction][0], y + done * DIRECTIONS[direction][1]
    return _placed(rng, x, y, extent, room=room)


def act_path(
    rng, act: str, *, num_frames: int, extent: float, travel: float, room=SQUARE
) -> ActorPath:
    """The path of a named act: a direction of `DIRECTIONS`, spin, grow, circle, bounce or blink."""
    t, still = np.linspace(0, 1, num_frames), np.zeros(num_frames)
    if act in DIRECTIONS:
        return move(rng, act, num_frames=num_frames, extent=extent, travel=travel, room=room)
    if act == "spin":
        turns = rng.uniform(0.6, 1.2) * rng.choice([-1, 1])
        return _placed(rng, still, still, extent, angle=360 * turns * t, room=room)
    if act == "grow":
        final = min(0.9, extent * rng.uniform(1.1, 1.3))
        return _placed(rng, still, still, final * (0.45 + 0.55 * t), room=room)
    if act == "circle":
        phase = 2 * np.pi * (rng.uniform() + rng.choice([-1, 1]) * rng.uniform(0.8, 1.3) * t)
        return _placed(
            rng, travel / 2 * np.cos(phase), travel / 2 * np.sin(phase), extent, room=room
        )
    if act == "bounce":
        hops = np.abs(np.sin(np.pi * (rng.uniform() + rng.uniform(1.5, 2.5) * t)))
        return _placed(rng, rng.uniform(-0.1, 0.1) * t, -0.8 * travel * hops, extent, room=room)
    if act == "blink":
        phase = rng.uniform() + rng.uniform(1.5, 3) * t
        return _placed(
            rng, still, still, extent, opacity=np.where(phase % 1 < 0.3, 0.3, 1.0), room=room
        )
    raise ValueError(
        f"act ({act!r}) must be one of {[*DIRECTIONS, 'spin', 'grow', 'circle', 'bounce', 'blink']}."
    )


@cache
def _enlarge_matrix(num_out: int, num_in: int) -> np.ndarray:
    """Cubic B-spline interpolation (num_out, num_in): smooth, never below 0 or above 1."""
    centres = (np.arange(num_out) + 0.5) * num_in / num_out - 0.5
    d = np.abs(centres[:, None] - np.arange(num_in)[None])
    weights = np.where(d < 1, (4 - 6 * d**2 + 3 * d**3) / 6, np.clip(2 - d, 0, None) ** 3 / 6)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _enlarge(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return pixels (height, width, ...) of a small picture."""
    down, across = _enlarge_matrix(height, len(pixels)), _enlarge_matrix(width, pixels.shape[1])
    # plain einsum stays off BLAS, whose threads would fight over the cores with the other workers
    rows = np.einsum("ai,ij...->aj...", down, pixels)
    return np.einsum("bj,aj...->ab...", across, rows)


def _window(bank: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Part of a bank of noise, which goes on from its beginning behind its end."""
    if top + height <= len(bank) and left + width <= bank.shape[1]:
        return bank[top : top + height, left : left + width]
    rows, columns = np.arange(top, top + height), np.arange(left, left + width)
    return bank[np.ix_(rows % len(bank), columns % bank.shape[1])]


def _actor_mask(rng, image: np.ndarray) -> np.ndarray:
    """Enlarge an 8x8 digit (0..16) to a soft mask in [0, 1] with a random stroke thickness."""
    padded = np.pad(image.astype(np.float32) / 16, 1)
    grey = _enlarge(padded, _MASTER, _MASTER)
    threshold = rng.uniform(0.3, 0.48)
    return np.clip((grey - threshold) * 6 + 0.5, 0, 1).astype(np.float32)


def _background(rng, height: int, width: int) -> np.ndarray:
    """A coloured gradient with coarse and fine smoothed noise, float32 (height, width, 3)."""
    base = rng.uniform(15, 80, 3)
    corners = base + rng.normal(0, 10, (2, 2, 3))
    down, across = (np.linspace(0, 1, side)[:, None] for side in (height, width))
    top, bottom = (across * left + (1 - across) * right for left, right in corners)
    picture = (down[:, None] * top + (1 - down[:, None]) * bottom).astype(np.float32)
    coarse = (round(7 * height / SIZE), round(7 * width / SIZE), 3)
    picture += _enlarge(rng.normal(0, 8, coarse).astype(np.float32), height, width)
    window = _window(_grain_bank(), *rng.integers(0, SIZE, 2), height, width)
    picture += window[:: rng.choice([-1, 1]), :: rng.choice([-1, 1]), rng.permutation(3)]
    return np.clip(picture, 0, 255).astype(np.float32)


def _contrasting_colour(rng, background: np.ndarray) -> np.ndarray:
    """A random light colour, at least 90 grey levels brighter than the background's mean."""
    weights = np.array([0.299, 0.587, 0.114])
    mean = float((background.reshape(-1, 3).mean(0) * weights).sum())
    target = rng.uniform(min(max(mean + 90, 160), 210), 245)
    hue = rng.normal(0, 35, 3)
    return np.clip(target + hue - hue @ weights, 0, 255).astype(np.float32)


@cache
def _grain_bank() -> np.ndarray:
    """Smoothed noise, four pixels a cell, that backgrounds take random windows of; the same in every process."""
    noise = np.random.default_rng(1).normal(0, 6, (56, 56, 3)).astype(np.float32)
    return _enlarge(noise, 2 * SIZE, 2 * SIZE)


@cache
def _noise_bank() -> np.ndarray:
    """Unit pixel noise that frames take random windows of; the same in every process."""
    return np.random.default_rng(0).normal(0, 1, (2 * SIZE, 2 * SIZE)).astype(np.float32)


# R, G, B in 0..255 -> Y, U, V of ITU-R BT.601, limited range: what decoders assume of an untagged small video
_YUV = np.array(
    [[0.257, 0.504, 0.098], [-0.148, -0.291, 0.439], [0.439, -0.368, -0.071]], np.float32
)
_YUV_OFFSET = np.array([16, 128, 128], np.float32)


def _to_yuv(pixels: np.ndarray) -> np.ndarray:
    """Planes (3, ...) of RGB pixels (..., 3)."""
    planes = np.einsum("cd,...d->c...", _YUV, pixels)
    return planes + _YUV_OFFSET.reshape(3, *[1] * (pixels.ndim - 1))


def _alpha(
    mask, frame, centres, x, y, turn, extent, shear, aspect
) -> tuple[slice, slice, np.ndarray]:
    """Opacity of the actor in the box around it: rows, columns and the values there, nearest sampling."""
    reach = 0.75 * extent  # the turned, sheared square fits inside
    rows, columns = (
        slice(
            max(0, int((place - reach) * SIZE)) & ~1,
            min(side, int((place + reach) * SIZE) + 2 & ~1),
        )
        for place, side in zip((y, x), frame, strict=True)
    )
    u, v = centres[columns] - np.float32(x), centres[rows] - np.float32(y)
    # the mask has a tenth of margin on each side
    zoom, middle = 0.8 * _MASTER / extent, _MASTER / 2 + 1
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    # along = cos v - sin u;  across = (cos u + sin v) / aspect + shear * along
    along = (np.float32(cos) * v + np.float32(middle))[:, None] - np.float32(sin) * u
    across_v = np.float32(sin / aspect + shear * cos) * v + np.float32(middle)
    across = across_v[:, None] + np.float32(cos / aspect - shear * sin) * u
    for position in (along, across):
        np.maximum(position, 0, out=position)
        np.minimum(position, _MASTER + 1, out=position)
    place = along.astype(np.int32)
    place *= _MASTER + 2
    place += across.astype(np.int32)
    return rows, columns, mask.ravel()[place]


def render(
    rng, image: np.ndarray, path: ActorPath, *, frame: tuple[int, int] = (SIZE, SIZE)
) -> np.ndarray:
    """Return frames (T, H * 3 // 2, W) uint8 of the digit `image` (8, 8) following `path`; `frame` is (H, W), even.

    The layout is yuv420p, what the encoder takes and half the work of RGB: H rows of Y, then U and V at half
    the resolution.
    """
    height, width = frame
    mask = np.pad(_actor_mask(rng, image), 1)  # a transparent border catches what samples outside
    background = _background(rng, height, width)
    colour = _to_yuv(_contrasting_colour(rng, background))
    planes = _to_yuv(background)
    contrast = colour[:, None, None] - planes
    luma, luma_contrast = planes[0].astype(np.int16), contrast[0]
    chroma, chroma_contrast = planes[1:, ::2, ::2].astype(np.int16), contrast[1:, ::2, ::2].copy()
    shear, tilt, aspect = rng.uniform(-0.12, 0.12), rng.uniform(-8, 8), rng.uniform(0.9, 1.1)
    noise = (_noise_bank() * np.float32(rng.uniform(1.5, 5))).astype(np.int16)
    offsets = rng.integers(0, SIZE, (len(path.x), 2))
    centres = (np.arange(max(frame), dtype=np.float32) + 0.5) / SIZE
    frames = np.empty((len(path.x), height + height // 2, width), np.uint8)
    for t, (x, y, angle, extent, opacity) in enumerate(zip(*path, strict=True)):
        rows, columns, alpha = _alpha(
            mask, frame, centres, x, y, np.deg2rad(angle + tilt), extent, shear, aspect
        )
        alpha = np.float32(opacity) * alpha
        top, left = offsets[t]
        picture = luma + _window(noise, top, left, height, width)
        picture[rows, columns] += (alpha * luma_contrast[rows, columns]).astype(np.int16)
        frames[t, :height] = np.minimum(np.maximum(picture, 16), 235)
        picture = chroma + _window(noise, left, top, height // 2, width // 2) // 2
        rows, columns = (slice(s.start // 2, s.stop // 2) for s in (rows, columns))
        picture[:, rows, columns] += (alpha[::2, ::2] * chroma_contrast[:, rows, columns]).astype(
            np.int16
        )
        picture = np.minimum(np.maximum(picture, 16), 240)
        frames[t, height:] = picture.reshape(height // 2, width)
    return frames
