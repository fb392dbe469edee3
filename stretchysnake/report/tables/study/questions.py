"""The study's further questions as claims: (a) to (f), asked of the paper and answered by rows of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stretchysnake.report.tables.cells import (
    BORROWED,
    EQUAL_TOKENS_MODEL,
    FAR,
    HEAD,
    NATIVE_PATCHES,
    PI_MODEL,
    SCRATCH_MODEL,
    VIEWS,
    datasets_of,
    further_models,
    groups_model,
    is_study,
    label,
    main_rows,
    models_of,
)
from stretchysnake.report.tables.claims import Claim, rests_on, together
from stretchysnake.results.comparison import mean_difference
from stretchysnake.results.rows import Row, native_cells, select

FLEXIBLE, FIXED = "static_tokens", "vanilla"
QUESTIONS = {
    "(a)": "Scales far outside the sets",
    "(b)": "Vanilla averaging views, at equal GFLOPs",
    "(c)": "Vanilla with patch kernels resized at load time, in place of flexible training",
    "(d)": "Flexible training from scratch, with the steps of vanilla and of the training that goes on from it",
    "(e)": "Why static tokens wins: token count held, patch sizes seen, or both",
    "(f)": "Held-out clips of the classes that were trained on, by the head",
    "(k)": "Several scales a step",
}
"""What each table of questions is about, by the beginning of its claims' names."""
REMARKS = {
    "(a)": "Decoded from the files, as the frame cache holds too few frames and pixels.",
    "(b)": "Vanilla's features are averaged over so many views, each of other frames from the files, that their GFLOPs "
    "together are within 30 % of static tokens' in the cell: in the same cell where vanilla is the cheaper one there, "
    "or all at vanilla's own scale. Cells where no whole number of views comes so near are left out, and those that "
    "would need more views than the shortest clip has other frames for.",
    "(c)": "Vanilla is tested with the patches of static tokens, its kernels resized so, away from its own cell; at "
    "its own S and other T nothing is resized.",
    "(d)": "Static tokens from scratch has as many steps as the vanilla and what goes on from it have together.",
    "(e)": "In training token count held, patch sizes seen: static tokens, also with kernels by pi. Count held, one "
    "patch: temporal, which sees one S too. Neither: static patch, whose count is static tokens' on average with equal "
    "tokens; it saw 48 px, which is tested, in place of 56. Patch sizes seen, count not held: FlexiViT, flex-all. "
    "At vanilla's S the native patch is static tokens' own, and that line leaves those cells out.",
}
"""What a reader of each table has to know, beside its lines."""
_NATIVE = "static_tokens with native patches"
_TOLERANCE = 0.3
"""Of equal GFLOPs: views are whole, so they are equal within this share of static tokens'."""


