"""`stretchysnake long`: features of videos of any length, in constant memory."""

import sys
from dataclasses import dataclass
from typing import Literal

from stretchysnake.cli.options import parsed, tell_passed_over
from stretchysnake.cli.progress import Progress
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.eval.features.placement import Placement
from stretchysnake.shown import shown

EXAMPLES = (
    "stretchysnake long lecture.mp4 --weights runs/mine/weights.safetensors --out features/ --frames_per_second 2\n"
    "  stretchysnake long lectures/ --weights W --out features/ --form exact --frames 7200"
)


@dataclass(frozen=True, kw_only=True)
class LongRun:
    """Features of videos of any length in constant memory (docs/long_videos.md)."""

    weights: str
    """weights.safetensors of a training, an official checkpoint, or a name: `stretchysnake weights` lists them."""
    out: str
    """Folder for features.npy, meta.jsonl and manifest.json."""
    form: Literal["window", "exact"] = "window"
    """"window" carries the scan's state from window to window and averages their features; "exact" is one sequence
    of all frames, through a temporary file."""
    frames: int | None = None
    """Frames per video, spread evenly over its frames; or give frames_per_second."""
    frames_per_second: float | None = None
    """Frames read per second of video, spread evenly over its time."""
    size: int | None = None
    """Pixels per side; null means the native size."""
    window: int | None = None
    """Most frames in memory at once; null means the native number."""
    stretches: int = 1
    """With form window: the windows' means of so many stretches behind one another, which keeps their order."""
    scratch: str | None = None
    """With form exact: folder for the temporary file; null means the system's."""
    num_workers: int = 1
    """1: a process decodes, of one video after another, since each is read in one pass; 0 decodes in this process,
    without limits of time and memory. How much the model takes at once is `window`."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Time that each second of a video may take to decode; a file that takes longer is left out."""

    def __post_init__(self):
        if self.num_workers not in (0, 1):
            raise ValueError(
                f"num_workers ({self.num_workers}) must be 0 or 1: a long video is read in one pass, by one process; "
                "for more at once, give parts of the videos to several calls"
            )


def run(argv: list[str]) -> int:
    (run, placement), paths = parsed(
        "long", (LongRun, Placement), EXAMPLES, argv, paths="videos, or folders of them"
    )
    from stretchysnake.eval.long_embeddings import save_long_embeddings
    from stretchysnake.eval.long_reading import LongReading
    from stretchysnake.eval.long_video import embed_long

    reading = LongReading(
        exact=run.form == "exact",
        num_frames=run.frames,
        frames_per_second=run.frames_per_second,
        window=run.window,
        stretches=run.stretches,
        scratch=run.scratch,
    )
    progress = Progress()
    found = embed_long(
        paths,
        reading,
        weights=run.weights,
        size=run.size,
        placement=placement,
        num_workers=run.num_workers,
        timeout_seconds=run.timeout_seconds,
        progress=progress,
    )
    progress.close()
    for _, reason in found.failures:  # the reason names the file
        print(f"skipped {shown(reason)}", file=sys.stderr)
    for path in found.repeated:
        print(
            f"{shown(path)}: fewer different frames than asked for, frames repeated",
            file=sys.stderr,
        )
    if not found.paths:
        raise ValueError(
            f"none of the {len(found.failures)} videos could be read; nothing was written"
        )
    save_long_embeddings(run.out, found)
    print(
        f"{len(found.paths)} of {len(found.paths) + len(found.failures)} videos, "
        f"{found.features.shape[1]} numbers each, at S={found.scale.size}, {found.sampling}: {run.out}"
    )
    tell_passed_over(paths)
    return 0 if not found.failures else 1
