"""Protocols over a grid of scales: rows of every (dataset, T, S), resumable cell by cell (paper Table 1)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone

import torch

from stretchysnake.eval.features.feature_cache import cached_features
from stretchysnake.eval.features.placed_model import device_of
from stretchysnake.eval.protocols.classify import classify
from stretchysnake.eval.protocols.head_classes import head_labels
from stretchysnake.eval.protocols.protocol import HEADS, Protocol, measured_fields
from stretchysnake.eval.sweeps.available_memory import available_memory
from stretchysnake.eval.sweeps.cost import (
    count_flops,
    estimate_memory,
    is_joined,
    measure_milliseconds,
    measure_peak_bytes,
)
from stretchysnake.eval.sweeps.model_under_test import ModelUnderTest
from stretchysnake.flexibility import Scale, Variant, eval_scale
from stretchysnake.ops.out_of_memory import is_out_of_memory, memory_in_words
from stretchysnake.ranks import SINGLE, Runtime
from stretchysnake.results.rows import Row


def sweep(
    tested: ModelUnderTest,
    dataset: str,
    gallery,
    queries,
    cells: Iterable[tuple[int, int]],
    *,
    protocols: Sequence[Protocol] = (Protocol(),),
    batch_size: int = 32,
    patch_from: str | None = None,
    memory_limit: int | None = None,
    refused_as_rows: bool = False,
    feature_cache: str | None = None,
    progress: Callable[[str], None] | None = None,
    runtime: Runtime = SINGLE,
) -> Iterator[Row]:
    """Yield one row per cell (T, S), protocol and metric, as soon as the cell is measured.

    gallery and queries are clip sources of data/clips/loader.py; a cell's features are computed once for all
    protocols, or taken from the folder feature_cache. A cell whose batch does not fit memory_limit bytes
    (default: what the machine has free) is tried with smaller batches down to one clip; one that does not
    fit even so, or that runs out of memory while running, becomes rows with status "oom".
    With several ranks all of them compute features, and rank 0 alone yields rows.
    A scale that the variant or the model cannot take is a ValueError, or with refused_as_rows rows with status
    "refused" whose note is that error's text.
    """
    for num_frames, size in cells:
        config = tested.model.config
        fields = {
            "run_id": tested.run_id,
            "dataset": dataset,
            "model": tested.row_model,
            "architecture": config.architecture,
            "seed": tested.seed,
            "num_frames": num_frames,
            "size": size,
            "patch_size": config.native.patch_size,
            "num_gallery": len(gallery.records),
            "gflops": None,
            "trained": False,
            "native": scale_matches_native(tested.variant, num_frames, size),
            "commit": tested.commit,
            "device": tested.device,
            "precision": tested.precision,
            "threads": torch.get_num_threads(),
        }
        try:
            scale = eval_scale(
                tested.variant, num_frames=num_frames, size=size, patch_from=patch_from
            )
            fields["gflops"] = count_flops(config, scale) / 1e9
        except ValueError as refusal:
            if not refused_as_rows:
                raise
            if runtime.is_first:
                absent = _absent(queries, str(refusal), status="refused")
                yield from _rows_without_value(
                    tested, protocols, patch_from, queries, fields, absent
                )
            continue
        fields["patch_size"] = scale.patch_size
        fields["trained"] = seen_in_training(tested.variant, scale)
        device = device_of(tested.model)
        limit = available_memory(device) if memory_limit is None else memory_limit
        limit = int(runtime.from_first(str(limit)))  # machines may have more or less free
        batch, joined = batch_size, is_joined(tested.model)
        while batch > 1 and estimate_memory(config, scale, batch_size=batch, joined=joined) > limit:
            batch //= 2
        needed = estimate_memory(config, scale, batch_size=batch, joined=joined)
        notes: list[str] = []
        options = {"batch_size": batch, "progress": progress, "runtime": runtime}
        features: dict[int, tuple] = {}  # (of the queries, of the gallery) by number of views
        gallery_features = query_features = None
        try:
            if needed > limit:
                on = f" on {device}" if device.type == "cuda" and memory_limit is None else ""
                raise _DoesNotFit(f"needs {needed / 2**30:.2f} GiB, {limit / 2**30:.2f} free{on}")
            if any(protocol.kind not in HEADS for protocol in protocols):
                options |= {"weights": tested.weights, "folder": feature_cache, "notes": notes}
                for views in sorted({p.num_views for p in protocols if p.kind not in HEADS}):
                    features[views] = tuple(
                        cached_features(tested.model, clips, scale, num_views=views, **options)
                        for clips in (queries, gallery)
                    )
            wanted, told = head_wanted(tested, gallery, queries, protocols)
            answers = {
                protocol: classify(
                    tested.model,
                    queries,
                    scale,
                    num_views=protocol.num_views,
                    num_crops=protocol.num_crops,
                    batch_size=batch,
                    wanted=wanted,
                    progress=progress,
                    runtime=runtime,
                )
                for protocol in protocols
                if protocol.kind in HEADS
            }
            if not runtime.is_first:
                continue
            fields |= {
                "milliseconds": measure_milliseconds(tested.model, scale),
                "peak_mib": measure_peak_bytes(tested.model, scale) / 2**20,
            }
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, _DoesNotFit):
                if not is_out_of_memory(error):
                    raise
                told = [f"ran out of memory; estimate {needed / 2**30:.2f} GiB"]
                error = "; ".join(filter(None, [*told, memory_in_words(device)]))
            if runtime.is_first:
                absent = _absent(queries, str(error), status="oom")
                yield from _rows_without_value(
                    tested, protocols, patch_from, queries, fields, absent
                )
            continue
        if scale.size != size:
            notes.insert(0, f"frames resized to {scale.size} px")
        if queries.fit == "keep":
            notes.insert(0, "costs are those of a square picture, the most")
        for protocol in protocols:
            if protocol in answers:
                views = f"{protocol.num_views} views x {protocol.num_crops} crops"
                views = "; ".join(filter(None, [views, told]))
                measured = [("top1", answers[protocol].right, views)]
            else:
                query_features, gallery_features = features[protocol.num_views]
                measured = protocol.measure(gallery_features, query_features)
            for metric, values, note in measured:
                scored = gallery_features if metric == "gallery_top1" else query_features
                scored = answers.get(protocol, scored)
                yield Row(
                    **fields,
                    **_seen(tested, protocol, patch_from, queries),
                    metric=metric,
                    weights=tested.row_weights(protocol),
                    **measured_fields(values, scored),
                    note="; ".join(filter(None, [*notes, note])),
                    created=_now(),
                )


class _DoesNotFit(RuntimeError):
    """A cell needs more memory than it may have."""


def head_wanted(
    tested: ModelUnderTest, gallery, queries, protocols: Sequence[Protocol]
) -> tuple[list[int] | None, str]:
    """`head_labels` of the queries that can be read, where a protocol tests the head; (None, "") else."""
    if not any(protocol.kind in HEADS for protocol in protocols):
        return None, ""
    records = [*gallery.records, *(record for record, _ in [*gallery.failures, *queries.failures])]
    outputs = tested.model.config.num_classes
    return head_labels(tested.classes, outputs, records, queries.records)


def protocol_name(
    protocol: Protocol, patch_from: str | None, patch_resize: str | None = None
) -> str:
    """The row's protocol; borrowed patches (paper Table A2) are another one, and so are kernels resized by another
    `patch_resize` than in training."""
    borrowed = f"-{patch_from}-patches" if patch_from else ""
    return protocol.name + borrowed + (f"-{patch_resize}" if patch_resize else "")


def _seen(tested: ModelUnderTest, protocol: Protocol, patch_from: str | None, clips) -> dict:
    """The fields of a Row that say by which protocol, and what it sees of the videos."""
    return {
        "protocol": protocol_name(protocol, patch_from, tested.patch_resize),
        "picture": protocol.shown_picture(clips),
        "sampling": clips.sampling.name,
        "fit": protocol.shown_fit(clips),
    }


def seen_in_training(variant: Variant, scale: Scale) -> bool:
    """Whether this variant can draw this very scale in training."""
    sets = variant.sets
    frames = (sets.native.num_frames,) if variant.name == "vanilla" else sets.frames
    sizes = {
        "vanilla": (sets.native.size,),
        "temporal": (sets.native.size,),
        "flexivit": (sets.flexivit_size,),
    }.get(variant.name)
    if sizes is None:
        sizes = tuple(
            eval_scale(variant, num_frames=1, size=size).size
            if variant.name == "static_tokens"
            else size
            for size in sets.sizes
        )
    return scale.num_frames in frames and scale.size in sizes


def scale_matches_native(variant: Variant, num_frames: int, size: int) -> bool:
    """Whether the cell is the one vanilla trains at."""
    return (num_frames, size) == (variant.sets.native.num_frames, variant.sets.native.size)


def _rows_without_value(
    tested: ModelUnderTest, protocols, patch_from: str | None, queries, fields: dict, absent: dict
) -> Iterator[Row]:
    """A row for each protocol and metric of a cell that has no number."""
    for protocol in protocols:
        for metric in protocol.metrics:
            place = {**_seen(tested, protocol, patch_from, queries), "metric": metric}
            yield Row(**fields, **place, weights=tested.row_weights(protocol), **absent)


def _absent(queries, why: str, *, status: str) -> dict:
    return {
        "value": None,
        "status": status,
        "num_queries": 0,
        "num_expected": len(queries.records) + len(queries.failures),
        "milliseconds": None,
        "note": why,
        "created": _now(),
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
