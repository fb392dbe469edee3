"""The verbs of the command line: what each does, and the room of this folder where it lies."""

from importlib import import_module
from types import ModuleType

VERBS = {
    "quickstart": "make videos, train vanilla and static tokens, measure both over every scale, show a report",
    "train": "train a model on a list or a folder of videos",
    "study": "motion-digits: every experiment of the paper on the built-in videos, and which of its claims hold; "
    "table2: fourteen published systems beside the paper's numbers",
    "evaluate": "retrieval, a probe or a fine-tuned classifier over a grid of scales: one row per cell and metric",
    "report": "one HTML page from measured rows",
    "visualize": "activation maps over the frames of any videos, and t-SNE of features, models side by side",
    "embed": "features of any mp4, avi, webm, mkv ... files or folders, in an index to search",
    "long": "features of videos of any length, in constant memory",
    "search": "the videos of an index that are nearest to a video: with time, score and frames",
    "index": "info, check: of an index; merge, compact: one of several, or of many segments; list, export, approximate",
    "plan": "the most accurate scale within a budget of FLOPs, time or memory",
    "finetune": "a classifier from a folder per class; k-NN or a linear probe where clips are few",
    "classify": "the classes of videos, by weights with a head (Kinetics-400, ...) or a model of finetune",
    "export": "a model as a program of its own: torch.export with any T, H, W, or ONNX at one scale",
    "convert": "an official checkpoint as safetensors, with a card",
    "weights": "published weights by name: the list; get: fetch, check and keep them; check: what is kept",
    "publish": "a model of save_pretrained on the Hub; says what it would do, and does it with --send",
    "data": "info, list: a public benchmark's state and its official lists; check: a verdict per video",
    "doctor": "what this installation can and cannot do",
    "completion": "a script that completes verbs and options in bash and zsh",
}
"""What each does, in the order of `stretchysnake --help`."""

ROOMS = {
    "models": ("train", "finetune", "convert", "export", "weights", "publish"),
    "measurements": ("quickstart", "study", "evaluate", "plan", "report", "visualize"),
    "videos": ("data", "embed", "long", "search", "index", "classify"),
    "installation": ("doctor", "completion"),
}
"""Where each lies: ROOM/VERB.py, with `EXAMPLES` and `run(argv)`."""


def verb_module(verb: str) -> ModuleType:
    """The file of a verb, imported now: each loads what it needs and no more."""
    room = next(room for room, verbs in ROOMS.items() if verb in verbs)
    return import_module(f"stretchysnake.cli.{room}.{verb}")
