"""Claim (iv) from hand-made rows: the difference of gains and its interval, beside numpy written out."""

from dataclasses import replace

import numpy as np
import pytest

from stretchysnake.report.figures.gallery import pictures_of
from stretchysnake.report.pages.context import ReportContext, TrainingInfo
from stretchysnake.report.tables.cells import main_rows, peers_of
from stretchysnake.report.tables.claims import claims
from stretchysnake.report.tables.claims_tables import claims_grid, claims_table
from stretchysnake.report.tables.gains import gains_table
from stretchysnake.report.tables.grids import further_tables
from stretchysnake.results.comparison import gain_difference, pack_correct
from stretchysnake.results.rows import Row

CELLS = [(4, 32), (8, 16), (8, 32)]
SHARES = {"vanilla": 0.3, "static_tokens": 0.7, "b-nano vanilla": 0.5, "b-nano static_tokens": 0.6}
MODELS = tuple(SHARES)
QUERIES, SEEDS = 60, (0, 1, 2)
T_975 = 4.302652729911275
"""Student's 97.5 % quantile of two degrees of freedom, from a printed table."""


def flags(seed=5):
    """Right or wrong, (model, training seed, cell, query): a hard query is hard for all."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(size=QUERIES)
    luck = rng.normal(size=(len(MODELS), len(SEEDS), 1, 1))
    noise = rng.normal(size=(len(MODELS), len(SEEDS), len(CELLS), QUERIES))
    level = np.array([4 * share - 2 for share in SHARES.values()])[:, None, None, None]
    return level + 0.2 * luck + ease + noise > 0


def rows_from(right, **changes) -> list[Row]:
    return [
        Row(
            **{
                "run_id": f"{model}{seed}",
                "protocol": "retrieval",
                "dataset": "toy/short",
                "model": model,
                "seed": seed,
                "num_frames": cell[0],
                "size": cell[1],
                "patch_size": 8,
                "metric": "top1",
                "value": float(right[m, s, c].mean()),
                "num_queries": QUERIES,
                "num_expected": QUERIES,
                "num_gallery": 50,
                "gflops": 1.0,
                "milliseconds": 1.0,
                "trained": False,
                "native": cell == (8, 32),
                "correct": pack_correct(right[m, s, c].tolist()),
                "queries": "q",
                **changes,
            }
        )
        for m, model in enumerate(MODELS)
        for s, seed in enumerate(SEEDS)
        for c, cell in enumerate(CELLS)
    ]


def compared(rows):
    return gain_difference(rows, MODELS[1::-1], MODELS[:1:-1], dataset="toy/short")


def test_the_interval_is_that_of_numpy_over_seeds_and_paired_queries():
    right = flags()
    x = right.astype(float)
    each = (x[1] - x[0]) - (x[3] - x[2])  # (seed, cell, query)
    per_seed, per_query = each.mean(axis=(1, 2)), each.mean(axis=(0, 1))
    over_seeds = T_975 * per_seed.std(ddof=1) / np.sqrt(len(SEEDS))
    over_queries = 1.959963984540054 * per_query.std(ddof=1) / np.sqrt(QUERIES)
    half = np.hypot(over_seeds, over_queries)

    found = compared(rows_from(right))
    assert found.mean == pytest.approx(each.mean())
    assert found.mean_a == pytest.approx((x[1] - x[0]).mean())
    assert found.mean_b == pytest.approx((x[3] - x[2]).mean())
    assert found.per_seed == pytest.approx(per_seed)
    assert found.interval == pytest.approx((each.mean() - half, each.mean() + half))
    assert (found.model_a, found.model_b) == (
        "static_tokens − vanilla",
        "b-nano static_tokens − b-nano vanilla",
    )


def test_the_interval_of_one_seed_is_over_queries():
    right = flags()
    x = right[:, 0].astype(float)
    per_query = ((x[1] - x[0]) - (x[3] - x[2])).mean(axis=0)
    half = 1.959963984540054 * per_query.std(ddof=1) / np.sqrt(QUERIES)
    found = compared([row for row in rows_from(right) if row.seed == 0])
    assert found.interval_over == "queries"
    assert found.interval == pytest.approx((per_query.mean() - half, per_query.mean() + half))


def test_queries_that_cannot_be_paired_give_the_wider_interval():
    rows = rows_from(flags())
    unknown = [replace(row, correct="", queries="") for row in rows]
    paired, apart = compared(rows).interval, compared(unknown).interval
    assert apart.high - apart.low > paired.high - paired.low

    def error(model):
        shares = [row.value for row in rows if row.model == model and row.seed == 0]
        return np.mean([np.sqrt(p * (1 - p) / QUERIES) for p in shares])

    half = 1.959963984540054 * np.hypot(
        error(MODELS[1]) + error(MODELS[2]), error(MODELS[0]) + error(MODELS[3])
    )
    single = compared([row for row in unknown if row.seed == 0])
    assert single.interval.high - single.mean == pytest.approx(half)


def test_a_cell_that_one_of_the_four_lacks_counts_for_none():
    rows = rows_from(flags())
    left = [
        r for r in rows if (r.model, r.seed, r.num_frames, r.size) != ("b-nano vanilla", 1, 8, 16)
    ]
    found = compared(left)
    assert found.cells == ((4, 32), (8, 32)) and found.num_cells_left_out == 1


def test_claim_iv_stands_in_grid_tables_and_gains():
    rows = rows_from(flags())
    claim = claims(rows)[-1]
    assert claim.name == "(iv) flexible training gains more on the SSM than on b-nano"
    assert (claim.source, claim.verdict, claim.num_queries) == ("A.2", "holds", QUERIES)
    assert claims_grid(rows).rows[-1][1] == "A.2" and "(iv): the gain" in claims_grid(rows).note
    (line,) = gains_table(rows).rows
    d, points = claim.difference, lambda x: f"{100 * x:+.1f}".replace("-", "−")
    assert line[:2] == ("b-nano", "toy/short")
    assert [cell.split(" [")[0] for cell in line[2:5]] == [
        points(x) for x in (d.mean_a, d.mean_b, d.mean)
    ]
    assert all("[" in cell for cell in line[2:5])
    at_home = [r.value for r in rows if r.model == "b-nano vanilla" and r.native]
    own = f"{100 * np.mean(at_home):.1f}"
    assert len(at_home) == 3
    assert line[7:] == ("holds", "holds", "3 of 3", "0, 1, 2", "60 of 60", own, "not there")
    assert claims_table(claims(rows)).rows[-1][9:11] == (points(d.mean_a), points(d.mean_b))
    assert gains_table(main_rows(rows)) is None


def test_the_paper_s_own_words_and_mean_stand_beside():
    rows = [
        replace(row, model=row.model.replace("b-nano", "mvit-nano")) for row in rows_from(flags())
    ]
    table = gains_table(rows)
    assert table.rows[0][-1] == "+4 to +10 on average"
    assert "gains +14.9 points" in table.note  # 14.9275, the mean of 120 differences by numpy


def test_holm_counts_claim_iv_among_its_own_table_and_the_others_among_theirs():
    found = claims(rows_from(flags()))
    assert len(found) == 3 and [c.table for c in found] == ["claims", "claims", "A.2"]
    assert found[2].p_together == found[2].difference.p_value  # of one peer on one data set: alone
    ps = sorted(c.difference.p_value for c in found[:2])
    assert sorted(c.p_together for c in found[:2]) == pytest.approx(
        [2 * ps[0], max(2 * ps[0], ps[1])]
    )


def test_a_peer_without_values_says_what_it_lacks():
    rows = [row for row in rows_from(flags()) if row.model != "b-nano vanilla"]
    (claim,) = [c for c in claims(rows) if c.peer]
    assert (claim.verdict, claim.reason) == ("not measured", "no value of b-nano vanilla")
    assert gains_table(rows).rows[0][7] == "not measured: no value of b-nano vanilla"


def test_peers_have_their_own_tables_and_pictures_and_leave_the_main_ones_alone():
    rows = rows_from(flags())
    refused = replace(
        rows[-1],
        size=24,
        value=None,
        status="refused",
        num_queries=0,
        correct="",
        note="size (24) must be",
    )
    rows = [*rows, refused]
    assert peers_of(rows) == ["b-nano"]
    assert {row.model for row in main_rows(rows)} == {"vanilla", "static_tokens"}
    assert main_rows([r for r in rows if "b-nano" in r.model])  # alone they are the main ones
    told = {table.name: table for table in further_tables(rows)}
    table = told["table-1-retrieval-top1-toy/short-b-nano"]
    assert table.title == "b-nano on toy/short: retrieval top1, percent"
    assert "impossible" in {cell for line in table.rows for cell in line}
    assert "impossible: size (24) must be" in table.note
    info = {
        "seed": 0,
        "steps": 2,
        "seconds": 1.0,
        "clips": 2,
        "final_loss": 1.0,
        "parameters": 1,
        "scales": "",
    }
    training = [
        TrainingInfo(model=model, loss_curve=((1, 2.0), (2, 1.0)), **info) for model in MODELS
    ]
    drawn = pictures_of(rows, ReportContext(training=training))
    assert [p.file_name for p in drawn["peers"]] == ["size-b-nano-toy-short", "loss-b-nano"]
    assert drawn["peers"][0].alt.startswith("b-nano: Lines of top1")
    assert (
        drawn["loss"][0].alt.endswith("of static tokens and vanilla.")
        and "b-nano" not in drawn["size"][0].alt
    )
