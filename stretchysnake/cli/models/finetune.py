"""`stretchysnake finetune`: a classifier from a folder per class."""

import sys
from dataclasses import dataclass

from stretchysnake.cli.options import parsed, tell_passed_over
from stretchysnake.cli.progress import Progress
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.eval.features.placement import Placement
from stretchysnake.shown import shown

EXAMPLES = (
    "stretchysnake finetune clips/ --weights runs/mine/weights.safetensors -o runs/my-classes\n"
    "  stretchysnake classify new.mp4 --model runs/my-classes"
)


@dataclass(frozen=True, kw_only=True)
class FinetuneRun:
    """A classifier of the classes of a folder (one sub-folder per class) or list, judged on a fifth held out.

    With few clips per class it is k-NN or a linear probe on the frozen model, and says so.
    """

    weights: str
    """weights.safetensors of a training, an official checkpoint, or a name: `stretchysnake weights` lists them."""
    out: str
    """-o: folder for the classifier, confusion.csv and report.html."""
    method: str = "auto"
    """"auto" by the number of clips, or "knn", "probe", "finetune"."""
    frames: int | None = None
    """Frames per video; null means the native number."""
    size: int | None = None
    """Pixels per side; null means the native size."""
    fit: str | None = None
    """"square" squashes every picture to size x size, "keep" gives each video a shape near its own of at most as many
    patches, "crop" takes the middle square; null: as the weights were trained. `classify` follows it."""
    steps: int | None = None
    """Of fine-tuning, null: 400; k-NN and probe take none."""
    batch_size: int = 16
    """Clips in a step of fine-tuning, and in a forward pass that reads features."""
    seed: int = 0
    """Of the training, and of which videos are held out."""
    num_workers: int = 2
    """Processes that decode; 0 decodes in this process, where a bad file may take it down."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Time that each second of a video may take to decode; a file that takes longer is left out."""


def run(argv: list[str]) -> int:
    classes, short = (FinetuneRun, Placement), {"-o": "--out"}
    (run, placement), paths = parsed(
        "finetune", classes, EXAMPLES, argv, paths="one folder or list", short=short
    )
    if len(paths) != 1:
        raise ValueError(f"data ({' '.join(paths)}) must be one folder or list")
    from stretchysnake.recipes.finetuning import finetune_folder
    from stretchysnake.report.pages.confusion_page import confusion_table, write_confusion_page
    from stretchysnake.whole_file import write_whole

    progress = Progress()
    done = finetune_folder(
        paths[0],
        weights=run.weights,
        out=run.out,
        method=run.method,
        num_frames=run.frames,
        size=run.size,
        fit=run.fit,
        steps=run.steps,
        batch_size=run.batch_size,
        seed=run.seed,
        placement=placement,
        num_workers=run.num_workers,
        timeout_seconds=run.timeout_seconds,
        progress=progress,
    )
    progress.close()
    for line in done.failures:
        print(f"skipped {shown(line)}", file=sys.stderr)
    low, high = done.interval
    found = (
        f"{100 * done.accuracy:.1f} % of {len(done.labels)} videos held out are right "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f}), trained on {done.num_train}"
    )
    table = confusion_table(done.classes, done.confusion)
    wrong = [
        (path, done.classes[label], done.classes[predicted])
        for path, label, predicted in zip(done.paths, done.labels, done.predicted, strict=True)
        if label != predicted
    ]
    write_whole(f"{run.out}/confusion.csv", table.to_csv())
    write_confusion_page(
        f"{run.out}/report.html", table, reason=done.reason, found=found, wrong=wrong
    )
    print(shown(done.reason))
    print(found)
    print(table.to_text())
    print(f"model: {run.out}, report: {run.out}/report.html")
    tell_passed_over(paths, classes=True)
    return 0 if not done.failures else 1
