"""`stretchysnake visualize`: what models see in any videos."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from stretchysnake.cli.options import parsed, tell_passed_over
from stretchysnake.cli.progress import Progress
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.eval.features.placement import Placement
from stretchysnake.shown import shown

EXAMPLES = (
    "stretchysnake visualize clip.mp4 --weights runs/a/weights.safetensors --weights runs/b/weights.safetensors "
    "--out seen/ --tsne test.csv"
)


@dataclass(frozen=True, kw_only=True)
class VisualizeRun:
    """Activation maps of videos, models side by side; t-SNE of the features of labelled videos."""

    weights: list[str]
    """weights.safetensors of a training, an official checkpoint or a name of `stretchysnake weights`; once for each
    model."""
    out: str
    """Folder for the pictures (PNG and SVG), their numbers (.npz, .csv) and pictures.json."""
    names: list[str] = field(default_factory=list)
    """What the models are called; by default the variant in each weights file."""
    sizes: list[int] | None = None
    """S values in pixels; null means the paper's four, scaled to the model's native size."""
    frames: int | None = None
    """Frames per video; null means the native number."""
    tsne: str | None = None
    """Labelled videos (list, or a folder per class) whose [CLS] features are laid out by t-SNE; null leaves it out."""
    seed: int = 0
    """Of t-SNE."""
    batch_size: int = 32
    """Clips in a forward pass of --tsne; maps take one."""
    num_workers: int = 2
    """Processes that decode; 0 decodes in this process, where a bad file may take it down."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Time that each second of a video may take to decode; a file that takes longer is left out."""


def run(argv: list[str]) -> int:
    words, classes = _one_list(argv), (VisualizeRun, Placement)
    (run, placement), videos = parsed(
        "visualize", classes, EXAMPLES, words, paths="videos, or folders of them"
    )
    from stretchysnake.recipes.visualize import visualize

    progress = Progress()
    written, skipped = visualize(videos, **vars(run), placement=placement, progress=progress)
    progress.close()
    for reason in skipped:  # it names the file
        print(f"skipped {shown(reason)}", file=sys.stderr)
    for path in written:
        if path.suffix == ".png":
            print(path)
    print(f"{len(written)} files: {Path(run.out)}; stretchysnake report ROWS --pictures {run.out}")
    tell_passed_over(videos)
    return 1 if skipped else 0


def _one_list(argv: list[str]) -> list[str]:
    """--weights a --weights b as --weights+ a --weights+ b, which jsonargparse reads as a list of both."""
    words = []
    for place, word in enumerate(argv):
        value = argv[place + 1] if place + 1 < len(argv) else ""
        name, equals, inline = word.partition("=")
        if name == "--weights" and not (inline if equals else value).startswith("["):
            word = "--weights+" + equals + inline
        words.append(word)
    return words
