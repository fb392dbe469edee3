"""`stretchysnake visualize`: what models see in any videos."""

import sys
from pathlib import Path

from stretchysnake.command_line import Progress, parsed

EXAMPLES = (
    "stretchysnake visualize clip.mp4 --weights runs/a/weights.safetensors --weights runs/b/weights.safetensors "
    "--out seen/ --tsne test.csv"
)


def run(argv: list[str]) -> int:
    from stretchysnake.recipes.visualize import VisualizeRun, visualize

    run, videos = parsed("visualize", VisualizeRun, EXAMPLES, _one_list(argv), paths=True)
    progress = Progress()
    written, skipped = visualize(run, videos, progress=progress)
    progress.close()
    for reason in skipped:  # it names the file
        print(f"skipped {reason}", file=sys.stderr)
    for path in written:
        if path.suffix == ".png":
            print(path)
    print(f"{len(written)} files: {Path(run.out)}; stretchysnake report ROWS --pictures {run.out}")
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
