"""One self-contained HTML page from measured rows: nothing outside the file is ever loaded."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from stretchysnake.report.figures import trade_offs as figures
from stretchysnake.report.figures.gallery import first_protocol_rows, ordered_datasets, pictures_of
from stretchysnake.report.figures.picture import Picture
from stretchysnake.report.pages.context import (
    PictureFile,
    ReportContext,
    SuiteInfo,
)
from stretchysnake.report.pages.template import filled
from stretchysnake.report.tables.accuracy_table import accuracy_table
from stretchysnake.report.tables.cells import label, main_rows, percent, points
from stretchysnake.report.tables.claims_tables import claims_grid, tables_of_claims
from stretchysnake.report.tables.gains import gains_table
from stretchysnake.report.tables.grids import (
    further_tables,
    measured_tables,
    plain_accuracy_table,
)
from stretchysnake.report.tables.headlines import claim, headlines, tiles
from stretchysnake.report.tables.plain_table import PlainTable
from stretchysnake.results.intervals import wilson_interval
from stretchysnake.results.rows import Row, select
from stretchysnake.whole_file import write_whole

MAX_CLIP_BYTES = 200_000
MAX_CLIPS = 6
MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".mp4": "video/mp4",
}
MAX_EMBEDDED_BYTES = 4_500_000
"""Of clips and pictures together; base64 adds a third, and the figures a few MB: the page stays below 10 MB."""


def write_page(
    path: str | Path,
    rows: Sequence[Row],
    context: ReportContext,
    pictures: dict[str, list[Picture]] | None = None,
) -> None:
    """Writes the whole report as one HTML file, whole or not at all; `pictures` as in render_page."""
    write_whole(path, render_page(rows, context, pictures))


def write_overview_png(
    path: str | Path, rows: Sequence[Row], dataset: str | None = None, chance: float | None = None
) -> None:
    """Writes the README's picture: accuracy over size beside the map of differences."""
    write_whole(path, figures.overview_png(main_rows(rows), dataset=dataset, chance=chance))


def render_page(
    rows: Sequence[Row],
    context: ReportContext,
    pictures: dict[str, list[Picture]] | None = None,
) -> str:
    """The report as HTML text. Every text of rows and context is escaped.

    `pictures` are those of `pictures_of(rows, context)`, where the caller draws them elsewhere too.
    """
    top1 = first_protocol_rows(rows)
    headline = headlines(top1)
    main = headline.dataset
    infos = {suite.dataset: suite for suite in context.suites}
    order = ordered_datasets(top1)
    filters = {"percent": percent, "points": points, "label": label, "stacked": _stacked}
    native = sorted({(row.num_frames, row.size, row.patch_size) for row in top1 if row.native})
    pictures = pictures or pictures_of(rows, context)
    drawn = {kind: [_figure(p) for p in made] for kind, made in pictures.items()}
    embedded, gains = _Embedded(MAX_EMBEDDED_BYTES), gains_table(rows)
    return filled(
        "page.html.j2",
        filters,
        context=context,
        claim=claim(headline),
        tiles=tiles(headline),
        main=main,
        native=[n for n in native if any(_is_home(row, n) for row in top1)],
        drawn=drawn,
        heat_of={p["dataset"]: p for p in drawn["heat"]},
        size_of={p["dataset"]: p for p in drawn["size"]},
        suites=[_suite(top1, name, infos.get(name), embedded) for name in order],
        sections=_sections(context.pictures, embedded),
        left_out=embedded.left_out,
        limits=_limits(top1, context, main),
        counts=_counts(top1, order),
        runs=sorted({row.run_id for row in rows}),
        devices=sorted({row.device for row in rows if row.device}),
        commits=sorted({row.commit for row in rows if row.commit}),
        claims=claims_grid(rows),
        gains=gains,
        extra=[
            *tables_of_claims(rows),
            *(table for table in further_tables(rows) if table != gains),
            *_other_tables(main_rows(rows), top1),
        ],
        empty_datasets=[suite.name for suite in context.suites if suite.dataset not in order],
    )


