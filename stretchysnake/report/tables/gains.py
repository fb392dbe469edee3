"""What flexible training gains on each model, the SSM and its peers side by side: the twin of the paper's A.2."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from stretchysnake.report.tables.cells import label, main_rows, mean_of, peer_of, percent, points
from stretchysnake.report.tables.claims import Claim, claims
from stretchysnake.report.tables.paper import GAINS_OF_TRANSFORMERS, paper_numbers
from stretchysnake.report.tables.plain_table import PlainTable
from stretchysnake.report.tables.study.budget import budget_in_words
from stretchysnake.results.comparison import Difference, mean_difference
from stretchysnake.results.rows import Row, select


def gains_table(rows: Sequence[Row]) -> PlainTable | None:
    """One line for each peer and data set: both gains, their difference, and what A.2 says; None without a peer."""
    of_gains = [claim for claim in claims(rows) if claim.peer]
    if not of_gains:
        return None
    names = label(of_gains[0].model), label(of_gains[0].baseline)
    return PlainTable(
        name="gains",
        title=f"What flexible training gains on each model (A.2): {names[0]} minus {names[1]}, points of top1",
        head=("other model", "data set", "gain of the SSM", "gain of the other", "SSM minus other", "p", "p among all",
              "verdict", "among all", "cells", "seeds", "queries", "vanilla of the other at its own scale",
              "the other in the paper"),
        rows=tuple(_line(rows, claim) for claim in of_gains),
        note="The SSM is the model whose rows are named by method alone. Means over the cells that all four have, in "
        "each seed, then over seeds; brackets: 95 % interval over seeds and queries (one seed: queries), paired. "
        "Verdicts and p are those of claim (iv), among all its lines by Holm; where vanilla of the other model is near "
        "chance at its own scale, that model has not learned, and its gain says nothing. The paper prints no "
        f"numbers for A.2; its SSM gains {points(_gain_in_paper())} points, the mean of Table 1's cells. "
        + budget_in_words(rows, sorted({row.model for row in rows})),
    )  # fmt: skip


def _line(rows: Sequence[Row], claim: Claim) -> tuple[str, ...]:
    family = claim.peer.split("-")[0]
    place, end = (claim.peer, claim.dataset), GAINS_OF_TRANSFORMERS.get(family, "not there")
    d = claim.difference
    if d is None:
        return (*place, *["–"] * 5, f"{claim.verdict}: {claim.reason}", *["–"] * 5, end)
    here = [
        row
        for row in [*main_rows(rows), *(row for row in rows if peer_of(row.model))]
        if (row.num_frames, row.size) in d.cells and row.seed in d.seeds
    ]
    gains = [
        mean_difference(
            here,
            f"{start}{claim.model}",
            f"{start}{claim.baseline}",
            dataset=claim.dataset,
            protocol=claim.protocol,
        )
        for start in ("", f"{claim.peer} ")
    ]
    at_home = {"model": f"{claim.peer} {claim.baseline}", "dataset": claim.dataset, "native": True}
    learned = [row.value for row in select(here, protocol=claim.protocol, **at_home)]
    return (
        *place,
        *(_with_interval(gain) for gain in (*gains, d)),
        "–" if d.p_value is None else f"{d.p_value:.2g}",
        "–" if claim.p_together is None else f"{claim.p_together:.2g}",
        claim.verdict,
        claim.verdict_together,
        f"{len(d.cells)} of {len(d.cells) + d.num_cells_left_out}",
        ", ".join(map(str, d.seeds)),
        f"{claim.num_queries} of {claim.num_expected}",
        percent(mean_of(learned)),
        end,
    )


def _with_interval(difference: Difference) -> str:
    text = points(difference.mean)
    if difference.interval is None:
        return text
    low, high = difference.interval
    return f"{text} [{points(low)}, {points(high)}]"


def _gain_in_paper() -> float:
    """The paper's mean gain over Table 1's cells that both models have, as a fraction."""
    cells: dict[str, dict[tuple, float]] = {"vanilla": {}, "static_tokens": {}}
    for n in paper_numbers("1"):
        if n.value is not None:
            cells[n.model][n.dataset, n.num_frames, n.size] = n.value / 100
    flexible, fixed = cells["static_tokens"], cells["vanilla"]
    return statistics.fmean(
        flexible[place] - fixed[place] for place in flexible.keys() & fixed.keys()
    )
