"""How every verb reads its words and shows how far it is. The verbs are in verbs/."""

import sys
import time
from dataclasses import asdict


def parsed(
    verb: str,
    run_class: type,
    examples: str,
    argv: list[str],
    *,
    paths: bool = False,
    defaults: object = None,
    short: dict[str, str] | None = None,
):
    """(run, positional paths) of a verb, from the command line, --config YAML and the recipe `defaults`.

    `short` names options by a letter: {"-o": "--out"}.
    """
    try:
        from argparse import RawDescriptionHelpFormatter

        from jsonargparse import ArgumentParser, DefaultHelpFormatter
    except ImportError:
        raise RuntimeError(
            "the command line needs jsonargparse: pip install 'jsonargparse[signatures]'"
        ) from None

    class Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
        """Keeps the lines of the example."""

    parser = ArgumentParser(
        formatter_class=Formatter,
        prog=f"stretchysnake {verb}",
        description=f"{(run_class.__doc__ or '').strip()}\n\nexample:\n  {examples}",
        exit_on_error=True,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these fields")
    if paths:
        parser.add_argument("paths", nargs="+", type=str, help="files or folders")
    parser.add_class_arguments(run_class)
    if defaults is not None:
        parser.set_defaults(asdict(defaults))
    words = [(short or {}).get(word, word) for word in argv]
    values = dict(vars(parser.instantiate(parser.parse_args(words))))
    values.pop("config", None)
    given = values.pop("paths", [])
    return run_class(**values), given


class Progress:
    """Prints a line over itself on a terminal, and one line every ten seconds elsewhere."""

    def __init__(self):
        self.terminal, self.printed, self.open = sys.stderr.isatty(), 0.0, False

    def __call__(self, text: object) -> None:
        """Print a text, or the text of a report."""
        text = str(text)
        if self.terminal:
            print(f"\r\x1b[K{text[:150]}", end="", file=sys.stderr, flush=True)
            self.open = True
        elif time.monotonic() - self.printed > 10:
            self.printed = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.open:
            print(file=sys.stderr)
            self.open = False
