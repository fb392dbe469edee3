"""Protocols of one weights file over a grid of scales, resumable cell by cell."""

import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from stretchysnake.data.clips.frame_choice import Sampling
from stretchysnake.data.clips.loader import DecodingLimits, open_clips
from stretchysnake.data.clips.seen_picture import checked_picture
from stretchysnake.data.clips.transforms import RESAMPLER
from stretchysnake.data.decoding.video import checked_decoder
from stretchysnake.data.records import VideoRecord, read_with_shared_labels
from stretchysnake.data.records_key import records_key, refuse_unequal_records
from stretchysnake.eval.features.bad_videos import bad_lines, check_on_error, counted
from stretchysnake.eval.features.extraction import check_labels
from stretchysnake.eval.features.shapes import check_fit
from stretchysnake.eval.protocols.head_classes import head_labels
from stretchysnake.eval.protocols.protocol import HEADS, KINDS, Protocol
from stretchysnake.eval.protocols.retrieval import check_metrics
from stretchysnake.eval.protocols.self_matches import meetings, refuse_self_matches
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.eval.sweeps.model_under_test import model_under_test
from stretchysnake.eval.sweeps.resumed_sweep import resumed_sweep
from stretchysnake.flexibility import eval_scale
from stretchysnake.models.weights.published.named import weights_file
from stretchysnake.ranks import SINGLE, Runtime
from stretchysnake.results.rows import Row
from stretchysnake.shown import shown


def evaluate(
    run: EvaluateRun,
    *,
    progress: Callable[[str], None] | None = None,
    runtime: Runtime = SINGLE,
) -> list[Row]:
    """The rows of every cell frames × sizes of the run, measured now or found in run.out; with several ranks on rank 0.

    Every cell, metric and label is checked before the first is measured. Rows are written cell by cell;
    what an interrupted run left out, down to single metrics of a cell, is all that the next one measures.
    """
    check_on_error(run.on_error)
    protocols_of(run)  # what cannot be asked is told before the weights are read
    tested = model_under_test(run.weights, name=run.model, placement=run.placement, runtime=runtime)
    unsaid = (run.fit, run.picture, run.num_crops) == (None, None, 1)
    if unsaid and tested.fit != "square":  # a square that is not asked for leaves heads the centre
        run = replace(run, fit=tested.fit)
    fit = run.fit or "square"
    protocols = protocols_of(run)
    native = tested.variant.sets.native
    cells = [(t, s) for t in run.frames or [native.num_frames] for s in run.sizes or [native.size]]
    check_fit(
        tested.model.config,
        [
            eval_scale(tested.variant, num_frames=t, size=s, patch_from=run.patch_from)
            for t, s in cells
        ],
        fit=fit,
        way_out="choose other --frames or --sizes",
    )
    lists = read_lists(run.gallery, run.queries)
    if not run.allow_self:
        refuse_self_matches(*lists)
    for protocol in protocols:
        if protocol.kind == "retrieval":
            check_metrics(protocol.metrics, num_gallery=len(lists[0]))
    if set(HEADS) & set(run.protocols):
        head_labels(tested.classes, tested.model.config.num_classes, *lists)
    listed = [records_key(one) for one in lists]
    frames = [run.cache_frames, run.cache_size] if run.cache is not None else None
    sampling = Sampling(rule=run.sampling, stride=run.stride)
    choices = [listed, frames, RESAMPLER]  # earlier versions resized otherwise at test
    if run.picture is not None or sampling != Sampling():
        choices.append([run.picture, sampling.name])
    if (run.num_views, run.num_crops) != (1, 1):
        choices.append([run.num_views, run.num_crops])
    if run.decoder != "pyav":
        choices.append(run.decoder)
    if run.precision != "fp32":
        choices.append(run.precision)
    if fit != "square":
        choices.append(f"fit {fit}")
    if run.on_error == "wrong":  # the other policies measure the same number
        choices.append(run.on_error)
    if run.allow_self:
        choices.append("allow_self")
    settings = json.dumps(choices).encode()
    run_id = hashlib.sha256(weights_file(run.weights).read_bytes() + settings).hexdigest()[:16]
    tested = replace(tested, run_id=run_id)
    dataset = run.dataset or Path(run.queries).stem
    opened, met = [], []

    def clips() -> tuple:
        if not opened:
            with runtime.first_goes_first(run.cache) if run.cache else nullcontext():
                opened.extend(
                    open_clips(
                        records,
                        cache=run.cache,
                        num_frames=run.cache_frames,
                        size=run.cache_size,
                        sampling=sampling,
                        picture=picture_of(run),
                        decoder=run.decoder,
                        limits=DecodingLimits(
                            num_workers=run.num_workers, timeout_seconds=run.timeout_seconds
                        ),
                        fit=fit,
                        verify_cache=run.verify_cache,
                        progress=progress,
                        runtime=runtime,
                    )
                    for records in lists
                )
            if runtime.is_first:
                met.append(meetings(*lists))
            runtime.meet()
            refuse_unequal_records(opened, runtime)
        return tuple(opened)

    def finished(row: Row) -> Row:
        row = counted(row, run.on_error)
        if run.decoder != "pyav":
            row = replace(
                row, note="; ".join(filter(None, [row.note, f"decoded by {run.decoder}"]))
            )
        if row.metric == "gallery_top1":  # asks no query
            return row
        return replace(row, note="; ".join(filter(None, [row.note, *met[0].notes(row.protocol)])))

    limit = run.memory_limit_gib
    rows = resumed_sweep(
        run.out,
        tested,
        dataset,
        clips,
        cells,
        protocols=protocols,
        patch_from=run.patch_from,
        finish=finished,
        batch_size=run.batch_size,
        memory_limit=None if limit is None else int(limit * 2**30),
        feature_cache=run.feature_cache,
        progress=progress,
        runtime=runtime,
    )
    if opened and runtime.is_first:
        for name, source in zip(("gallery", "queries"), opened, strict=True):
            for line in bad_lines(source, name):
                print(shown(line), file=sys.stderr)
    return rows


