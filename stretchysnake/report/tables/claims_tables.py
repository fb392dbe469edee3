"""The paper's claims as tables: all in one small grid, each with what it rests on, and the methods in order."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from stretchysnake.report.tables.cells import (
    datasets_of,
    label,
    main_rows,
    models_of,
    of_shared_seeds,
    percent,
    points,
)
from stretchysnake.report.tables.claims import Claim, claims, unsettled
from stretchysnake.report.tables.plain_table import PlainTable
from stretchysnake.report.tables.study.budget import budget_in_words, budget_table
from stretchysnake.report.tables.study.questions import QUESTIONS, REMARKS, question_claims
from stretchysnake.results.comparison import query_error, scatter_of
from stretchysnake.results.intervals import mean_interval
from stretchysnake.results.rows import Row, latest, select


def claims_grid(rows: Sequence[Row]) -> PlainTable | None:
    """One line for each claim, one column for each data set; None where the rows do not hold both models."""
    all_claims = claims(rows) if _both(rows) else []
    if not all_claims:
        return None
    datasets = list(dict.fromkeys(claim.dataset for claim in all_claims))
    by_place = {(claim.name, claim.dataset): claim for claim in all_claims}
    sources = {claim.name: claim.source for claim in all_claims}
    used = [claim for claim in all_claims if claim.difference is not None]
    gains = any(claim.peer for claim in all_claims)
    seeds = sorted({seed for claim in used for seed in claim.difference.seeds})
    fewest = min((claim.num_queries for claim in used), default=0)
    return PlainTable(
        name="claims-grid",
        title="Which of the paper's claims hold here: difference of top1 in points, the first minus the other",
        head=("claim", "paper", *datasets),
        rows=tuple(
            (name, source, *(_verdict(by_place.get((name, dataset))) for dataset in datasets))
            for name, source in sources.items()
        ),
        note=f"Brackets: 95 % interval over {_over(used)}. Holds: it lies above zero; does not hold: below; not "
        f"settled: it holds zero. A star: so alone, not among all comparisons of its table at once (Holm, 5 %; here "
        f"{_in_tables(used)}). {unsettled(all_claims)} "
        f"Seeds {', '.join(map(str, seeds)) or '–'}; at least {fewest} of "
        f"{max((claim.num_expected for claim in used), default=0)} queries each."
        + (
            " (iv): the gain of static tokens over vanilla here, less that on the other model."
            if gains
            else ""
        )
        + _chosen(used)
        + _spent(rows, used),
    )


def _chosen(used: Sequence[Claim]) -> str:
    """Which recipe was the best flexible one, behind a space."""
    best = [f"{c.dataset} {label(c.model)}" for c in used if "the best flexible recipe" in c.name]
    if not best:
        return ""
    return (
        f" Best flexible recipe, by leave-one-out inside the gallery (no query): {', '.join(best)}."
    )


def _in_tables(used: Sequence[Claim]) -> str:
    """How many comparisons each table holds."""
    counts = Counter(claim.table for claim in used)
    return ", ".join(f"{number} of {table}" for table, number in counts.items())


def _spent(rows: Sequence[Row], used: Sequence[Claim]) -> str:
    """What the compared models were given, behind a space."""
    models = [name for claim in used for name in (claim.model, claim.baseline)]
    models += [f"{c.peer} {name}" for c in used if c.peer for name in (c.model, c.baseline)]
    words = budget_in_words(rows, models)
    return f" {words}" if words else ""


def _both(rows: Sequence[Row]) -> bool:
    return {"static_tokens", "vanilla"} <= {row.model for row in rows}


def _verdict(claim: Claim | None) -> str:
    if claim is None or claim.difference is None:
        return f"– ({claim.reason if claim else 'not measured'})"
    interval = claim.difference.interval
    text = f" [{points(interval.low)}, {points(interval.high)}]" if interval else ""
    star = "" if claim.verdict_together == claim.verdict else "*"
    return f"{points(claim.difference.mean)}{text} {claim.verdict}{star}"


def _over(used: Sequence[Claim]) -> str:
    """What the intervals rest on; the same for all, or each named."""
    return ", or ".join(dict.fromkeys(claim.difference.interval_over for claim in used)) or "–"


def tables_of_claims(rows: Sequence[Row]) -> list[PlainTable]:
    """What the grid's numbers rest on; where there are more than two methods, their order on each data set; then the
    study's further questions, and what each model was given in training."""
    main = main_rows(rows)
    if not _both(main):
        return []
    retrieval = select(main, protocol="retrieval", metric="top1")
    orders = [order_table(main, dataset=dataset) for dataset in datasets_of(retrieval)]
    asked, budget = question_claims(rows), budget_table(rows)
    return [
        claims_table(claims(rows), rows),
        *(o for o in orders if len(o.rows) > 2),
        *(
            claims_table(
                [claim for claim in asked if claim.table == question],
                rows,
                name=f"question-{question.strip('()')}",
                title=f"{question} {title}: differences of top1, in points",
                remark=REMARKS.get(question, ""),
            )
            for question, title in QUESTIONS.items()
            if any(claim.table == question for claim in asked)
        ),
        *([] if budget is None else [budget]),
    ]


