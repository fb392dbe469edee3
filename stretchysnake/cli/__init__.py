"""The command line. `main.py` runs a verb; a verb is one file in the room that `verbs.py` names beside it."""

from stretchysnake.cli.main import main

__all__ = ["main"]
