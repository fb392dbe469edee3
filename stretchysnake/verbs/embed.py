"""`stretchysnake embed`: features of any videos."""

import sys
from dataclasses import dataclass

from stretchysnake.command_line import Progress, parsed

EXAMPLES = (
    "stretchysnake embed holiday/ clip.webm --weights runs/mine/weights.safetensors --out features/"
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


def run(argv: list[str]) -> int:
    run, paths = parsed("embed", EmbedRun, EXAMPLES, argv, paths=True)
    from stretchysnake.eval.embed import embed, save_embeddings

    progress = Progress()
    found = embed(
        paths, weights=run.weights, num_frames=run.frames, size=run.size, progress=progress
    )
    progress.close()
    for _, reason in found.failures:  # the reason names the file
        print(f"skipped {reason}", file=sys.stderr)
    for path in found.repeated:
        print(
            f"{path}: fewer than {found.scale.num_frames} frames, frames repeated", file=sys.stderr
        )
    if not found.paths:
        raise ValueError(
            f"none of the {len(found.failures)} videos could be read; nothing was written"
        )
    save_embeddings(run.out, found)
    print(
        f"{len(found.paths)} of {len(found.paths) + len(found.failures)} videos, "
        f"{found.features.shape[1]} numbers each, at T={found.scale.num_frames} S={found.scale.size}: {run.out}"
    )
    return 0 if not found.failures else 1
