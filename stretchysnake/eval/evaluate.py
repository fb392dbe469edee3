"""Protocols of one weights file over a grid of scales, resumable cell by cell."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from stretchysnake.data.loader import open_clips
from stretchysnake.data.records import VideoRecord, read_with_shared_labels
from stretchysnake.eval.bad_videos import bad_lines, check_on_error, counted
from stretchysnake.eval.features import check_labels
from stretchysnake.eval.protocols import Protocol
from stretchysnake.eval.retrieval import check_metrics
from stretchysnake.eval.run import EvaluateRun
from stretchysnake.eval.subject import read_subject
from stretchysnake.eval.sweep import Subject, protocol_name, sweep
from stretchysnake.flexibility import eval_scale
from stretchysnake.results import Row, append_rows, environment, read_rows


def evaluate(run: EvaluateRun, *, progress: Callable[[str], None] | None = None) -> list[Row]:
    """The rows of every cell frames × sizes of the run, measured now or found in run.out.

    Every cell, metric and label is checked before the first is measured. Rows are written cell by cell;
    what an interrupted run left out, down to single metrics of a cell, is all that the next one measures.
    """
    check_on_error(run.on_error)
    protocols = protocols_of(run)
    model, variant, metadata = read_subject(run.weights)
    native = variant.sets.native
    cells = [(t, s) for t in run.frames or [native.num_frames] for s in run.sizes or [native.size]]
    for num_frames, size in cells:
        eval_scale(variant, num_frames=num_frames, size=size, patch_from=run.patch_from)
    lists = read_lists(run.gallery, run.queries)
    for protocol in protocols:
        if protocol.kind == "retrieval":
            check_metrics(protocol.metrics, num_gallery=len(lists[0]))
    listed = [[(record.path, record.label, record.group) for record in one] for one in lists]
    frames = [run.cache_frames, run.cache_size] if run.cache is not None else None
    choices = [listed, frames]
    if run.on_error == "wrong":  # the other policies measure the same number
        choices.append(run.on_error)
    settings = json.dumps(choices).encode()
    run_id = hashlib.sha256(Path(run.weights).read_bytes() + settings).hexdigest()[:16]
    environment_now = environment()
    subject = Subject(
        model=model,
        variant=variant,
        seed=metadata.get("seed", 0),
        run_id=run_id,
        commit=environment_now.get("commit", ""),
        device=environment_now.get("cpu", ""),
    )
    dataset = run.dataset or Path(run.queries).stem
    asked = {
        (protocol_name(protocol, run.patch_from), metric, *cell): protocol
        for cell in cells
        for protocol in protocols
        for metric in protocol.metrics
    }
    known = read_rows(run.out) if Path(run.out).exists() else []
    known = [row for row in known if row.run_id == run_id and row.dataset == dataset]
    rows = {_place(row): row for row in known if _place(row) in asked}
    opened = None
    for cell in dict.fromkeys(cells):
        todo = [place for place in asked if place[2:] == cell and place not in rows]
        if not todo:
            continue
        if opened is None:
            opened = tuple(
                open_clips(
                    records,
                    cache=run.cache,
                    num_frames=run.cache_frames,
                    size=run.cache_size,
                    progress=progress,
                )
                for records in lists
            )
        missing: dict[Protocol, list[str]] = {}
        for place in todo:
            missing.setdefault(asked[place], []).append(place[1])
        for row in sweep(
            subject,
            dataset,
            *opened,
            [cell],
            protocols=[protocol.only(metrics) for protocol, metrics in missing.items()],
            batch_size=run.batch_size,
            patch_from=run.patch_from,
            memory_limit=None
            if run.memory_limit_gib is None
            else int(run.memory_limit_gib * 2**30),
            feature_cache=run.feature_cache,
            progress=progress,
        ):
            row = counted(row, run.on_error)
            append_rows(run.out, [row])
            rows[_place(row)] = row
    if opened is not None:
        for name, clips in zip(("gallery", "queries"), opened, strict=True):
            for line in bad_lines(clips, name):
                print(line, file=sys.stderr)
    return [rows[place] for place in asked]


def protocols_of(run: EvaluateRun) -> list[Protocol]:
    """The protocols a run asks for; ValueError names what is unknown, twice there or without effect."""
    if not run.protocols:
        raise ValueError("protocols (none) must name at least one of: retrieval, probe")
    protocols = []
    for kind in run.protocols:
        settings = {}
        if kind == "retrieval":
            settings = {
                "metrics": tuple(run.metrics),
                "similarity": run.similarity,
                "group_safe": run.group_safe,
            }
        protocols.append(Protocol(kind=kind, **settings))
    if "retrieval" not in run.protocols and (
        run.metrics != ["top1"] or run.similarity != "cosine" or run.group_safe
    ):
        raise ValueError(
            f"metrics, similarity and group_safe belong to retrieval, and protocols ({', '.join(run.protocols)}) "
            "do not ask for it; add retrieval or leave them out"
        )
    for name, values in (("protocols", run.protocols), ("metrics", run.metrics)):
        if len(set(values)) < len(values):
            raise ValueError(f"{name} ({', '.join(values)}) must name each once")
    return protocols


def read_lists(gallery: str, queries: str) -> tuple[list[VideoRecord], list[VideoRecord]]:
    """The records of both lists with one numbering of the classes; every query's class is in the gallery."""
    first, second = read_with_shared_labels(gallery, queries)
    check_labels([record.label for record in first], [record.label for record in second])
    return first, second


def _place(row: Row) -> tuple:
    return row.protocol, row.metric, row.num_frames, row.size