def _other_tables(rows: Sequence[Row], shown: Sequence[Row]) -> list[PlainTable]:
    """Tables of the protocols and metrics that the page's main part leaves out."""
    first = {row.protocol for row in shown}
    return [
        plain_accuracy_table(
            select(rows, protocol=protocol), dataset=dataset, metric=metric, intervals=True
        )
        for protocol, metric, dataset in measured_tables(rows)
        if protocol not in first or metric != "top1"
    ]


def _is_home(row: Row, native: tuple[int, int, int]) -> bool:
    return row.model == "vanilla" and native == (row.num_frames, row.size, row.patch_size)


def _figure(picture: Picture) -> dict:
    from markupsafe import Markup

    # our own figure: texts are drawn as paths, its label is escaped there
    return {
        "dataset": picture.dataset,
        "svg": Markup(picture.inline()),
        "caption": picture.caption,
        "alt": picture.alt,
    }


def _stacked(text: str):
    """An interval in brackets goes below its number, small; so does the reason of an empty cell."""
    from markupsafe import Markup, escape

    if text.startswith("– (") and text.endswith(")"):
        return Markup("–<small>{}</small>").format(text[3:-1])
    number, bracket, rest = text.partition(" [")
    interval, _, after = rest.partition("]")
    if not bracket:
        return escape(text)
    between = " to " if interval[:1] in "+−" else "–"  # a dash before a minus cannot be read
    return Markup("{}{}<small>{}</small>").format(number, after, interval.replace(", ", between))


class _Embedded:
    """Files as data URLs while they fit into max_bytes; what does not is remembered by name."""

    def __init__(self, max_bytes: int):
        self.free, self.left_out = max_bytes, []

    def url(self, path: str | Path) -> str | None:
        """None for a file that is missing, of another kind or too large; it is then in left_out."""
        path = Path(path)
        kind = MEDIA_TYPES.get(path.suffix)
        if kind is None or not path.is_file() or path.stat().st_size > self.free:
            self.left_out.append(path.name)
            return None
        self.free -= path.stat().st_size
        return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _suite(rows: Sequence[Row], dataset: str, info: SuiteInfo | None, embedded: _Embedded) -> dict:
    clips, left_out = _clips(info, embedded)
    return {
        "dataset": dataset,
        "info": info,
        "table": accuracy_table(rows, dataset=dataset),
        "clips": clips,
        "clips_left_out": left_out,
        "sheet": embedded.url(info.contact_sheet_png) if info and info.contact_sheet_png else None,
    }


def _clips(info: SuiteInfo | None, embedded: _Embedded) -> tuple[list[dict], int]:
    clips = []
    paths = [Path(path) for path in info.sample_clips] if info else []
    labels = info.sample_labels if info else ()
    for path, shown in zip_longest(paths, labels[: len(paths)]):
        if len(clips) < MAX_CLIPS and path.is_file() and path.stat().st_size < MAX_CLIP_BYTES:
            url = embedded.url(path)
            clips += [{"name": path.stem, "label": shown, "url": url}] if url else []
    return clips, len(paths) - len(clips)


def _sections(pictures: Sequence[PictureFile], embedded: _Embedded) -> dict[str, list[dict]]:
    """The pictures made elsewhere, by the heading they stand under."""
    sections: dict[str, list[dict]] = {}
    for picture in pictures:
        url = embedded.url(picture.path)
        if url is not None:
            entry = {"url": url, "alt": picture.alt, "caption": picture.caption}
            sections.setdefault(picture.section, []).append(entry)
    return sections


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
            f"{len(seeds)} training seeds: intervals hold their scatter (Student's t, {len(seeds) - 1} degree"
            f"{'s' if len(seeds) > 2 else ''} of freedom) and that of the queries."
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
    if unknown := sum(not row.weights for row in rows):
        limits.append(
            f"{unknown} of {len(rows)} rows are of an earlier version and do not say which weights they were "
            "measured with; that one model name stands for one model is taken on trust there."
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
