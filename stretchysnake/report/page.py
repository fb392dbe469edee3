"""One self-contained HTML page from measured rows: nothing outside the file is ever loaded."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from stretchysnake.comparison import wilson_interval
from stretchysnake.report import figures
from stretchysnake.report.cells import (
    datasets_of,
    label,
    main_dataset,
    percent,
    points,
    protocols_of,
)
from stretchysnake.report.context import (
    ReportContext,
    SuiteInfo,
    TrainingInfo,
    read_context,
    write_context,
)
from stretchysnake.report.headlines import claim, headlines, tiles
from stretchysnake.report.plain_table import PlainTable
from stretchysnake.report.tables import (
    accuracy_table,
    further_tables,
    measured_tables,
    plain_accuracy_table,
    render_text,
)
from stretchysnake.report.template import filled
from stretchysnake.results import Row, latest, select
from stretchysnake.whole_file import write_whole

__all__ = [
    "ReportContext",
    "SuiteInfo",
    "TrainingInfo",
    "read_context",
    "render_page",
    "render_text",
    "write_context",
    "write_overview_png",
    "write_page",
]

MAX_CLIP_BYTES = 200_000
MAX_CLIPS = 6
MAX_PICTURE_BYTES = 3_000_000


def write_page(path: str | Path, rows: Sequence[Row], context: ReportContext) -> None:
    """Writes the whole report as one HTML file, whole or not at all."""
    write_whole(path, render_page(rows, context))


def write_overview_png(
    path: str | Path, rows: Sequence[Row], dataset: str | None = None, chance: float | None = None
) -> None:
    """Writes the README's picture: accuracy over size beside the map of differences."""
    write_whole(path, figures.overview_png(rows, dataset=dataset, chance=chance))


def render_page(rows: Sequence[Row], context: ReportContext) -> str:
    """The report as HTML text. Every text of rows and context is escaped."""
    first = protocols_of(select(rows, metric="top1"))[:1]
    top1 = latest(select(rows, metric="top1", protocol=first))
    main = main_dataset(top1)
    found = headlines(top1, dataset=main)
    infos = {suite.dataset: suite for suite in context.suites}
    measured = datasets_of(top1)
    order = [main, *[name for name in measured if name != main]]
    filters = {"percent": percent, "points": points, "label": label}
    chance = infos[main].chance if main in infos else None
    native = sorted({(row.num_frames, row.size, row.patch_size) for row in top1 if row.native})
    return filled(
        "page.html.j2",
        filters,
        context=context,
        claim=claim(found),
        tiles=tiles(found),
        main=main,
        native=[n for n in native if any(_is_home(row, n) for row in top1)],
        main_map=_safe(figures.heat_maps(top1, dataset=main)),
        suites=[_suite(top1, name, infos.get(name)) for name in order],
        cost=_safe(figures.accuracy_over_cost(top1, dataset=main, chance=chance)),
        loss=_loss(context.training),
        limits=_limits(top1, context, main),
        counts=_counts(top1, order),
        runs=sorted({row.run_id for row in top1}),
        devices=sorted({row.device for row in top1 if row.device}),
        commits=sorted({row.commit for row in top1 if row.commit}),
        extra=[*_other_tables(rows, first), *further_tables(rows)],
        empty_datasets=[suite.name for suite in context.suites if suite.dataset not in measured],
    )


def _other_tables(rows: Sequence[Row], shown: list[str]) -> list[PlainTable]:
    """Tables of the protocols and metrics that the page's main part leaves out."""
    return [
        plain_accuracy_table(select(rows, protocol=protocol), dataset=dataset, metric=metric)
        for protocol, metric, dataset in measured_tables(rows)
        if [protocol] != shown or metric != "top1"
    ]


def _is_home(row: Row, native: tuple[int, int, int]) -> bool:
    return row.model == "vanilla" and native == (row.num_frames, row.size, row.patch_size)


def _safe(svg: str):
    from markupsafe import Markup

    return Markup(svg)  # our own figure: texts are drawn as paths, its label is escaped there


def _suite(rows: Sequence[Row], dataset: str, info: SuiteInfo | None) -> dict:
    chance = info.chance if info else None
    clips, left_out = _clips(info)
    return {
        "dataset": dataset,
        "info": info,
        "table": accuracy_table(rows, dataset=dataset),
        "found": headlines(rows, dataset=dataset),
        "heat": _safe(figures.heat_maps(rows, dataset=dataset)),
        "lines": _safe(figures.accuracy_over_size(rows, dataset=dataset, chance=chance)),
        "clips": clips,
        "clips_left_out": left_out,
        "sheet": _picture(info.contact_sheet_png) if info and info.contact_sheet_png else None,
        "native": any(row.native for row in rows if row.dataset == dataset),
    }


