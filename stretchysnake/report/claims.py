"""Which of the paper's claims the rows bear out: each with its difference, interval, seeds, queries and verdict."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stretchysnake.comparison import Difference, mean_difference, seed_interval
from stretchysnake.report.cells import datasets_of, label, models_of, percent, points
from stretchysnake.report.plain_table import PlainTable
from stretchysnake.results import Row, latest, select

PATCHED = "retrieval-static_tokens-patches"
"""Protocol of Table A2's models, tested with the patches of static tokens."""
VERDICTS = ("holds", "does not hold", "not settled", "not measured")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One comparison of two models on one data set."""

    name: str
    source: str
    """Where the paper says it."""
    dataset: str
    protocol: str
    model: str
    baseline: str
    difference: Difference | None
    num_queries: int = 0
    num_expected: int = 0
    reason: str = ""
    """Why there is no difference."""

    @property
    def verdict(self) -> str:
        """`holds` or `does not hold` when the 95 % interval excludes zero, else `not settled`."""
        if self.difference is None or self.difference.interval is None:
            return "not measured"
        low, high = self.difference.interval
        return "holds" if low > 0 else "does not hold" if high < 0 else "not settled"


def claims(
    rows: Sequence[Row],
    *,
    other_vanillas: Sequence[Row] = (),
    model: str = "static_tokens",
    baseline: str = "vanilla",
) -> list[Claim]:
    """The paper's claims on every data set of the rows, in the order of the paper.

    `rows` hold one vanilla, trained at its native scale; `other_vanillas` are rows of those trained at
    another T, each in the cells of its own T (Table A3).
    """
    found = []

    def add(name, source, chosen, against, **place):
        protocols = {row.protocol for row in select(chosen, model=model)}
        for dataset in datasets_of(rows):
            if not (here := select(chosen, dataset=dataset)):
                continue
            place = {"cells": "all", "protocol": min(protocols, default="retrieval"), **place}
            difference = mean_difference(here, model, against, dataset=dataset, **place)
            used = [row for row in select(here, model=(model, against)) if row.value is not None]
            lacking = [label(m) for m in (model, against) if not select(used, model=m)]
            found.append(
                Claim(
                    name=name,
                    source=source,
                    dataset=dataset,
                    protocol=place["protocol"],
                    model=model,
                    baseline=against,
                    difference=difference,
                    num_queries=min((row.num_queries for row in used), default=0),
                    num_expected=max((row.num_expected for row in used), default=0),
                    reason=f"no value of {' and '.join(lacking)}" if lacking else "no shared cell",
                )
            )

    top1 = select(rows, metric="top1")
    main = select(top1, protocol="retrieval")
    names = label(model), label(baseline)
    away, home = f"{names[0]} beats {names[1]} away from its scale", "at its own scale"
    add(f"(i) {away}", "Table 1", main, baseline, cells="away")
    add(f"(ii) {names[0]} ≥ {names[1]} {home}", "§4.2, Table 1", main, baseline, cells="native")
    for other in models_of(main):
        if other not in (model, baseline):
            add(f"{names[0]} beats {label(other)}", "§4.2, Fig. 3", main, other)
    for protocol, source in (("probe", "Fig. 4"), ("probe-sgd", "Fig. 4"), ("finetune", "Fig. 4")):
        here = select(top1, protocol=protocol)
        for cells, where in (("native", home), ("away", "away from it")) if here else ():
            add(
                f"{protocol}: {names[0]} beats {names[1]} {where}",
                source,
                here,
                baseline,
                cells=cells,
            )
    equal = [replace(row, protocol="retrieval") for row in select(top1, protocol=PATCHED)]
    for other in models_of(equal):
        pair = [*select(equal, model=other), *select(main, model=model)]
        add(f"equal patches: {names[0]} beats {label(other)}", "Table A2", pair, other)
    if own := select(other_vanillas, protocol="retrieval", metric="top1", model=baseline):
        at = {row.num_frames for row in own}
        pair = [*own, *(row for row in select(main, model=model) if row.num_frames in at)]
        add(f"{names[0]} beats {names[1]} trained at the tested T", "Table A3", pair, baseline)
    return found


def claims_table(found: Sequence[Claim]) -> PlainTable:
    """One line for each claim and data set; what was not measured says why."""
    lines = []
    for claim in found:
        d = claim.difference
        head = (claim.name, claim.source, claim.dataset)
        if d is None:
            lines.append((*head, f"{claim.verdict}: {claim.reason}", *["–"] * 7))
            continue
        interval = "–"
        if d.interval is not None:
            interval = f"{points(d.interval.low)} to {points(d.interval.high)} ({d.interval_over})"
        lines.append(
            (
                *head,
                claim.verdict,
                points(d.mean),
                interval,
                percent(d.mean_a),
                percent(d.mean_b),
                f"{len(d.cells)} of {len(d.cells) + d.num_cells_left_out}",
                ", ".join(map(str, d.seeds)),
                f"{claim.num_queries} of {claim.num_expected}",
            )
        )
    return PlainTable(
        title="The paper's claims at this size: differences of top1, in points",
        head=("claim", "paper", "data set", "verdict", "difference", "95 % interval", "model", "against",
              "cells", "seeds", "queries"),
        rows=tuple(lines),
        note="Each difference is the mean over cells, averaged over seeds. Holds: the interval lies above zero; does "
        "not hold: below; not settled: it holds zero. Over seeds: Student's t; over queries (one seed): blind to the "
        "luck of a training. Intervals are not corrected for the number of claims.",
    )  # fmt: skip


def order_table(rows: Sequence[Row], *, dataset: str, protocol: str = "retrieval") -> PlainTable:
    """The methods from best to worst by top1 over the cells that all of them have, with intervals over seeds."""
    chosen = latest(select(rows, dataset=dataset, protocol=protocol, metric="top1", status="ok"))
    models = models_of(chosen)
    sides: dict[tuple[str, int], dict] = {}
    for row in chosen:
        sides.setdefault((row.model, row.seed), {})[row.num_frames, row.size] = row.value
    shared = sorted(set.intersection(*map(set, sides.values()))) if sides else []
    offered = {cell for side in sides.values() for cell in side}
    scores = {}
    for model in models if shared else ():
        seeds = [side for (name, _), side in sides.items() if name == model]
        scores[model] = [statistics.fmean(side[cell] for cell in shared) for side in seeds]
    lines = []
    for model in sorted(scores, key=lambda name: -statistics.fmean(scores[name])):
        interval = seed_interval(scores[model])
        lines.append(
            (
                f"{len(lines) + 1}. {label(model)}",
                percent(statistics.fmean(scores[model])),
                f"{percent(interval.low)} to {percent(interval.high)}"
                if interval
                else "– (one seed)",
                str(len(scores[model])),
                f"{len(shared)} of {len(offered)}",
                f"{min(row.num_queries for row in chosen)} of {max(row.num_expected for row in chosen)}",
            )
        )
    return PlainTable(
        title=f"{dataset}: the methods in order, {protocol} top1 over all cells, percent",
        head=("method", "top1", "95 % interval over seeds", "seeds", "cells", "queries"),
        rows=tuple(lines),
        note="The paper's order: static tokens first, vanilla last. Neighbours whose intervals overlap are not told "
        "apart.",
    )


def claims_in_words(found: Sequence[Claim]) -> list[str]:
    """One sentence for each claim: on how many data sets it holds, does not hold, or is not settled."""
    lines = []
    for name in dict.fromkeys(claim.name for claim in found):
        here = [claim for claim in found if claim.name == name]
        parts = []
        for verdict in VERDICTS:
            of = [claim.dataset.split("/")[-1] for claim in here if claim.verdict == verdict]
            if of:
                parts.append(f"{verdict} on {', '.join(of)}")
        lines.append(f"{name} ({here[0].source}): {'; '.join(parts)} ({len(here)} data sets).")
    return lines
