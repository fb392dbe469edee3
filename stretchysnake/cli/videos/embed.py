"""`stretchysnake embed`: features of any videos, in an index on disk."""

import os
import sys
from dataclasses import dataclass

from stretchysnake.cli.budget import within_budget
from stretchysnake.cli.options import VIDEOS, parsed, tell_passed_over
from stretchysnake.cli.progress import Progress
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.eval.features.placement import Placement
from stretchysnake.shown import shown

EXAMPLES = (
    "stretchysnake embed holiday/ clip.webm --weights runs/mine/weights.safetensors -o index/\n"
    "  stretchysnake embed lectures/ --weights W -o index/ --window 10 --stride 5 --frames 16 --size 64\n"
    "  stretchysnake embed videos.csv --weights W -o part2/ --shard 2/5   # then: index merge part*/ -o all/"
)


@dataclass(frozen=True, kw_only=True)
class EmbedRun:
    """Features of videos, in an index for `stretchysnake search`.

    The paths are videos, folders, or lists: of paths alone, or with label, class_name and group. The same command again
    goes on after an interruption, embeds what is new or changed and removes what is gone from the folders.
    """

    weights: str
    """weights.safetensors of a training, an official checkpoint, or a name: `stretchysnake weights` lists them."""
    out: str
    """-o: folder for the index."""
    frames: int | None = None
    """Frames per video or window; null means the native number."""
    size: int | None = None
    """Pixels per side; null means the native size."""
    fit: str | None = None
    """"square" squashes every picture to size x size, "keep" gives each video a shape near its own of at most as many
    patches, "crop" takes the middle square; null: as the weights were trained, square where they do not say. A search
    fits its queries alike."""
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
    shard: str | None = None
    """k/n: only the k-th of n parts of the videos, told by a hash of the path, so that n machines can share the work;
    `stretchysnake index merge` makes one index of them. env: k and n are RANK and WORLD_SIZE, or SLURM_PROCID and
    SLURM_NTASKS, and the index is OUT/k-of-n."""
    decoder: str = "pyav"
    """"pyav", or "torchcodec" where it is installed (an extra): the same frames, whose pixels may differ by rounding.
    The latter needs window null; a search decodes its queries alike."""
    batch_size: int | None = None
    """Videos, or windows of one, in a forward pass. Null: as many as have 2^14 tokens, on the CPU in fp32 only where
    the features of a video are the same to the last bit whoever is in its pass."""
    num_workers: int = 2
    """Processes that decode; 0 decodes in this process, where a bad file may take it down."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Time that each second of a video may take to decode; a file that takes longer is left out."""


def run(argv: list[str]) -> int:
    classes, short = (EmbedRun, Placement), {"-o": "--out"}
    (run, placement), paths = parsed("embed", classes, EXAMPLES, argv, paths=VIDEOS, short=short)
    if run.batch_size is not None and run.batch_size < 1:
        raise ValueError(f"batch_size ({run.batch_size}) must be at least 1, or null")
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
        given = (frames, size)
        frames, size = within_budget(run.weights, run.budget, run.rows, given, progress, placement)
    elif run.rows is not None:
        raise ValueError(
            f"rows ({run.rows}) say which scale is best for a budget; give --budget too"
        )
    shard, out = _shard_and_out(run)
    done = embed_into(
        out,
        paths,
        weights=run.weights,
        num_frames=frames,
        size=size,
        window_seconds=run.window,
        stride_seconds=run.stride,
        decoder=run.decoder,
        placement=placement,
        batch_size=run.batch_size,
        fit=run.fit,
        num_workers=run.num_workers,
        timeout_seconds=run.timeout_seconds,
        shard=shard,
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
    fit = "" if done.settings.fit == "square" else f" fit {done.settings.fit}"
    windows = "" if run.window is None else f" in {done.num_rows} windows"
    part = "" if shard is None else f"shard {shard[0]}/{shard[1]}: "
    print(
        f"{part}{done.num_videos} videos{windows} ({done.num_new} new, {len(done.failures)} unreadable), "
        f"{done.settings.width} numbers each, at T={scale.num_frames} S={scale.size}{fit}: {out}"
    )
    if run.store is not None:
        from stretchysnake.search.index import read_index
        from stretchysnake.search.stores.lance_store import sync

        written, deleted = sync(
            run.store.removeprefix("lancedb:"),
            read_index(out),
            name=run.index_name,
            replace=run.replace_index,
            note=lambda text: print(f"{run.store}: {text}", file=sys.stderr),
        )
        print(f"{run.store}: {written} rows written, {deleted} deleted")
    tell_passed_over(paths)
    return 0 if not done.failures else 1


def _shard_and_out(run: EmbedRun) -> tuple[tuple[int, int] | None, str]:
    """(k, n) and the folder of the index; with `--shard env` every process is given one folder, so each has its own."""
    from stretchysnake.search.named_videos import shard_of

    if run.shard is None:
        return None, run.out
    if run.shard != "env":
        return shard_of(run.shard), run.out
    for number, count in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        values = os.environ.get(number, ""), os.environ.get(count, "")
        if values[0].isdigit() and values[1].isdigit():
            shard = shard_of(f"{int(values[0]) + 1}/{values[1]}")
            return shard, os.path.join(run.out, f"{shard[0]}-of-{shard[1]}")
    raise ValueError(
        "shard (env) needs RANK and WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS, in the environment, as torchrun and "
        "srun set them; give --shard k/n instead"
    )
