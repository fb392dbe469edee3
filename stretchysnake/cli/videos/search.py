"""`stretchysnake search`: the videos of an index that are nearest to a video."""

import sys
from dataclasses import dataclass

from stretchysnake.cli.options import parsed
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.data.processes.nursery import LANCEDB, nursery

EXAMPLES = (
    "stretchysnake search index/ query.mp4 -k 5\n"
    "  stretchysnake search holiday-index/ work-index/ query.mp4 --html found.html --hide_same true\n"
    "  stretchysnake search lancedb:s3://bucket/videos query.mp4 --where \"class_name = 'run'\""
)


@dataclass(frozen=True, kw_only=True)
class SearchRun:
    """The videos nearest to a query, by cosine of their features.

    The paths are one or more indexes (folders of `stretchysnake embed`, folders of such, or lancedb:URI stores), then
    the query video.
    """

    k: int = 5
    """-k: how many videos."""
    html: str = "search.html"
    """-o: the page with times, scores and frames; "" writes none."""
    weights: str | None = None
    """Null: the weights that made the index, at the place they had then. Others are refused."""
    group: str = ""
    """The query's group, so that hits of the same one are marked; UCF-101's file names tell it by themselves."""
    hide_same: bool = False
    """Leave out what would be marked: the query itself and its group."""
    backend: str = "torch"
    """"torch", or "faiss" where it is installed; the neighbours are the same. "approximate" reads a part of the rows by
    the lists of `stretchysnake index approximate`, and says how many of the nearest that finds."""
    device: str = "auto"
    """Where the model computes: "cpu", "cuda" or e.g. "cuda:1"; "auto" means a GPU if there is one, else the CPU. Its
    precision is that of the index."""
    batch_size: int | None = None
    """Windows of the query in a forward pass; null: as many as have 2^14 tokens."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Time that each second of a video may take to decode; a query that takes longer is refused."""
    where: str | None = None
    """Filter of a LanceDB store, in SQL, e.g. "class_name = 'run' AND start_seconds < 60"."""
    index_name: list[str] | str | None = None
    """One or several of the indexes that a LanceDB store holds; null: all of them."""
    frames: int | None = None
    """Of a folder of indexes, those of this T; null: that of the first which fits."""
    size: int | None = None
    """Of a folder of indexes, those of this S; null: that of the first which fits."""


@nursery(holds_threads=LANCEDB)
def run(argv: list[str]) -> int:
    short = {"-k": "--k", "-o": "--html"}
    run, paths = parsed(
        "search", SearchRun, EXAMPLES, argv, paths="indexes, then the query video", short=short
    )
    if len(paths) < 2:
        raise ValueError(f"paths ({paths[0]}) must be one or more indexes and then the query video")
    if run.batch_size is not None and run.batch_size < 1:
        raise ValueError(f"batch_size ({run.batch_size}) must be at least 1, or null")
    if run.html:
        from stretchysnake.report.pages.template import check_page

        check_page("html", run.html)  # before the work, not after it
    *indexes, query = paths
    from stretchysnake.report.pages.search_page import text_lines, write_search_page
    from stretchysnake.search.query import search

    found = search(
        indexes,
        query,
        k=run.k,
        weights=run.weights,
        group=run.group,
        hide_same=run.hide_same,
        backend=run.backend,
        where=run.where,
        index_name=run.index_name,
        device=run.device,
        batch_size=run.batch_size,
        num_frames=run.frames,
        size=run.size,
        timeout_seconds=run.timeout_seconds,
    )
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    workers = 1 if run.html else None
    asked, hits = _shown(found, workers, run.timeout_seconds)
    print(*text_lines(hits), sep="\n")
    if found.spread is not None:
        print(f"scores: {found.spread}", file=sys.stderr)
    if len(hits) < run.k:
        print(f"{len(hits)} of the {run.k} asked for: there are no more")
    if run.html:
        scale = found.settings.scale
        facts = [
            ("Indexes", ", ".join(indexes)),
            ("Rows searched", str(found.num_rows)),
            ("Scale", f"T={scale.num_frames} frames, S={scale.size} px, P={scale.patch_size} px"),
            ("Fit", found.settings.fit),
            ("Weights", f"SHA-256 {found.settings.weights_sha256[:12]}"),
        ]
        spread = "" if found.spread is None else str(found.spread)
        write_search_page(run.html, asked, hits, facts=facts, spread=spread)
        print(f"page: {run.html}")
    return 0


def _shown(found, workers: int | None, timeout_seconds: float):
    """(the query, the hits) as the page and the terminal show them; no frames where workers is None."""
    from stretchysnake.report.pages.search_page import ShownHit, ShownVideo, time_range
    from stretchysnake.search.frames.pictures import Pictures, pictures_of

    parts = [(found.query.path, 0.0, None)]
    parts += [(hit.row.file.path, hit.row.start, hit.row.end) for hit in found.hits]
    limits = {"num_workers": workers, "timeout_seconds": timeout_seconds}
    made = [None] * len(parts) if workers is None else pictures_of(parts, **limits)
    videos = []
    for (path, start, end), pictures in zip(parts, made, strict=True):
        held = pictures._asdict() if isinstance(pictures, Pictures) else {"strip_png": None}
        missing = "" if isinstance(pictures, Pictures) else str(pictures)
        videos.append(ShownVideo(path=path, start=start, end=end, missing=missing, **held))
    hits = [
        ShownHit(
            video=video,
            score=hit.score,
            index=hit.index,
            class_name=hit.row.file.class_name,
            marks=hit.marks,
            query_time="" if hit.query_end is None else time_range(hit.query_start, hit.query_end),
            share_below=None if found.spread is None else found.spread.share_below(hit.score),
        )
        for hit, video in zip(found.hits, videos[1:], strict=True)
    ]
    return videos[0], hits
