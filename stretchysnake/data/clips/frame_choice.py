"""Which frames of a video make a clip: pure integers, no pixels.

**Uniform** (ours): the video is cut into `num_frames` equal segments; evaluation takes the centre of each, training
one random frame of each. **Strided**: one frame every `stride`, from a window anywhere in the video.
**VideoMamba**: the rule of the official code, for its checkpoints; UniFormerV2 and FluxViT are tested by the same.
`OFFICIAL`: what the test loaders of other published systems take, named by the system. A shorter video has a name:

- `repeat`: several segments fall on one frame, in order (uniform only; its default),
- `hold`: every frame once, then the last one is held,
- `loop`: from the end on to the beginning.

| total | num_frames | `uniform_indices`        | short="hold"    | short="loop"    |
|-------|------------|--------------------------|-----------------|-----------------|
| 1     | 4          | 0 0 0 0                  | 0 0 0 0         | 0 0 0 0         |
| 3     | 8          | 0 0 0 1 1 2 2 2          | 0 1 2 2 2 2 2 2 | 0 1 2 0 1 2 0 1 |
| 5     | 8          | 0 0 1 2 2 3 4 4          | 0 1 2 3 4 4 4 4 | 0 1 2 3 4 0 1 2 |
| 8     | 8          | 0 1 2 3 4 5 6 7          | the same        | the same        |
| 10    | 4          | 1 3 6 8                  | the same        | the same        |
| 32    | 8          | 2 6 10 14 18 22 26 30    | the same        | the same        |
| 300   | 4          | 37 112 187 262           | the same        | the same        |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

SHORT = ("repeat", "hold", "loop")


def _check(total: int, num_frames: int) -> None:
    if total < 1:
        raise ValueError(f"total ({total}) must be at least 1: the video has no frame to sample.")
    if num_frames < 1:
        raise ValueError(f"num_frames ({num_frames}) must be at least 1.")


def _fold(position: int, total: int, short: str) -> int:
    """The frame that stands for a position at or beyond the end."""
    return position % total if short == "loop" else min(position, total - 1)


def _check_short(short: str, choices: tuple[str, ...]) -> None:
    if short not in choices:
        raise ValueError(f"short ({short!r}) must be one of: {', '.join(choices)}.")


def uniform_indices(total: int, num_frames: int, *, short: str = "repeat") -> list[int]:
    """Return the centre frame of each of `num_frames` equal segments; `short` says what a shorter video gives."""
    _check(total, num_frames)
    _check_short(short, SHORT)
    if total < num_frames and short != "repeat":
        return [_fold(i, total, short) for i in range(num_frames)]
    return [min(total - 1, (2 * i + 1) * total // (2 * num_frames)) for i in range(num_frames)]


def jittered_indices(
    total: int, num_frames: int, generator: torch.Generator, *, short: str = "repeat"
) -> list[int]:
    """Return one uniformly random frame of each of `num_frames` equal segments, in order.

    A segment shorter than one frame holds exactly the frame it starts in, so short videos repeat frames as in
    `uniform_indices`; with another `short` they give what `uniform_indices` gives. Draws `num_frames` numbers always.
    """
    _check(total, num_frames)
    _check_short(short, SHORT)
    draws = torch.rand(num_frames, generator=generator, dtype=torch.float64).tolist()
    if total < num_frames and short != "repeat":
        return uniform_indices(total, num_frames, short=short)
    indices = []
    for i, draw in enumerate(draws):
        first = i * total // num_frames
        last = max(first, (i + 1) * total // num_frames - 1)
        indices.append(min(last, first + int(draw * (last - first + 1))))
    return indices


def strided_indices(
    total: int, num_frames: int, *, stride: int, start: int = 0, short: str = "hold"
) -> list[int]:
    """Return `num_frames` frames `stride` apart from frame `start` on; beyond the end `short` decides.

    total 10, num_frames 4, stride 2: 0 2 4 6; from start 6, hold: 6 8 9 9; from start 6, loop: 6 8 0 2.
    """
    _check(total, num_frames)
    _check_short(short, ("hold", "loop"))
    if stride < 1 or not 0 <= start < total:
        raise ValueError(
            f"stride ({stride}) must be at least 1 and start ({start}) a frame of the video, 0 to {total - 1}."
        )
    return [_fold(start + i * stride, total, short) for i in range(num_frames)]


def _last_start(total: int, num_frames: int, stride: int) -> int:
    """The last frame a window of `num_frames` frames `stride` apart can start at and still fit."""
    return max(0, total - (num_frames - 1) * stride - 1)


def random_strided_indices(
    total: int, num_frames: int, generator: torch.Generator, *, stride: int, short: str = "hold"
) -> list[int]:
    """Return a window of `num_frames` frames `stride` apart, at a uniformly random place where it fits."""
    _check(total, num_frames)
    draw = torch.rand((), generator=generator, dtype=torch.float64).item()
    start = int(draw * (_last_start(total, num_frames, stride) + 1))
    return strided_indices(total, num_frames, stride=stride, start=start, short=short)


def strided_view_indices(
    total: int, num_frames: int, *, stride: int, view: int, num_views: int, short: str = "hold"
) -> list[int]:
    """Return view `view` of `num_views` windows, evenly spaced from the first that fits to the last; one: the middle.

    total 100, num_frames 4, stride 8, 3 views: starts 0, 37, 75.
    """
    _check_view(view, num_views)
    last = _last_start(total, num_frames, stride)
    start = last // 2 if num_views == 1 else view * last // (num_views - 1)
    return strided_indices(total, num_frames, stride=stride, start=start, short=short)


def uniform_view_indices(
    total: int, num_frames: int, *, view: int, num_views: int, short: str = "repeat"
) -> list[int]:
    """Return view `view` of `num_views`: the frame (2·view + 1) / (2·num_views) into each segment; one: its centre.

    total 24, num_frames 4, 3 views: 1 7 13 19; 3 9 15 21; 5 11 17 23.
    """
    _check(total, num_frames)
    _check_view(view, num_views)
    if total < num_frames and short != "repeat":
        return uniform_indices(total, num_frames, short=short)
    parts = 2 * num_views
    return [
        min(total - 1, (parts * i + 2 * view + 1) * total // (parts * num_frames))
        for i in range(num_frames)
    ]


def videomamba_indices(
    total: int,
    num_frames: int,
    *,
    view: int = 0,
    num_views: int = 1,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Return what the official code samples (OpenGVLab/VideoMamba, `_get_seq_frames` of its sparse data sets).

    Segments are (total - 1) / num_frames long and start at round(i · length), halves to even. At test, view v is
    (v + 1) / (num_views + 1) of a segment further on, rounded down; in training (with a generator) a frame is drawn
    between the starts of two neighbours, both included. total 100, num_frames 4: 12 37 62 86.
    """
    _check(total, num_frames)
    _check_view(view, num_views)
    length = (total - 1) / num_frames
    starts = [round(length * i) for i in range(num_frames + 1)]
    if generator is None:
        offset = int(length / (num_views + 1) * (view + 1))
        return [min(start + offset, total - 1) for start in starts[:-1]]
    draws = torch.rand(num_frames, generator=generator, dtype=torch.float64).tolist()
    return [
        min(starts[i] + int(draw * (starts[i + 1] - starts[i] + 1)), total - 1)
        for i, draw in enumerate(draws)
    ]