def protocols_of(run: EvaluateRun) -> list[Protocol]:
    """The protocols a run asks for; ValueError names what is unknown, twice there or without effect."""
    if not run.protocols:
        raise ValueError(f"protocols (none) must name at least one of: {', '.join(KINDS)}")
    seen = {
        "picture": checked_picture(
            picture_of(run), num_crops=run.num_crops, cache=run.cache, fit=run.fit or "square"
        ),
        "fit": run.fit or "square",
        "sampling": Sampling(rule=run.sampling, stride=run.stride).name,
    }
    if run.cache is not None and run.sampling != "uniform":
        raise ValueError(
            f"sampling ({run.sampling}) needs the whole video, and cache ({run.cache}) holds uniform frames; "
            "leave the cache out, or use sampling uniform"
        )
    checked_decoder(run.decoder, cache=run.cache)
    protocols = []
    for kind in run.protocols:
        settings = {}
        if kind == "retrieval":
            settings = {
                "metrics": tuple(run.metrics),
                "similarity": run.similarity,
                "group_safe": run.group_safe,
            }
        if kind not in HEADS:
            settings["allow_self"] = run.allow_self
        if kind in HEADS:
            settings = {"num_views": run.num_views, "num_crops": run.num_crops}
        protocols.append(Protocol(kind=kind, **settings, **seen))
    if (run.num_views, run.num_crops) != (1, 1) and not set(HEADS) & set(run.protocols):
        raise ValueError(
            f"num_views and num_crops belong to {' and '.join(HEADS)}, and protocols ({', '.join(run.protocols)}) "
            "do not ask for them; add one or leave them out"
        )
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


def picture_of(run: EvaluateRun) -> str | None:
    """What the run asks to see of a picture: a square that is asked for is all of it. None is each protocol's own."""
    return "whole" if run.fit == "square" and run.picture is None else run.picture


def read_lists(gallery: str, queries: str) -> tuple[list[VideoRecord], list[VideoRecord]]:
    """The records of both lists with one numbering of the classes; every query's class is in the gallery."""
    first, second = read_with_shared_labels(gallery, queries)
    check_labels([record.label for record in first], [record.label for record in second])
    return first, second
