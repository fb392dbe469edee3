"""The verbs of the command line: the room of this folder where each lies, and what it does."""

from importlib import import_module
from types import ModuleType
from typing import NamedTuple


class Verb(NamedTuple):
    room: str
    """Folder of this one."""
    does: str
    """One line of `stretchysnake --help`."""


VERBS = {
    "quickstart": Verb(
        "measurements",
        "make videos, train vanilla and static tokens, measure both over every scale, show a report",
    ),
    "train": Verb("models", "train a model on a list or a folder of videos"),
    "study": Verb(
        "measurements",
        "motion-digits: every experiment of the paper on the built-in videos, and which of its claims hold",
    ),
    "evaluate": Verb(
        "measurements",
        "retrieval, a probe or a fine-tuned classifier over a grid of scales: one row per cell and metric",
    ),
    "report": Verb("measurements", "one HTML page from measured rows"),
    "visualize": Verb(
        "measurements",
        "activation maps over the frames of any videos, and t-SNE of features, models side by side",
    ),
    "embed": Verb(
        "videos", "features of any mp4, avi, webm, mkv ... files or folders, in an index to search"
    ),
    "long": Verb("videos", "features of videos of any length, in constant memory"),
    "search": Verb(
        "videos", "the videos of an index that are nearest to a video: with time, score and frames"
    ),
    "plan": Verb(
        "measurements", "the most accurate scale within a budget of FLOPs, time or memory"
    ),
    "finetune": Verb(
        "models", "a classifier from a folder per class; k-NN or a linear probe where clips are few"
    ),
    "classify": Verb("videos", "the classes of videos, by a model of finetune"),
    "export": Verb(
        "models",
        "a model as a program of its own: torch.export with any T, H, W, or ONNX at one scale",
    ),
    "convert": Verb("models", "an official VideoMamba checkpoint as safetensors, with a card"),
    "data": Verb(
        "videos",
        "info, list: a public benchmark's state and its official lists; check: a verdict per video",
    ),
    "doctor": Verb("installation", "what this installation can and cannot do"),
    "completion": Verb("installation", "a script that completes verbs and options in bash and zsh"),
}
"""In the order of `stretchysnake --help`; the verb itself is ROOM/VERB.py, with `EXAMPLES` and `run(argv)`."""


def verb_module(verb: str) -> ModuleType:
    """The file of a verb, imported now: each loads what it needs and no more."""
    return import_module(f"stretchysnake.cli.{VERBS[verb].room}.{verb}")