def _data_url(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _clips(info: SuiteInfo | None) -> tuple[list[dict], int]:
    clips = []
    paths = [Path(path) for path in info.sample_clips] if info else []
    for path in paths:
        if len(clips) < MAX_CLIPS and path.is_file() and path.stat().st_size < MAX_CLIP_BYTES:
            clips.append({"name": path.stem, "url": _data_url(path, "video/mp4")})
    return clips, len(paths) - len(clips)


def _picture(path: str | Path) -> str | None:
    path = Path(path)
    if not path.is_file() or path.stat().st_size > MAX_PICTURE_BYTES:
        return None
    kind = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}.get(path.suffix)
    return _data_url(path, kind) if kind else None


def _loss(training: Sequence[TrainingInfo]):
    curves = {
        f"{number} {info.model} {info.seed}": (info.model, info.loss_curve)
        for number, info in enumerate(training)
        if len(info.loss_curve) > 1
    }
    return _safe(figures.loss_curves(curves)) if curves else None


def _counts(rows: Sequence[Row], datasets: Sequence[str]) -> list[dict]:
    """Queries answered of asked for, and cells without a number, for each data set."""
    counts = []
    for dataset in datasets:
        chosen = select(rows, dataset=dataset)
        ok = [row for row in chosen if row.status == "ok"]
        counts.append(
            {
                "dataset": dataset,
                "cells": len(chosen),
                "without": len(chosen) - len(ok),
                "fewest": min((row.num_queries for row in ok), default=0),
                "expected": max(row.num_expected for row in chosen),
                "gallery": max(row.num_gallery for row in chosen),
            }
        )
    return counts


def _limits(rows: Sequence[Row], context: ReportContext, main: str) -> list[str]:
    """What these numbers cannot carry, each sentence computed from the rows."""
    limits = []
    if any(suite.dataset.startswith("motion-digits") for suite in context.suites) or any(
        row.dataset.startswith("motion-digits") for row in rows
    ):
        limits.append(
            "MotionDigits is a small synthetic benchmark: real handwritten digits and real mp4 "
            "files, but made-up movement. Its numbers stand for themselves and are not results on "
            "UCF-101, HMDB-51, COIN or Breakfast."
        )
    seeds = sorted({row.seed for row in select(rows, dataset=main)})
    if len(seeds) == 1:
        limits.append(
            f"One training seed ({seeds[0]}): the interval shown covers the choice of queries, not "
            "the luck of a training. A second seed can move every number."
        )
    else:
        limits.append(
            f"{len(seeds)} training seeds: ± is the standard deviation over seeds, the headlines' "
            f"intervals are Student's t with {len(seeds) - 1} degree"
            f"{'s' if len(seeds) > 2 else ''} of freedom."
        )
    answered = [row for row in select(rows, dataset=main, status="ok") if row.num_queries]
    if answered:
        fewest = min(answered, key=lambda row: row.num_queries)
        low, high = wilson_interval(fewest.num_queries / 2, fewest.num_queries)
        limits.append(
            f"{fewest.num_queries} queries of {fewest.num_expected} asked for on {main}: a single "
            f"cell of one seed near 50 % is known to about ±{50 * (high - low):.1f} points "
            "(Wilson, 95 %)."
        )
    for suite in context.suites:
        chosen = select(rows, dataset=suite.dataset, model="static_tokens")
        values = [row.value for row in chosen if row.value is not None]
        if values and max(values) < 3 * suite.chance:
            limits.append(
                f"On {suite.dataset} the best cell of static tokens ({percent(max(values))} %) "
                f"is below three times chance ({percent(suite.chance)} %): read that suite as "
                "not learned."
            )
    if any(row.status == "oom" for row in rows):
        limits.append("Cells marked OOM did not fit in memory; they enter no average.")
    if any(row.status == "ok" and row.num_queries < row.num_expected for row in rows):
        limits.append("Some queries could not be read; accuracies are over those that could.")
    limits.append(
        "The cheapest cell of the cost headline is chosen after looking at the results, so it is "
        "a little flattered by chance."
    )
    return [*limits, *context.notes]
