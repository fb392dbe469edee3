"""Which of the paper's claims the rows bear out: each with its difference, interval, seeds, queries and verdict."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stretchysnake.report.tables.cells import (
    BORROWED,
    datasets_of,
    further_models,
    label,
    main_rows,
    models_of,
    peer_of,
    peers_of,
)
from stretchysnake.results.comparison import Difference, gain_difference, mean_difference
from stretchysnake.results.intervals import holm
from stretchysnake.results.rows import Row, native_cells, select

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
    peer: str = ""
    """The other model, where gains are compared: of `model` over `baseline` there and here."""
    table: str = "claims"
    """Which claims it stands among: the table of the paper (or the study's question) that all of them are read from."""
    p_together: float | None = None
    """The difference's p-value corrected by Holm for all claims of its table that the rows measure."""

    @property
    def verdict(self) -> str:
        """`holds` or `does not hold` when the 95 % interval excludes zero, else `not settled`."""
        if self.difference is None or self.difference.interval is None:
            return "not measured"
        low, high = self.difference.interval
        return "holds" if low > 0 else "does not hold" if high < 0 else "not settled"

    @property
    def verdict_together(self) -> str:
        """`verdict` where it stands among all claims of its table (`p_together` at most 0.05), else `not settled`."""
        settled = self.p_together is not None and self.p_together <= 0.05
        return self.verdict if settled or self.verdict == "not measured" else "not settled"


def claims(
    rows: Sequence[Row], *, model: str = "static_tokens", baseline: str = "vanilla"
) -> list[Claim]:
    """The paper's claims on every data set of the rows, in the order of the paper.

    Vanillas trained at another T than the main one are compared in the cells of that T alone (Table A3).
    """
    all_claims = []
    everything, rows = rows, main_rows(rows)
    main_runs = {row.run_id for row in rows}
    others = [row for row in everything if row.run_id not in main_runs]

    def add(name, source, chosen, against, table="claims", tested=model, **place):
        protocols = {row.protocol for row in select(chosen, model=tested)}
        for dataset in datasets_of(rows):
            if not (here := select(chosen, dataset=dataset)):
                continue
            place = {"cells": "all", "protocol": min(protocols, default="retrieval"), **place}
            difference = mean_difference(here, tested, against, dataset=dataset, **place)
            all_claims.append(
                Claim(
                    name=name,
                    source=source,
                    dataset=dataset,
                    protocol=place["protocol"],
                    model=tested,
                    baseline=against,
                    difference=difference,
                    table=table,
                    **rests_on(here, (tested, against)),
                )
            )

    top1 = select(rows, metric="top1")
    main = select(top1, protocol="retrieval")
    names = label(model), label(baseline)
    away, home = f"{names[0]} beats {names[1]} away from its scale", "at its own scale"
    add(f"(i) {away}", "Table 1", main, baseline, cells="away")
    add(f"(ii) {names[0]} ≥ {names[1]} {home}", "§4.2, Table 1", main, baseline, cells="native")
    for dataset in datasets_of(main):
        if best := best_flexible(everything, dataset, baseline, model=model):
            of_best = {"dataset": dataset, "protocol": "retrieval", "metric": "top1", "model": best}
            pair = [*select(everything, **of_best), *select(main, dataset=dataset, model=baseline)]
            name = f"(ii) the best flexible recipe ≥ {names[1]} {home}"
            add(name, "§4.2, Table 1", pair, baseline, tested=best, cells="native")
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
                table="Fig. 4",
                cells=cells,
            )
    equal = [replace(row, protocol="retrieval") for row in select(top1, protocol=BORROWED)]
    for other in models_of(equal):
        pair = [*select(equal, model=other), *select(main, model=model)]
        add(f"equal patches: {names[0]} beats {label(other)}", "Table A2", pair, other, "Table A2")
    if retrained := select(others, protocol="retrieval", metric="top1", model=baseline):
        own = select(main, model=baseline)
        at_home = {num_frames for num_frames, _ in native_cells(own)}
        seeds = {row.seed for row in retrained}  # others have none but vanilla's own T
        own = [row for row in own if row.num_frames in at_home and row.seed in seeds]
        # a model for each T, which stand as one: each cell is of that trained at its T
        retrained = [replace(row, weights="") for row in (*own, *retrained)]
        at = {row.num_frames for row in retrained}
        pair = [*retrained, *(row for row in select(main, model=model) if row.num_frames in at)]
        name = f"{names[0]} beats {names[1]} trained at the tested T"
        for cells, where in (("native", "at its own size"), ("away", "at other sizes")):
            add(f"{name}, {where}", "Table A3", pair, baseline, "Table A3", cells=cells)
    all_claims += _claims_of_gains(everything, datasets_of(main), model, baseline)
    return together(all_claims)


