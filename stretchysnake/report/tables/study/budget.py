"""What each model was given in training, three ways: steps, clips, tokens."""

from __future__ import annotations

from collections.abc import Sequence

from stretchysnake.report.tables.cells import (
    label,
    main_rows,
    mean_of,
    models_of,
    vanilla_trained_at,
)
from stretchysnake.report.tables.plain_table import PlainTable
from stretchysnake.results.rows import Row, select

Budget = tuple[float, float, float]
"""Steps, clips and patch tokens, each the mean over seeds."""


def budgets(rows: Sequence[Row]) -> dict[str, Budget]:
    """The budget of each model whose rows say one, by the name on the page; a vanilla of another T apart."""
    home, main = vanilla_trained_at(rows), {row.run_id for row in main_rows(rows)}
    by_name: dict[str, dict[str, Row]] = {}
    told = select(rows, protocol="retrieval")
    for model in models_of(told):
        for row in select(told, model=model):
            other = model == "vanilla" and row.run_id in home and row.run_id not in main
            name = f"{label(model)} T={home[row.run_id]}" if other else label(model)
            if row.train_steps:
                by_name.setdefault(name, {})[row.run_id] = row
    return {
        name: tuple(
            mean_of(getattr(row, field) for row in runs.values())
            for field in ("train_steps", "train_clips", "train_tokens")
        )
        for name, runs in by_name.items()
    }


def budget_table(rows: Sequence[Row]) -> PlainTable | None:
    """One line for each model; None where no row says what its model was given."""
    given = budgets(rows)
    if not given:
        return None
    first = given.get("vanilla")

    def beside(number: float, place: int) -> str:
        return f"{number / first[place]:.2f}" if first else "–"

    return PlainTable(
        name="budgets",
        title="What each model was given in training",
        head=("model", "steps", "clips", "tokens, millions", "steps / vanilla", "clips / vanilla",
              "tokens / vanilla"),
        rows=tuple(
            (
                name,
                f"{steps:,.0f}",
                f"{clips:,.0f}",
                f"{tokens / 1e6:.2f}",
                *(beside(number, place) for place, number in enumerate((steps, clips, tokens))),
            )
            for name, (steps, clips, tokens) in given.items()
        ),
        note="Means over seeds. Tokens are patch tokens of all clips, from the scales that were drawn. Where a model "
        "went on from trained weights, those of making them are counted too.",
    )  # fmt: skip


def budget_in_words(rows: Sequence[Row], models: Sequence[str]) -> str:
    """The budgets of these models for the note of a table that compares them; "" where the rows do not say."""
    given = {name: b for name, b in budgets(rows).items() if name in {label(m) for m in models}}
    if not given:
        return ""
    alike = len({budget[:2] for budget in given.values()}) == 1
    tokens = ", ".join(f"{name} {tokens / 1e6:.1f}" for name, (_, _, tokens) in given.items())
    if alike:
        steps, clips, _ = next(iter(given.values()))
        return (
            f"Budget: {steps:,.0f} steps and {clips:,.0f} clips each; millions of tokens: {tokens}."
        )
    each = "; ".join(f"{n} {s:,.0f} steps, {c:,.0f} clips" for n, (s, c, _) in given.items())
    return f"Budget: {each}; millions of tokens: {tokens}."
