"""Retrieval over a grid of scales: one row per (dataset, T, S), resumable cell by cell (paper Table 1)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

import torch

from stretchysnake.eval.cost import (
    available_memory,
    count_flops,
    estimate_memory,
    measure_milliseconds,
)
from stretchysnake.eval.features import extract
from stretchysnake.eval.retrieval import hits
from stretchysnake.flexibility import Scale, Variant, eval_scale
from stretchysnake.models.videomamba import VideoMamba
from stretchysnake.results import Row


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The trained model under test and what identifies it in the rows."""

    model: VideoMamba
    variant: Variant
    seed: int
    run_id: str
    commit: str = ""
    device: str = ""


def sweep(
    subject: Subject,
    dataset: str,
    gallery,
    queries,
    cells: Iterable[tuple[int, int]],
    *,
    batch_size: int = 32,
    metric: str = "cosine",
    patch_from: str | None = None,
    memory_limit: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Iterable[Row]:
    """Yield one row per cell (T, S), as soon as it is measured.

    gallery and queries are clip sources of data/loader.py. A cell whose batch does not fit memory_limit
    bytes (default: what the machine has free) is tried with smaller batches down to one clip; one that
    does not fit even so, or that runs out of memory while running, becomes a row with status "oom".
    """
    for num_frames, size in cells:
        scale = eval_scale(subject.variant, num_frames=num_frames, size=size, patch_from=patch_from)
        config = subject.model.config
        known = {
            "run_id": subject.run_id,
            "protocol": "retrieval",
            "dataset": dataset,
            "model": subject.variant.name,
            "seed": subject.seed,
            "num_frames": num_frames,
            "size": size,
            "patch_size": scale.patch_size,
            "metric": "top1",
            "num_gallery": len(gallery.records),
            "gflops": count_flops(config, scale) / 1e9,
            "trained": seen_in_training(subject.variant, scale),
            "native": scale_matches_native(subject.variant, num_frames, size),
            "commit": subject.commit,
            "device": subject.device,
        }
        limit = available_memory() if memory_limit is None else memory_limit
        batch = batch_size
        while batch > 1 and estimate_memory(config, scale, batch_size=batch) > limit:
            batch //= 2
        needed = estimate_memory(config, scale, batch_size=batch)
        if needed > limit:
            yield Row(
                **known,
                **_absent(queries, f"needs {needed / 2**30:.2f} GiB, {limit / 2**30:.2f} free"),
            )
            continue
        try:
            found = extract(subject.model, queries, scale, batch_size=batch, progress=progress)
            stored = extract(subject.model, gallery, scale, batch_size=batch, progress=progress)
            milliseconds = measure_milliseconds(subject.model, scale)
        except (MemoryError, torch.OutOfMemoryError):
            yield Row(
                **known, **_absent(queries, f"ran out of memory; estimate {needed / 2**30:.2f} GiB")
            )
            continue
        except RuntimeError as error:
            if "can't allocate memory" not in str(error):  # the CPU allocator's words
                raise
            yield Row(
                **known, **_absent(queries, f"ran out of memory; estimate {needed / 2**30:.2f} GiB")
            )
            continue
        right = hits(stored, found, metric=metric)
        note = "" if scale.size == size else f"frames resized to {scale.size} px"
        yield Row(
            **known,
            value=right.float().mean().item(),
            status="ok",
            num_queries=len(right),
            num_expected=found.num_expected,
            milliseconds=milliseconds,
            note=note if metric == "cosine" else f"{note} metric {metric}".strip(),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )


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


def _absent(queries, why: str) -> dict:
    return {
        "value": None,
        "status": "oom",
        "num_queries": 0,
        "num_expected": len(queries.records) + len(queries.failures),
        "milliseconds": None,
        "note": why,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
