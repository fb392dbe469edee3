"""How many seeds and queries would settle a claim, from the scatter of the rows at hand."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from stretchysnake.report.tables.claims import Claim, claims
from stretchysnake.report.tables.plain_table import PlainTable
from stretchysnake.results.power import power, seeds_needed
from stretchysnake.results.rows import Row

TARGETS = {"short": 0.03}
"""True differences to be told from zero, by suite; OTHERS elsewhere."""
OTHERS = 0.04
MOST_SEEDS = 30


def power_table(rows: Sequence[Row]) -> PlainTable:
    """One line for each data set and kind of comparison; ValueError where no claim has two seeds."""
    groups: dict[tuple[str, str], list[Claim]] = {}
    found = claims(rows)
    for claim in found:
        d = claim.difference
        if d is not None and len(d.seeds) > 1 and d.query_error is not None:
            groups.setdefault((claim.dataset, _kind(claim)), []).append(claim)
    if not groups:
        raise ValueError(
            "rows hold no claim measured with two seeds or more, so the scatter over seeds is unknown; run the study "
            "with --seeds [0,1,2]"
        )
    sizes = Counter(claim.table for claim in found if claim.difference is not None)
    lines = [_line(*place, here, sizes) for place, here in groups.items()]
    return PlainTable(
        name="power",
        title="What would settle a claim, by the scatter of these rows",
        head=("data set", "comparison", "claims", "scatter over seeds", "error over queries", "true difference",
              "power now", "seeds needed", "at 2x queries", "at 4x queries", "among all, seeds", "at 4x queries"),
        rows=tuple(lines),
        note="In points of top1. Scatter: standard deviation over seeds of the paired difference, root mean square "
        "over the claims of a line; error: standard error over queries of its mean. Power: the chance that the 95 % "
        "interval lies above zero where the true difference is that of the column, at these seeds and queries. Seeds "
        f"needed: the fewest with a power of 80 % (– : more than {MOST_SEEDS}); more queries shrink their error by "
        "their root and leave the scatter over seeds as it is, which is on the safe side. Among all: at the first step "
        "of Holm's correction, 5 % over the claims of the table.",
    )  # fmt: skip


def _kind(claim: Claim) -> str:
    if claim.table == "claims":
        return {"(i)": "away", "(ii)": "own scale"}.get(claim.name.split(" ")[0], "all cells")
    return {"A.2": "gains, SSM minus other"}.get(claim.table, claim.table)


def _line(dataset: str, kind: str, here: list[Claim], sizes: dict[str, int]) -> tuple[str, ...]:
    scatter = _root_mean_square([statistics.stdev(c.difference.per_seed) for c in here])
    error = _root_mean_square([claim.difference.query_error for claim in here])
    target = TARGETS.get(dataset.split("/")[-1], OTHERS)
    seeds = min(len(claim.difference.seeds) for claim in here)

    def needed(queries: int, alpha: float = 0.05) -> str:
        options = {"query_error": error / math.sqrt(queries), "alpha": alpha, "most": MOST_SEEDS}
        return str(seeds_needed(target, scatter=scatter, **options) or "–")

    first = 0.05 / sizes[here[0].table]
    now = power(target, scatter=scatter, query_error=error, num_seeds=seeds)
    return (
        dataset,
        kind,
        str(len(here)),
        f"{100 * scatter:.1f}",
        f"{100 * error:.1f}",
        f"{100 * target:.0f}",
        f"{now:.0%} ({seeds} seeds)",
        needed(1),
        needed(2),
        needed(4),
        needed(1, first),
        needed(4, first),
    )


def _root_mean_square(numbers: Sequence[float]) -> float:
    return math.sqrt(statistics.fmean(number**2 for number in numbers))
