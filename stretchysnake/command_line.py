"""How every verb reads its words and shows how far it is. The verbs are in verbs/."""

import os
import sys
import time
from dataclasses import asdict, fields

from stretchysnake.shown import shown


def parsed(
    verb: str,
    run_class: type | tuple[type, ...],
    examples: str,
    argv: list[str],
    *,
    paths: bool = False,
    defaults: object = None,
    short: dict[str, str] | None = None,
):
    """(run, positional paths) of a verb, from the command line, --config YAML and the recipe `defaults`.

    Of several classes the fields of all are options, and the run is a tuple of one value each; the first has the words
    of --help. `short` names options by a letter: {"-o": "--out"}.
    """
    try:
        from argparse import RawDescriptionHelpFormatter

        from jsonargparse import ArgumentParser, DefaultHelpFormatter
    except ImportError:
        raise RuntimeError(
            "the command line needs jsonargparse: pip install 'jsonargparse[signatures]'"
        ) from None

    classes = run_class if isinstance(run_class, tuple) else (run_class,)

    class Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
        """Keeps the lines of the example."""

    parser = ArgumentParser(
        formatter_class=Formatter,
        prog=f"stretchysnake {verb}",
        description=f"{(classes[0].__doc__ or '').strip()}\n\nexample:\n  {examples}",
        exit_on_error=True,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these fields")
    if paths:
        parser.add_argument("paths", nargs="+", type=str, help="files or folders")
    for one in classes:
        parser.add_class_arguments(one)
    if defaults is not None:
        parser.set_defaults(asdict(defaults))
    words = [(short or {}).get(word, word) for word in argv]
    values = dict(vars(parser.instantiate(parser.parse_args(words))))
    values.pop("config", None)
    given = values.pop("paths", [])
    values = {name: _at_home(value) for name, value in values.items()}
    runs = tuple(one(**{f.name: values[f.name] for f in fields(one)}) for one in classes)
    run = runs if isinstance(run_class, tuple) else runs[0]
    return run, [_at_home(path) for path in given]


def tell_passed_over(sources: list[str], *, classes: bool = False, file=None) -> None:
    """Print what lies in these folders, or stands in these lists, and was not read; nothing when that is nothing."""
    from stretchysnake.data.records import passed_over

    told = str(passed_over(sources, classes=classes))
    if told:
        print(shown(told), file=file)


def _at_home(value):
    """A text that begins with ~/ as a path: a shell leaves it so behind a `=`, and a YAML file always does."""
    is_home = isinstance(value, str) and value.startswith("~/")
    return os.path.expanduser(value) if is_home else value


class Progress:
    """Prints a line over itself on a terminal, and one line every ten seconds elsewhere."""

    def __init__(self):
        self.terminal, self.printed, self.open = sys.stderr.isatty(), 0.0, False

    def __call__(self, text: object) -> None:
        """Print a text, or the text of a report."""
        text = shown(text)
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
