"""The best scale for three budgets, from the rows of a sweep.

python examples/budget.py weights.safetensors rows.jsonl "10 MFLOPs" "5 ms" "4 MB"
"""

import sys

from stretchysnake.results.rows import read_rows
from stretchysnake.search.budget import parse_budget
from stretchysnake.search.plan import plan


def main(weights: str, rows: str, *budgets: str) -> None:
    for budget in budgets:
        try:
            made = plan(weights, parse_budget(budget), read_rows(rows))
        except ValueError as error:  # no cell is that cheap
            print(error)
            continue
        print(made.reason)
        print(
            "Pareto front:", ", ".join(f"{cell} {100 * cell.accuracy:.1f} %" for cell in made.front)
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
