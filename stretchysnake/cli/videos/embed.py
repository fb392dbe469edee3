"""`stretchysnake embed`: features of any videos, in an index on disk."""

import os
import sys
from dataclasses import dataclass

from stretchysnake.cli.budget import within_budget
from stretchysnake.cli.options import parsed, tell_passed_over
from stretchysnake.cli.progress import Progress
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.shown import shown

EXAMPLES = (
    "stretchysnake embed holiday/ clip.webm --weights runs/mine/weights.safetensors -o index/\n"
    "  stretchysnake embed lectures/ --weights W -o index/ --window 10 --stride 5 --frames 16 --size 64"
)


@dataclass(frozen=True, kw_only=True)
class EmbedRun:
    """Features of videos, in an index for `stretchysnake search`.

    The paths are videos, folders, or lists: of paths alone, or with label, class_name and group. The same command again
    goes on after an interruption, embeds what is new or changed and removes what is gone from the folders.
    """

    weights: str
    """weights.safetensors of a training, or an official checkpoint."""
    out: str
    """-o: folder for features.npy, meta.jsonl and manifest.json."""
    frames: int | None = None
    """Frames per video or window; null means the native number."""
    size: int | None = None
    """Pixels per side; null means the native size."""
    budget: str | None = None
    """Instead of frames and size: what one clip may cost, e.g. "20 GFLOPs", "50 ms" or "2 GB"; needs rows."""
    rows: str | None = None
    """Rows of `stretchysnake evaluate`, which tell the accuracy of every scale."""
    window: float | None = None
    """Seconds; each window of this length is a row of its own. Null: one row per video."""
    stride: float | None = None
    """Seconds from one window's start to the next's; null means no overlap and no gap."""
    store: str | None = None
    """lancedb:URI puts the same index into LanceDB too (a local folder, s3://, gs://, az://), kept up to date; a store
    holds any number of indexes."""
    index_name: str | None = None
    """What the index is called in the store; null: the absolute path of out."""
    replace_index: bool = False
    """Put it in the place of an index of that name which another folder wrote, or which has other settings."""
    decoder: str = "pyav"
    """"pyav", or "torchcodec" where it is installed (an extra): the same frames, whose pixels may differ by rounding.
    The latter needs window null; a search decodes its queries alike."""
    num_workers: int = 2
    """Processes that decode."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Time that each second of a video may take to decode; a file that takes longer is left out."""


def run(argv: list[str]) -> int:
    run, paths = parsed("embed", EmbedRun, EXAMPLES, argv, paths=True, short={"-o": "--out"})
    from stretchysnake.search.embed import embed_into

    if run.store is not None and not run.store.startswith("lancedb:"):
        raise ValueError(f"store ({run.store}) must be lancedb:URI, e.g. lancedb:videos.lance")
    if run.store is None and (run.index_name is not None or run.replace_index):
        raise ValueError(
            "index_name and replace_index say what an index is in a store; give --store lancedb:URI too"
        )
    if run.store is not None:  # before hours of work
        from stretchysnake.search.stores.lance_tables import refuse_if_missing

        refuse_if_missing()
        os.environ.setdefault("LANCE_LOG", "error")  # it warns of every table that it makes
    progress = Progress()
    frames, size = run.frames, run.size
    if run.budget is not None:
        frames, size = within_budget(run.weights, run.budget, run.rows, (frames, size), progress)
    elif run.rows is not None:
        raise ValueError(
            f"rows ({run.rows}) say which scale is best for a budget; give --budget too"
        )
    done = embed_into(
        run.out,
        paths,
        weights=run.weights,
        num_frames=frames,
        size=size,
        window_seconds=run.window,
        stride_seconds=run.stride,
        decoder=run.decoder,
        num_workers=run.num_workers,
        timeout_seconds=run.timeout_seconds,
        progress=progress,
    )
    progress.close()
    for _, reason in done.failures:  # the reason names the file
        print(f"skipped {shown(reason)}", file=sys.stderr)
    scale = done.settings.scale
    for path in done.repeated:
        print(
            f"{shown(path)}: fewer than {scale.num_frames} frames, frames repeated", file=sys.stderr
        )
    for path in done.removed:
        print(f"{shown(path)}: no longer there, removed from the index", file=sys.stderr)
    windows = "" if run.window is None else f" in {done.num_rows} windows"
    print(
        f"{done.num_videos} videos{windows} ({done.num_new} new, {len(done.failures)} unreadable), "
        f"{done.settings.width} numbers each, at T={scale.num_frames} S={scale.size}: {run.out}"
    )
    if run.store is not None:
        from stretchysnake.search.index import read_index
        from stretchysnake.search.stores.lance_store import sync

        written, deleted = sync(
            run.store.removeprefix("lancedb:"),
            read_index(run.out),
            name=run.index_name,
            replace=run.replace_index,
            note=lambda text: print(f"{run.store}: {text}", file=sys.stderr),
        )
        print(f"{run.store}: {written} rows written, {deleted} deleted")
    tell_passed_over(paths)
    return 0 if not done.failures else 1