def _check_view(view: int, num_views: int) -> None:
    if not 0 <= view < num_views:
        raise ValueError(f"view ({view}) must be at least 0 and less than num_views ({num_views}).")


def _linspace(start: float, length: float, num_frames: int, total: int) -> list[int]:
    # SlowFast's loader: torch.linspace in fp32, clamped, truncated; 16 of 64 frames are 4.2 apart, not 4
    places = torch.linspace(start, start + max(length, 1) - 1, num_frames)
    return places.clamp(0, total - 1).long().tolist()


def timesformer_indices(total, num_frames, *, stride, fps, view=0, num_views=1) -> list[int]:
    """Return T frames of num_frames · stride thirtieths of a second, ends included; view v of V starts v/V of the way.

    total 300 at 30 fps, num_frames 8, stride 32: 0 36 72 109 145 182 218 255; one view is the beginning.
    """
    length = num_frames * stride * fps / 30
    return _linspace(max(total - length, 0) * view / num_views, length, num_frames, total)


def mvit_indices(total, num_frames, *, stride, fps, view=0, num_views=1) -> list[int]:
    """Return as `timesformer_indices`, view v from v · ⌊rest / (V - 1)⌋ on; one: the middle. Also Hiera's.

    total 300 at 30 fps, num_frames 4, stride 4: 142 147 152 157; view 1 of 5: 71 76 81 86.
    """
    length = num_frames * stride * fps / 30
    rest = max(total - length, 0)
    start = math.floor(rest / 2) if num_views == 1 else view * math.floor(rest / (num_views - 1))
    return _linspace(start, length, num_frames, total)


def uniformer_indices(total, num_frames, *, stride, fps, view=0, num_views=1) -> list[int]:
    """Return as `mvit_indices`, in the video's own frames. total 300, num_frames 4, stride 4: 142 147 152 157."""
    return mvit_indices(total, num_frames, stride=stride, fps=30, view=view, num_views=num_views)


def swin_indices(total, num_frames, *, stride, fps, view=0, num_views=1) -> list[int]:
    """Return T frames `stride` apart from the middle of part v of V of the starts that fit; loops. Also AIM's.

    total 100, num_frames 4, stride 8: 34 42 50 58; total 10, num_frames 4, stride 4: 0 4 8 2.
    """
    part = (total - num_frames * stride + 1) / num_views
    start = int(view * part + part / 2) if total >= num_frames * stride else 0
    return [(start + i * stride) % total for i in range(num_frames)]


