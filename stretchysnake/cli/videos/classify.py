"""`stretchysnake classify`: the classes of videos."""

import sys
from dataclasses import dataclass

from stretchysnake.cli.budget import within_budget
from stretchysnake.cli.options import parsed, tell_passed_over
from stretchysnake.cli.progress import Progress
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.eval.features.placement import Placement
from stretchysnake.shown import shown

EXAMPLES = "stretchysnake classify new.mp4 holiday/ --model runs/my-classes -k 3"


@dataclass(frozen=True, kw_only=True)
class ClassifyRun:
    """The most probable classes of videos, by a model of `stretchysnake finetune`."""

    model: str
    """Folder that finetune wrote."""
    k: int = 3
    """-k: how many classes per video."""
    budget: str | None = None
    """What one clip may cost, e.g. "5 GFLOPs"; of a fine-tuned model only, whose head reads any scale. Needs rows."""
    rows: str | None = None
    """Rows of `stretchysnake evaluate`, which tell the accuracy of every scale."""
    device: str = "auto"
    """Where the model computes: "cpu", "cuda" or e.g. "cuda:1"; "auto" means a GPU if there is one, else the CPU."""
    precision: str | None = None
    """"fp32" or "bf16"; null means the model's own. Another one only for a fine-tuned model: k-NN and probe compare
    features of one precision."""
    batch_size: int | None = None
    """Videos in a forward pass; null as in `stretchysnake embed`."""
    num_workers: int = 2
    """Processes that decode; 0 decodes in this process, where a bad file may take it down."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Time that each second of a video may take to decode; a file that takes longer is left out."""


def run(argv: list[str]) -> int:
    run, paths = parsed("classify", ClassifyRun, EXAMPLES, argv, paths=True, short={"-k": "--k"})
    if run.k < 1:
        raise ValueError(f"k ({run.k}) must be at least 1")
    if run.batch_size is not None and run.batch_size < 1:
        raise ValueError(f"batch_size ({run.batch_size}) must be at least 1, or null")
    from stretchysnake.eval.protocols.classifier import WEIGHTS, load_classifier, precision_for
    from stretchysnake.search.embed import embed

    classifier = load_classifier(run.model)
    placement = Placement(device=run.device, precision=precision_for(classifier, run.precision))
    weights = f"{run.model}/{WEIGHTS}"
    progress = Progress()
    frames, size = classifier.scale.num_frames, classifier.scale.size
    if run.budget is not None:
        if classifier.kind != "finetune":
            raise ValueError(
                f"budget ({run.budget}) needs a fine-tuned model; this one ({classifier.kind}) compares features "
                f"of one scale (T={frames} S={size}): choose the scale when it is made, finetune --frames --size"
            )
        frames, size = within_budget(weights, run.budget, run.rows, (), progress, placement)
    elif run.rows is not None:
        raise ValueError(
            f"rows ({run.rows}) say which scale is best for a budget; give --budget too"
        )
    found = embed(
        paths,
        weights=weights,
        num_frames=frames,
        size=size,
        placement=placement,
        batch_size=run.batch_size,
        num_workers=run.num_workers,
        fit=classifier.fit,
        timeout_seconds=run.timeout_seconds,
        progress=progress,
    )
    progress.close()
    for _, reason in found.failures:
        print(f"skipped {shown(reason)}", file=sys.stderr)
    if found.paths:
        chances, order = classifier.probabilities(found.features).sort(1, descending=True)
        for path, chance, labels in zip(found.paths, chances.tolist(), order.tolist(), strict=True):
            best = list(zip(labels, chance, strict=True))[: run.k]
            told = ", ".join(f"{classifier.classes[label]} {100 * p:.1f} %" for label, p in best)
            print(shown(f"{path}: {told}"))
    tell_passed_over(paths, file=sys.stderr)
    return 0 if not found.failures else 1
