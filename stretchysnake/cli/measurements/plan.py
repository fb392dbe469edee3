"""`stretchysnake plan`: the most accurate scale, and precision, within a budget."""

import sys
from dataclasses import dataclass

from stretchysnake.cli.options import parsed
from stretchysnake.cli.progress import Progress
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.eval.features.placement import Placement, check_precision

EXAMPLES = (
    'stretchysnake plan --weights W --rows rows.jsonl --budget "20 GFLOPs"\n'
    "  stretchysnake plan --weights W --gallery train.csv --queries val.csv --frames [8,16] --sizes [64,96]\n"
    '    --budget "50 ms"'
)


@dataclass(frozen=True, kw_only=True)
class PlanRun:
    """Cost and accuracy of every (T, S), the Pareto front, and the best cell within a budget."""

    weights: str
    """weights.safetensors of a training, an official checkpoint, or a name: `stretchysnake weights` lists them."""
    budget: str
    """What one clip may cost: "20 GFLOPs", "50 ms" or "2 GB"."""
    rows: str | None = None
    """Rows of `stretchysnake evaluate` or the quickstart. Cells measured now are written there."""
    gallery: str | None = None
    """List or folder to measure accuracy with, where there are no rows."""
    queries: str | None = None
    """List or folder of the queries; not the ones a result will be reported on."""
    frames: list[int] | None = None
    """T values to measure; null means those the variant was trained on."""
    sizes: list[int] | None = None
    """S values to measure; null means those the variant was trained on."""
    precisions: list[str] | None = None
    """Precisions to choose among, e.g. [fp32,int8], each by rows of its own; null means that of --precision alone."""
    objective: str = "accuracy"
    """"accuracy" (top1), or another metric of the rows, e.g. gallery_top1 or map."""
    dataset: str | None = None
    """Which data set, where the rows hold several."""
    remeasure: bool = False
    """Measure times and memory again, e.g. because the machine was busy when they were taken."""
    batch_size: int = 32
    """Clips in a forward pass where accuracy is measured; costs are those of one clip."""
    num_workers: int = 2
    """Processes that decode where accuracy is measured; 0 decodes in this one."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Time that each second of a video may take to decode where accuracy is measured."""
    out: str | None = None
    """-o: write the plan as JSON."""

    def __post_init__(self):
        for precision in self.precisions or []:
            check_precision(precision)
        if self.precisions is not None and len({*self.precisions}) != max(1, len(self.precisions)):
            raise ValueError(
                f"precisions ({self.precisions}) must be different ones, at least one; leave it out for --precision's"
            )


def run(argv: list[str]) -> int:
    classes, short = (PlanRun, Placement), {"-o": "--out"}
    (run, placement), _ = parsed("plan", classes, EXAMPLES, argv, short=short)
    from stretchysnake.report.tables.plain_table import PlainTable
    from stretchysnake.search.budget_plan import plan_for
    from stretchysnake.search.plan import plan_json
    from stretchysnake.whole_file import write_whole

    progress = Progress()
    made = plan_for(run, placement=placement, progress=progress)
    progress.close()
    rows = tuple(
        (
            str(cell),
            f"{cell.gflops:.4g}",
            f"{cell.milliseconds:.4g}",
            f"{cell.mebibytes:.4g}",
            f"{100 * cell.accuracy:.1f} %",
            "front" if cell in made.front else "",
            "<- chosen" if cell == made.choice else "",
        )
        for cell in made.cells
    )
    head = ("cell", "GFLOPs", "ms (p90)", "MiB", made.objective, "Pareto", "")
    print(PlainTable(title=f"{made.dataset}, one clip", head=head, rows=rows).to_text())
    print(made.reason)
    narrow = made.choice.precision != "fp32" or run.precisions
    print(
        f"use it: --frames {made.choice.num_frames} --size {made.choice.size}"
        + (f" --precision {made.choice.precision}" if narrow else "")
    )
    for note in made.notes:
        print(note, file=sys.stderr)
    if run.out:
        write_whole(run.out, plan_json(made))
        print(f"plan: {run.out}")
    return 0