def claims_table(
    all_claims: Sequence[Claim],
    rows: Sequence[Row] = (),
    *,
    name: str = "claims",
    title: str = "The paper's claims at this size: differences of top1, in points",
    remark: str = "",
) -> PlainTable:
    """One line for each claim and data set; what was not measured says why. Of `rows` the note tells what the models
    were given in training."""
    lines, measured = [], [claim for claim in all_claims if claim.difference is not None]
    for claim in all_claims:
        d = claim.difference
        head = (claim.name, claim.source, claim.dataset)
        if d is None:
            lines.append((*head, f"{claim.verdict}: {claim.reason}", *["–"] * 10))
            continue
        interval, shown = "–", points if claim.peer else percent
        if d.interval is not None:
            interval = f"{points(d.interval.low)} to {points(d.interval.high)} ({d.interval_over})"
        lines.append(
            (
                *head,
                claim.verdict,
                claim.verdict_together,
                points(d.mean),
                interval,
                _p(d.p_value),
                _p(claim.p_together),
                shown(d.mean_a),
                shown(d.mean_b),
                f"{len(d.cells)} of {len(d.cells) + d.num_cells_left_out}",
                ", ".join(map(str, d.seeds)),
                f"{claim.num_queries} of {claim.num_expected}",
            )
        )
    return PlainTable(
        name=name,
        title=title,
        head=("claim", "paper", "data set", "verdict", "among all", "difference", "95 % interval", "p",
              "p among all", "model", "against", "cells", "seeds", "queries"),
        rows=tuple(lines),
        note=f"{remark} ".lstrip()
        + "Each difference is the mean over cells, averaged over seeds. Holds: the interval lies above zero; does "
        "not hold: below; not settled: it holds zero. Intervals: Student's t over seeds and the normal over queries, "
        "half-widths added in quadrature; over queries alone (one seed) they are blind to the luck of a training. "
        f"Among all: Holm's correction at 5 % over all lines of one table ({_in_tables(measured)}). "
        + unsettled(all_claims)
        + _spent(rows, measured),
    )  # fmt: skip


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2g}" if value >= 0.001 else "< 0.001"


def order_table(rows: Sequence[Row], *, dataset: str, protocol: str = "retrieval") -> PlainTable:
    """The methods from best to worst by top1 over the cells and seeds that all of them have, with intervals."""
    chosen = select(rows, dataset=dataset, protocol=protocol, metric="top1", status="ok")
    chosen = of_shared_seeds(latest(chosen))
    models = models_of(chosen)
    sides: dict[tuple[str, int], dict] = {}
    for row in chosen:
        sides.setdefault((row.model, row.seed), {})[row.num_frames, row.size] = row
    shared = sorted(set.intersection(*map(set, sides.values()))) if sides else []
    offered = {cell for side in sides.values() for cell in side}
    scores, errors = {}, {}
    for model in models if shared else ():
        seeds = [
            [side[cell] for cell in shared] for (name, _), side in sides.items() if name == model
        ]
        scores[model] = [statistics.fmean(row.value for row in cells) for cells in seeds]
        errors[model] = query_error(seeds)
    lines = []
    for model in sorted(scores, key=lambda name: -statistics.fmean(scores[name])):
        interval = mean_interval(scores[model], errors[model])
        over = scatter_of(len(scores[model]), errors[model])
        lines.append(
            (
                f"{len(lines) + 1}. {label(model)}",
                percent(statistics.fmean(scores[model])),
                f"{percent(interval.low)} to {percent(interval.high)} ({over})"
                if interval
                else "–",
                str(len(scores[model])),
                f"{len(shared)} of {len(offered)}",
                f"{min(row.num_queries for row in chosen)} of {max(row.num_expected for row in chosen)}",
            )
        )
    return PlainTable(
        name=f"order-{dataset}",
        title=f"{dataset}: the methods in order, {protocol} top1 over all cells, percent",
        head=("method", "top1", "95 % interval", "seeds", "cells", "queries"),
        rows=tuple(lines),
        note="The paper's order: static tokens first, vanilla last. Neighbours whose intervals overlap are not told "
        "apart." + (f" {words}" if (words := budget_in_words(rows, models)) else ""),
    )
