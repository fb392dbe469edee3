"""Rows averaged over seeds: one cell for each (model, num_frames, size)."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from stretchysnake.results.comparison import query_error
from stretchysnake.results.intervals import mean_interval, wilson_interval
from stretchysnake.results.rows import Row, latest, native_cells, select

MODEL_ORDER = ("vanilla", "temporal", "static_patch", "flexivit", "flex_all", "static_tokens")
SCRATCH_MODEL = "static_tokens from scratch"
"""What the study's rows call a model that did not go on from vanilla's weights, where the others do."""
PI_MODEL = "static_tokens pi kernels"
"""... one whose kernels were resized by `pi` in training."""
EQUAL_TOKENS_MODEL = "static_patch equal tokens"
"""... a static patch with as many tokens a frame on average as static tokens."""
_CONDITIONS = re.compile(rf"static_tokens k=\d+|{SCRATCH_MODEL}|{PI_MODEL}|{EQUAL_TOKENS_MODEL}")
"""Models of the study's further questions, which stand in tables of their own (tables/study/)."""
FAR = "retrieval-far"
HEAD = "head"
BORROWED = "retrieval-static_tokens-patches"
"""Protocol of rows measured with the patches of static tokens (Table A2)."""
NATIVE_PATCHES = "retrieval-vanilla-patches"
"""... of static tokens, measured with the native patch."""
VIEWS = re.compile(r"retrieval-(\d+)-views")
"""... of several views a clip, and how many."""
_ASKED = re.compile(rf"{FAR}|{VIEWS.pattern}|{NATIVE_PATCHES}|{BORROWED}-(area|pi)|{HEAD}")
"""Protocols of the study's further questions."""


def groups_model(scales_per_step: int) -> str:
    """What the study's rows call static tokens trained with so many scales a step."""
    return f"static_tokens k={scales_per_step}"


@dataclass(frozen=True, kw_only=True)
class CellMean:
    """One scale of one model, averaged over its seeds; accuracies are fractions."""

    model: str
    num_frames: int
    size: int
    value: float | None
    spread: float | None = None
    """Standard deviation over seeds; None with fewer than two."""
    low: float | None = None
    high: float | None = None
    """95 % interval of value: over seeds with two or more (Student t, cut to [0, 1]), else over queries."""
    num_seeds: int = 0
    status: str = "absent"
    """`ok`, `oom`, `empty`, or `absent`: not measured."""
    trained: bool = False
    native: bool = False
    patch_size: int | None = None
    gflops: float | None = None
    milliseconds: float | None = None
    num_queries: int = 0
    num_expected: int = 0
    note: str = ""


def cells_of(
    rows: Sequence[Row], *, dataset: str, metric: str = "top1"
) -> dict[tuple[str, int, int], CellMean]:
    """Cells by (model, num_frames, size), the complete grid, over the seeds that all its models have; those never
    measured are `absent`.

    ValueError when rows of several protocols are mixed: they do not belong into one table.
    """
    rows = of_shared_seeds(latest(select(rows, dataset=dataset, metric=metric)))
    if len(mixed := protocols_of(rows)) > 1:
        raise ValueError(
            f"rows of {dataset} mix protocols ({', '.join(mixed)}); choose one with select(rows, protocol=...)"
        )
    seen = {f"{row.picture}, {row.sampling}" for row in rows if row.picture}
    if len(seen) > 1:
        raise ValueError(
            f"rows of {dataset} saw videos differently ({'; '.join(sorted(seen))}), so their numbers cannot stand in "
            "one table; keep those of one picture and sampling in the file"
        )
    native = native_cells(rows)
    measured: dict[tuple[str, int, int], list[Row]] = {}
    for row in rows:
        measured.setdefault((row.model, row.num_frames, row.size), []).append(row)
    return {
        (model, num_frames, size): _cell(
            measured.get((model, num_frames, size), []),
            model=model,
            num_frames=num_frames,
            size=size,
            native=(num_frames, size) in native,
        )
        for model in models_of(rows)
        for num_frames in sorted({row.num_frames for row in rows})
        for size in sorted({row.size for row in rows})
    }


def of_shared_seeds(rows: Sequence[Row]) -> list[Row]:
    """The rows, of each data set those of the seeds that all its models have: a mean over easy seeds is not set beside
    one over hard ones. All rows of a data set where no seed is common to all."""
    seeds: dict[str, dict[str, set[int]]] = {}
    for row in rows:
        seeds.setdefault(row.dataset, {}).setdefault(row.model, set()).add(row.seed)
    shared = {name: set.intersection(*models.values()) for name, models in seeds.items()}
    return [row for row in rows if row.seed in shared[row.dataset] or not shared[row.dataset]]


def _cell(rows: list[Row], *, model: str, num_frames: int, size: int, native: bool) -> CellMean:
    place = {"model": model, "num_frames": num_frames, "size": size, "native": native}
    if not rows:
        return CellMean(**place, value=None, note="not measured")
    values = [row.value for row in rows if row.value is not None]
    notes = sorted({row.note for row in rows if row.note})
    if values and len(values) < len(rows):
        notes.append(f"{len(rows) - len(values)} of {len(rows)} seeds without a value")
    low, high = interval_of(rows) or (None, None)
    return CellMean(
        **place,
        value=statistics.fmean(values) if values else None,
        spread=statistics.stdev(values) if len(values) >= 2 else None,
        low=low,
        high=high,
        num_seeds=len(values),
        status="ok" if values else rows[0].status,
        trained=any(row.trained for row in rows),
        patch_size=rows[0].patch_size,
        gflops=mean_of(row.gflops for row in rows),
        milliseconds=mean_of(row.milliseconds for row in rows),
        num_queries=min((row.num_queries for row in rows if row.value is not None), default=0),
        num_expected=max(row.num_expected for row in rows),
        note="; ".join(notes),
    )