def question_claims(rows: Sequence[Row]) -> list[Claim]:
    """The questions that the rows can answer, on every data set; each question is a table of its own for Holm."""
    if not is_study(rows):
        return []
    top1 = select(rows, metric="top1")
    plain = select(main_rows(top1), protocol="retrieval")
    static, vanilla = label(FLEXIBLE), label(FIXED)
    found: list[Claim] = []

    def add(name: str, sides: Sequence[Row], model: str, against: str, cells: str = "all") -> None:
        sides = [row for row in sides if row.model in (model, against)]
        if not {model, against} <= {row.model for row in sides}:
            return  # that part was not done
        protocol = sides[0].protocol
        sides = [replace(row, protocol=protocol) for row in sides]
        for dataset in datasets_of(sides):
            here = select(sides, dataset=dataset)
            place = {"dataset": dataset, "cells": cells, "protocol": protocol}
            found.append(
                Claim(
                    name=name,
                    source="–",
                    dataset=dataset,
                    protocol=protocol,
                    model=model,
                    baseline=against,
                    difference=mean_difference(here, model, against, **place),
                    table=name[:3],
                    **rests_on(here, (model, against)),
                )
            )

    own = select(plain, model=FLEXIBLE)
    name = f"(a) {static} beats {vanilla} far outside the sets"
    add(name, select(top1, protocol=FAR), FLEXIBLE, FIXED)
    for where, views in (
        ("at the same scale", _in_place(top1, plain)),
        ("at its own scale", _at_home(top1, plain)),
    ):
        name = f"(b) {static} beats {vanilla} of equal GFLOPs {where}"
        add(name, [*own, *views], FLEXIBLE, FIXED)
    for kernels in ("bicubic", "area", "pi"):
        protocol = BORROWED if kernels == "bicubic" else f"{BORROWED}-{kernels}"
        pair = [*own, *select(top1, protocol=protocol, model=FIXED)]
        name = f"(c) {static} beats {vanilla} with kernels by {kernels}, away from its scale"
        add(name, pair, FLEXIBLE, FIXED, "away")
    added = further_models(top1)
    further = [*plain, *select(top1, protocol="retrieval", model=added)]
    scratch = label(SCRATCH_MODEL)
    places = {"away": "away from its scale", "native": "at its own scale"}
    add(f"(d) {static} beats {scratch}", further, FLEXIBLE, SCRATCH_MODEL)
    for cells, where in places.items():
        add(f"(d) {scratch} beats {vanilla} {where}", further, SCRATCH_MODEL, FIXED, cells)
    borrowed = select(top1, protocol=BORROWED)
    for other in ("temporal", "static_patch", EQUAL_TOKENS_MODEL):  # the others: Table A2
        name = f"(e) {static} beats {label(other)} tested with the same patches"
        add(name, [*own, *select(borrowed, model=other)], FLEXIBLE, other)
    add(f"(e) {static} beats {label(EQUAL_TOKENS_MODEL)}", further, FLEXIBLE, EQUAL_TOKENS_MODEL)
    add(f"(e) {static} beats {label(PI_MODEL)}", further, FLEXIBLE, PI_MODEL)
    at_home = {size for _, size in native_cells(plain)}
    native = [
        replace(row, model=_NATIVE)
        for row in select(top1, protocol=NATIVE_PATCHES, model=FLEXIBLE)
        if row.size not in at_home
    ]
    name = f"(e) {static} beats itself tested with the native patch"
    add(name, [*own, *native], FLEXIBLE, _NATIVE)
    heads = select(top1, protocol=HEAD)
    for cells, where in places.items():
        add(f"(f) {static} beats {vanilla} {where}", heads, FLEXIBLE, FIXED, cells)
    for model in models_of(select(further, model=added)):
        if model.startswith(groups_model(0)[:-1]):
            add(f"(k) {label(model)} beats {static}", further, model, FLEXIBLE)
            for cells, where in places.items():
                add(f"(k) {label(model)} beats {vanilla} {where}", further, model, FIXED, cells)
    return together(found)


def _in_place(rows: Sequence[Row], plain: Sequence[Row]) -> list[Row]:
    """Vanilla with views, in the cells where that costs the GFLOPs of static tokens."""
    wanted = _costs(plain)
    return [
        row
        for views, row in _with_views(rows)
        if (cell := (row.num_frames, row.size)) in wanted
        and _equal(views * (row.gflops or 0.0), wanted[cell])
    ]


def _at_home(rows: Sequence[Row], plain: Sequence[Row]) -> list[Row]:
    """Vanilla at its own scale with as many views as cost the GFLOPs of static tokens in a cell, put into that cell.
    None where nothing was measured with views."""
    several = [(views, row) for views, row in _with_views(rows) if row.native]
    seeds = {row.seed for _, row in several}  # others have one view alone, and so fewer cells
    own = [(1, row) for row in select(plain, model=FIXED, native=True) if row.seed in seeds]
    own += several
    found = []
    for (t, s), wanted in _costs(plain).items():
        for views, row in own:
            if _equal(views * (row.gflops or 0.0), wanted):
                found.append(replace(row, num_frames=t, size=s, native=False))
    return found


def _costs(plain: Sequence[Row]) -> dict[tuple[int, int], float]:
    """GFLOPs of static tokens in each cell."""
    return {
        (row.num_frames, row.size): row.gflops
        for row in select(plain, model=FLEXIBLE)
        if row.gflops is not None
    }


def _with_views(rows: Sequence[Row]) -> list[tuple[int, Row]]:
    """Vanilla's rows of several views, each with their number, under the name of plain retrieval."""
    return [
        (int(views[1]), replace(row, protocol="retrieval"))
        for row in select(rows, model=FIXED)
        if (views := VIEWS.fullmatch(row.protocol))
    ]


def _equal(gflops: float, wanted: float) -> bool:
    return abs(gflops - wanted) <= _TOLERANCE * wanted
