"""How every verb reads its words, and says what it did not read."""

import os
from dataclasses import asdict

from stretchysnake.shown import shown


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
    values = {name: _at_home(value) for name, value in values.items()}
    return run_class(**values), [_at_home(path) for path in given]


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