def interval_of(rows: Sequence[Row]) -> tuple[float, float] | None:
    """95 % interval of the mean of one cell's rows, one row per seed; None where nothing gives one.

    Two seeds or more: over seeds and queries, cut to [0, 1]. One seed: the row's own interval, else
    Wilson's over its queries where the metric is a share of queries.
    """
    measured = [row for row in rows if row.value is not None]
    if len(measured) > 1:
        both = mean_interval(
            [row.value for row in measured], query_error([[row] for row in measured])
        )
        return max(0.0, both.low), min(1.0, both.high)
    if not measured:
        return None
    (row,) = measured
    if row.low is not None and row.high is not None:
        return row.low, row.high
    if row.metric != "map" and row.num_queries:
        return tuple(wilson_interval(row.value * row.num_queries, row.num_queries))
    return None


def main_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows without those of the peers (paper A.2), where there are others, of a vanilla trained at another T than
    the main one (Table A3), and of the study's further questions, where there are the two models they are about.

    Several vanilla models may share the rows, told apart by run_id; the main one is trained at the T that
    the other models' native scale has, or else at the T that most rows speak of.
    """
    if any(row.model in MODEL_ORDER for row in rows):
        rows = [row for row in rows if not peer_of(row.model)]
    if is_study(rows):
        rows = [row for row in rows if not is_further(row)]
    home = vanilla_trained_at(rows)
    if len(set(home.values())) < 2:
        return list(rows)
    others = [row.num_frames for row in rows if row.native and row.model != "vanilla"]
    counts = others or [home[row.run_id] for row in rows if row.run_id in home]
    main = max(sorted(set(counts)), key=counts.count)
    return [row for row in rows if row.model != "vanilla" or home.get(row.run_id, main) == main]


def is_study(rows: Sequence[Row]) -> bool:
    """Whether the rows hold retrieval of both models that the study compares."""
    both = {row.model for row in rows if row.protocol == "retrieval"}
    return {"vanilla", "static_tokens"} <= both


def is_further(row: Row) -> bool:
    """Whether a row answers one of the study's further questions, and stands in no table of the paper."""
    borrowed = row.protocol == BORROWED and row.model not in ("flexivit", "flex_all")
    asked = _ASKED.fullmatch(row.protocol) or _CONDITIONS.fullmatch(row.model)
    return bool(borrowed or asked)


def further_models(rows: Sequence[Row]) -> set[str]:
    """The models of the study's further questions."""
    return {row.model for row in rows if _CONDITIONS.fullmatch(row.model)}


def peer_of(model: str) -> str:
    """A model's own name where it stands before its method: "timesformer-nano" of "timesformer-nano vanilla"; or ""."""
    peer, _, method = model.rpartition(" ")
    return peer if method in MODEL_ORDER and not _CONDITIONS.fullmatch(model) else ""


def peers_of(rows: Sequence[Row]) -> list[str]:
    """Models trained by the same methods beside the main one (paper A.2), in the order they were first measured."""
    return list(dict.fromkeys(filter(None, (peer_of(row.model) for row in rows))))


def rows_of_peer(rows: Sequence[Row], peer: str) -> list[Row]:
    """The peer's rows under the names of its methods alone, so that what speaks of methods can be said of it."""
    return [
        replace(row, model=row.model.removeprefix(f"{peer} "))
        for row in rows
        if peer_of(row.model) == peer
    ]


def vanilla_trained_at(rows: Sequence[Row]) -> dict[str, int]:
    """run_id of each vanilla -> the T it was trained at, from its native cell."""
    return {row.run_id: row.num_frames for row in rows if row.native and row.model == "vanilla"}


def mean_of(numbers: Iterable[float | None]) -> float | None:
    """The mean of the numbers that are there; None where there is none."""
    present = [number for number in numbers if number is not None]
    return statistics.fmean(present) if present else None


def models_of(rows: Sequence[Row]) -> list[str]:
    """Models present, vanilla first and static_tokens last; unknown names between, sorted."""
    present = {row.model for row in rows}
    place = {model: index for index, model in enumerate(MODEL_ORDER)}
    return sorted(present, key=lambda model: (place.get(model, len(MODEL_ORDER) - 1.5), model))


def datasets_of(rows: Sequence[Row]) -> list[str]:
    """Data sets present, in the order they were first measured."""
    return list(dict.fromkeys(row.dataset for row in rows))


def protocols_of(rows: Sequence[Row]) -> list[str]:
    """Protocols present, retrieval first, then in the order they were first measured."""
    present = dict.fromkeys(row.protocol for row in rows)
    return sorted(present, key=lambda protocol: protocol != "retrieval")


def main_dataset(rows: Sequence[Row]) -> str:
    """The data set the headlines are about: the short suite where there is one, else the first."""
    present = datasets_of(rows)
    if not present:
        raise ValueError("rows (none) must hold at least one measurement; run the sweep first.")
    return next((name for name in present if name.split("/")[-1] == "short"), present[0])


def label(model: str) -> str:
    """The variant's name in words: static_tokens -> static tokens."""
    return model.replace("_", " ")


def percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def points(fraction: float | None) -> str:
    """A difference in percentage points, signed, with a true minus."""
    if fraction is None:
        return "–"
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")