def best_flexible(
    rows: Sequence[Row], dataset: str, baseline: str, *, model: str = "static_tokens"
) -> str | None:
    """The flexible recipe, of variants and those beside them, with the highest leave-one-out top1 inside the gallery
    at vanilla's own scale: no query takes part in the choice. Each is compared with `model` over the seeds that both
    have, as not all recipes are of the same seeds. None of fewer than two."""
    guides = select(rows, dataset=dataset, protocol="retrieval", metric="gallery_top1", native=True)
    allowed = {row.model for row in main_rows(rows)} | further_models(rows)
    by_model: dict[str, dict[int, float]] = {}
    for row in guides:
        if row.value is not None and row.model in allowed - {baseline}:
            by_model.setdefault(row.model, {})[row.seed] = row.value
    own = by_model.get(model, {})
    ahead = {
        name: statistics.fmean(values[seed] - own[seed] for seed in shared)
        for name, values in by_model.items()
        if (shared := sorted(values.keys() & own.keys()))
    }
    return max(sorted(ahead), key=ahead.get) if len(ahead) > 1 else None


def _claims_of_gains(
    rows: Sequence[Row], datasets: Sequence[str], model: str, baseline: str
) -> list[Claim]:
    """Claim (iv) for each peer and data set: the SSM's gain from flexible training is larger than the peer's."""
    made = []
    rows = select([*main_rows(rows), *(row for row in rows if peer_of(row.model))], metric="top1")
    for peer in peers_of(rows):
        ours, theirs = (model, baseline), (f"{peer} {model}", f"{peer} {baseline}")
        for dataset in datasets:
            here = select(rows, dataset=dataset, protocol="retrieval")
            made.append(
                Claim(
                    name=f"(iv) flexible training gains more on the SSM than on {peer}",
                    source="A.2",
                    dataset=dataset,
                    protocol="retrieval",
                    model=model,
                    baseline=baseline,
                    difference=gain_difference(here, ours, theirs, dataset=dataset),
                    peer=peer,
                    table="A.2",
                    **rests_on(here, ours + theirs),
                )
            )
    return made


def rests_on(rows: Sequence[Row], models: tuple[str, ...]) -> dict:
    """The fields of a Claim that count its queries, and say why there may be no difference."""
    used = [row for row in select(rows, model=models) if row.value is not None]
    lacking = [label(m) for m in models if not select(used, model=m)]
    return {
        "num_queries": min((row.num_queries for row in used), default=0),
        "num_expected": max((row.num_expected for row in used), default=0),
        "reason": f"no value of {' and '.join(lacking)}" if lacking else "no shared cell",
    }


def together(all_claims: list[Claim]) -> list[Claim]:
    """The claims with Holm's correction, over those of a table that were measured."""
    by_place: dict[int, float] = {}
    for table in dict.fromkeys(claim.table for claim in all_claims):
        measured = [c for c in all_claims if c.table == table and c.verdict != "not measured"]
        corrected = holm([claim.difference.p_value for claim in measured])
        by_place |= {id(claim): p for claim, p in zip(measured, corrected, strict=True)}
    return [replace(claim, p_together=by_place.get(id(claim))) for claim in all_claims]


def unsettled(all_claims: Sequence[Claim]) -> str:
    """How many of the measured claims are not settled, taken alone and among those of their table: one sentence."""
    measured = [claim for claim in all_claims if claim.verdict != "not measured"]
    if not measured:
        return "No claim is measured."
    counts = [
        sum(verdict == "not settled" for verdict in verdicts)
        for verdicts in (
            [claim.verdict for claim in measured],
            [claim.verdict_together for claim in measured],
        )
    ]
    alone, among = (f"{count} ({count / len(measured):.0%})" for count in counts)
    return (
        f"Not settled: {alone} of {len(measured)} verdicts, {among} after Holm's correction over the claims of each "
        "table."
    )


def claims_in_words(all_claims: Sequence[Claim]) -> list[str]:
    """One sentence for each claim: on how many data sets it holds, does not hold, or is not settled.

    A star marks what holds, or not, taken alone, and is not settled among all claims of its table.
    """
    lines = []
    for name in dict.fromkeys(claim.name for claim in all_claims):
        here = [claim for claim in all_claims if claim.name == name]
        parts = []
        for verdict in VERDICTS:
            of = [
                claim.dataset.split("/")[-1] + "*" * (claim.verdict_together != verdict)
                for claim in here
                if claim.verdict == verdict
            ]
            if of:
                parts.append(f"{verdict} on {', '.join(of)}")
        lines.append(f"{name} ({here[0].source}): {'; '.join(parts)} ({len(here)} data sets).")
    return lines
