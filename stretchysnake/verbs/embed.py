"""`stretchysnake embed`: features of any videos."""

import sys
from dataclasses import dataclass
from typing import Literal

from stretchysnake.command_line import Progress, parsed

EXAMPLES = (
    "stretchysnake embed holiday/ clip.webm --weights runs/mine/weights.safetensors --out features/\n"
    "  stretchysnake embed lecture.mp4 --weights runs/mine/weights.safetensors --out features/ "
    "--long window --frames_per_second 2"
)


@dataclass(frozen=True, kw_only=True)
class EmbedRun:
    """Features of videos."""

    weights: str
    """weights.safetensors of a training, or an official checkpoint."""
    out: str
    """Folder for features.npy, meta.jsonl and manifest.json."""
    frames: int | None = None
    """Frames per video; null means the native number."""
    size: int | None = None
    """Pixels per side; null means the native size."""
    long: Literal["window", "exact"] | None = None
    """Videos of any length in constant memory: "window" carries the scan's state from window to window and averages
    their features; "exact" is one sequence of all frames, through a temporary file (docs/long_videos.md)."""
    frames_per_second: float | None = None
    """With long: frames read per second of video, in place of frames."""
    window: int | None = None
    """With long: most frames in memory at once; null means the native number."""
    stretches: int | None = None
    """With long window: the windows' means of so many stretches of time behind one another, which keeps their order."""
    scratch: str | None = None
    """With long exact: folder for the temporary file; null means the system's."""


def run(argv: list[str]) -> int:
    run, paths = parsed("embed", EmbedRun, EXAMPLES, argv, paths=True)
    _check_long(run)
    from stretchysnake.eval.embed import embed, save_embeddings

    progress = Progress()
    if run.long:
        from stretchysnake.eval.long_video import LongSampling, embed_long

        sampling = LongSampling(
            exact=run.long == "exact",
            num_frames=run.frames,
            frames_per_second=run.frames_per_second,
            window=run.window,
            stretches=1 if run.stretches is None else run.stretches,
            scratch=run.scratch,
        )
        found = embed_long(paths, sampling, weights=run.weights, size=run.size, progress=progress)
    else:
        found = embed(
            paths, weights=run.weights, num_frames=run.frames, size=run.size, progress=progress
        )
    progress.close()
    for _, reason in found.failures:  # the reason names the file
        print(f"skipped {reason}", file=sys.stderr)
    for path in found.repeated:
        print(f"{path}: fewer frames than asked for, frames repeated", file=sys.stderr)
    if not found.paths:
        raise ValueError(
            f"none of the {len(found.failures)} videos could be read; nothing was written"
        )
    save_embeddings(run.out, found)
    scale = f"T={found.scale.num_frames} S={found.scale.size}"
    if run.long:
        scale = f"S={found.scale.size}, {found.sampling}"
    print(
        f"{len(found.paths)} of {len(found.paths) + len(found.failures)} videos, "
        f"{found.features.shape[1]} numbers each, at {scale}: {run.out}"
    )
    return 0 if not found.failures else 1


def _check_long(run: EmbedRun) -> None:
    for name in ("frames_per_second", "window", "stretches", "scratch"):
        if run.long is None and getattr(run, name) is not None:
            raise ValueError(
                f"{name} ({getattr(run, name)}) needs long; add --long window or --long exact"
            )
