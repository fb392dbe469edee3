"""Which frames of a long video are read, and in which windows."""

import os
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.containers.packet_index import PacketIndex
from stretchysnake.flexibility import Scale

MOST = {"num_frames": 10**7, "frames_per_second": 1000, "stretches": 10**7}
"""Each frame read is an entry of a list: ten million are four days of a film."""


@dataclass(frozen=True, kw_only=True)
class LongReading:
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
        for name, most in MOST.items():
            value = getattr(self, name)
            if value is not None and value > most:
                raise ValueError(f"{name} ({value}) must be at most {most:,}")
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
        if self.num_frames is not None:
            self.frames_of(0.0, 1)  # refuses stretches without a frame before a model is read

    def frames_of(self, duration_seconds: float, tubelet: int) -> int:
        """How many frames of a video are read: a multiple of the tubelet, at least one for each stretch.

        A rate gives a short video that many; a number of frames without them is a ValueError.
        """
        wanted = self.num_frames
        if wanted is None:
            wanted = round(duration_seconds * self.frames_per_second)
        elif self.stretches > max(1, round(wanted / tubelet)):
            each = "a frame" if tubelet == 1 else f"tubelet_size ({tubelet}) frames"
            raise ValueError(
                f"stretches ({self.stretches}) must be no more than num_frames ({wanted}) has for {each} each; "
                "read more frames, or make fewer stretches"
            )
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


class WindowedFrames(NamedTuple):
    """What is read of a video."""

    num_frames: int
    spans: list[tuple[int, int]]
    """(start, stop) of each window among the frames read."""
    seconds: list[tuple[float, float]]
    repeated: bool


def windowed_frames(
    index: PacketIndex, *, reading: LongReading, scale: Scale, tubelet: int
) -> tuple[WindowedFrames, list[list[int]]]:
    """What is read, and the frame numbers of each window: by time where seconds are asked for, else by number."""
    duration, total = index.duration, len(index.stamps)
    count = reading.frames_of(duration, tubelet)
    if reading.frames_per_second is None:
        indices = uniform_indices(total, count)
    else:
        indices = [index.shown_at((i + 0.5) * duration / count) for i in range(count)]
    spans = window_spans(count, scale.num_frames, tubelet, at_least=reading.stretches)

    def second(place: int) -> float:
        """Where the segment of the place-th frame read begins; frames are as long as they are on screen."""
        if reading.frames_per_second is not None:
            return place * duration / count
        frame, part = divmod(place * total, count)
        if frame == total:
            return duration
        begin, end = (index.seconds(i) if i < total else duration for i in (frame, frame + 1))
        return begin + part / count * (end - begin)

    seconds = [(second(start), second(stop)) for start, stop in spans]
    frames = WindowedFrames(count, spans, seconds, len(set(indices)) < count)
    return frames, [indices[start:stop] for start, stop in spans]


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