def evl_indices(total, num_frames, *, stride, fps, view=0, num_views=1) -> list[int]:
    """Return as `strided_view_indices`, starts rounded. total 100, num_frames 4, stride 8, 3 views: 0, 38, 75."""
    rest = _last_start(total, num_frames, stride)
    start = rest // 2 if num_views == 1 else round(rest / (num_views - 1) * view)
    return strided_indices(total, num_frames, stride=stride, start=start)


def omnivore_indices(total, num_frames, *, stride, fps, view=0, num_views=1) -> list[int]:
    """Return T in a row of 160 frames of the first ten seconds, view v from ⌊160 · v / V⌋ on; one: the middle ones.

    total 300 at 30 fps, num_frames 4: 146 148 150 152; view 1 of 4: 75 77 78 80.
    """
    dense = torch.linspace(0, max(min(total, round(10 * fps)), 1) - 1, 160).long().tolist()
    start = max(160 - num_frames, 0) // 2 if num_views == 1 else 160 * view // num_views
    return [dense[min(start + i, 159)] for i in range(num_frames)]


def cast_indices(total, num_frames, *, stride, fps, view=0, num_views=1) -> list[int]:
    """Return T in a row of every stride-th frame, the last held; view v from int(v · rest / (V - 1)), one: middle.

    total 100, num_frames 4, stride 4: 40 44 48 52; view 4 of 5: 84 88 92 96.
    """
    kept = range(0, total, stride)
    rest = max(len(kept) - num_frames, 0)
    start = rest // 2 if num_views == 1 else int(view * rest / (num_views - 1))
    return [kept[min(start + i, len(kept) - 1)] for i in range(num_frames)]


OFFICIAL: dict[str, Callable[..., list[int]]] = {
    "timesformer": timesformer_indices, "mvit": mvit_indices, "uniformer": uniformer_indices, "swin": swin_indices,
    "evl": evl_indices, "omnivore": omnivore_indices, "cast": cast_indices,
}  # fmt: skip
"""Rules of published tests (sources: docs/table2.md); `fps` enters timesformer, mvit and omnivore."""
RULES = ("uniform", "strided", "videomamba", *OFFICIAL)
STRIDED = ("strided", *(name for name in OFFICIAL if name != "omnivore"))
"""Rules that have a stride; Omnivore's frames are 16 a second."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """One of the rules above, with its settings."""

    rule: str = "uniform"
    """"uniform", "strided", "videomamba" or one of OFFICIAL."""
    stride: int = 1
    """Frames from one to the next; of the rules in STRIDED."""
    short: str | None = None
    """Videos shorter than the clip: "repeat" (uniform only), "hold" or "loop"; null takes the rule's default."""

    def __post_init__(self):
        if self.rule not in RULES:
            raise ValueError(f"rule ({self.rule!r}) must be one of: {', '.join(RULES)}.")
        if self.stride < 1 or (self.stride > 1 and self.rule not in STRIDED):
            raise ValueError(
                f"stride ({self.stride}) must be at least 1, and 1 unless rule is 'strided' ({self.rule!r}) or one "
                f"of: {', '.join(STRIDED[1:])}."
            )
        if self.short is not None:
            choices = {"uniform": SHORT, "strided": ("hold", "loop")}.get(self.rule, ())
            if not choices:
                raise ValueError(f"short ({self.short!r}) must be null for rule {self.rule!r}.")
            _check_short(self.short, choices)

    @property
    def name(self) -> str:
        """The rule with what sets it apart: `uniform`, `videomamba`, `strided-4`, `uniform-loop`."""
        stride = str(self.stride) if self.rule in STRIDED else ""
        settings = [self.rule, stride, self.short or ""]
        return "-".join(filter(None, settings))

    def indices(
        self,
        total: int,
        num_frames: int,
        *,
        generator: torch.Generator | None = None,
        view: int = 0,
        num_views: int = 1,
        fps: float | None = None,
    ) -> list[int]:
        """The frames of a training clip (with a generator), or of view `view` of `num_views` without any randomness.

        `fps` is the video's own rate: frames per second.
        """
        places = {"view": view, "num_views": num_views}
        if self.rule in OFFICIAL:
            if generator is not None or fps is None:
                raise ValueError(
                    f"rule ({self.rule!r}) is one of published tests: it needs the video's fps, and draws nothing; "
                    f"train with one of: {', '.join(RULES[:3])}."
                )
            _check(total, num_frames)
            _check_view(view, num_views)
            return OFFICIAL[self.rule](total, num_frames, stride=self.stride, fps=fps, **places)
        if self.rule == "videomamba":
            return videomamba_indices(total, num_frames, generator=generator, **places)
        if self.rule == "strided":
            settings = {"stride": self.stride, "short": self.short or "hold"}
            if generator is not None:
                return random_strided_indices(total, num_frames, generator, **settings)
            return strided_view_indices(total, num_frames, **settings, **places)
        short = self.short or "repeat"
        if generator is not None:
            return jittered_indices(total, num_frames, generator, short=short)
        return uniform_view_indices(total, num_frames, short=short, **places)
